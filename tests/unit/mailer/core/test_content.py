from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP, default

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailer.core import content, headers, quoted, template_rules
from mailer.core.content import (
    ContentSource,
    InvalidHeader,
    InvalidTemplate,
    Mailbox,
    MessageFacts,
    RenderFailed,
)
from tests.unit.mailer.core.test_headers import hostile_value
from tests.unit.mailer.core.test_mime import decoded_text
from tests.unit.mailer.core.test_quoted import assert_lines_are_safe, hostile_text, relaxed

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SOURCE = ContentSource(
    mailing_id=17,
    subject="{{ first_name | default('friend') }}, news for {{ company }}",
    html="<p>Hello {{ first_name }} &amp; {{ company }}</p>\n",
    text="Hello {{ first_name }} of {{ company }}\n",
    from_header=Mailbox("news@send.example.com", "Novedades & más"),
    reply_to=Mailbox("care@example.com"),
    headers=(("X-Segment", "{{ segment }}"), ("Precedence", "bulk")),
    feedback_id="17:acme:bulk:postroad",
)
FACTS = MessageFacts(
    recipient="ana@example.com",
    rfc_message_id="1.17@send.example.com",
    date=NOW,
    recipient_name="Ana Luz",
    unsubscribe_url="https://u.example.com/u/t?a=1&b=2",
    list_unsubscribe_mailto="u+t@u.example.com",
)
FIELDS = {"first_name": "José", "company": "ACME <1> S.A.", "segment": "new"}

# Templates that put out what they make where it stands, and the same behind a construct
# that makes the engine render the whole and encode afterwards.
WHOLE = "{% macro unused() %}{% endmacro %}"
BODY_PIECES = [
    "{{ a }}", "{{ b }}", "{{ a }}{{ b }}", "{{ missing }}", "{{ missing.deeper }}",
    "{{ unknown }}",
    "{{ a | upper }}", "{{ a | default('you') }}", "{{ a ~ b }}", "{{ a | e }}", "{{ a | safe }}",
    "{{ number * 2 }}", "{{ [a, b] | join(', ') }}", "{{ 'const <&> =' }}", "{{ a[1:3] }}",
    "{% for item in items %}{{ loop.index }}.{{ item }} {% endfor %}",
    "{% for item in items if item %}{{ item }}{% else %}none{% endfor %}",
    "{% if number > 1 %}{{ a }} {% elif a %}x{% else %}  y{% endif %}",
    "{% set x = a ~ '!' %}{{ x }}", "{% with y = b %} {{ y }}{% endwith %}", "{# gone #}",
    "{% raw %}{{ raw }}{% endraw %}", "{{ fields['a'] }}", "{{ products[0].name }}",
    "{%- if a %} {{ a -}} {% endif %}", "{% filter upper %}x{{ a }} y{% endfilter %}",
    "{% set z %}<i>{{ a }}</i> {% endset %}{{ z }}",
    "{% macro m(v) %}<b>{{ v }}</b>. {% endmacro %}{{ m(a) }}{{ m(b) }}",
    "{% for item in items recursive %}{{ item }}{% endfor %}",
    "{% autoescape false %}{{ a }}{% endautoescape %}",
]  # fmt: skip
static_text = hostile_text.map(lambda text: re.sub(r"[{}]", "", text))
templates = st.lists(st.sampled_from(BODY_PIECES) | static_text, max_size=6).map("".join)
field_values = st.fixed_dictionaries(
    {
        "a": hostile_text,
        "b": hostile_text,
        "number": st.integers(-5, 5),
        "unknown": st.none(),
        "items": st.lists(hostile_text, max_size=3),
        "products": st.lists(st.fixed_dictionaries({"name": hostile_text}), max_size=2),
    }
)


def parsed(message: bytes) -> EmailMessage:
    found = message_from_bytes(message, policy=default)
    assert isinstance(found, EmailMessage)
    assert not any(part.defects for part in found.walk())
    return found


def parts_of(message: bytes) -> dict[str, str]:
    return {
        part.get_content_type(): decoded_text(part)
        for part in parsed(message).walk()
        if not part.is_multipart()
    }


def plain_jinja(template: str, fields: Mapping[str, object], *, autoescape: bool) -> str:
    """What Jinja says by itself, each value normalised where it is put out."""
    environment = jinja2.Environment(
        autoescape=autoescape,
        undefined=jinja2.ChainableUndefined,
        keep_trailing_newline=True,
        finalize=_put_out,
        optimized=False,
    )
    environment.filters["default"] = template_rules.default
    rendered = environment.from_string(quoted.normalised(template)).render(**fields, fields=fields)
    return quoted.normalised(rendered)


def _put_out(value: object) -> object:
    if isinstance(value, str):
        return type(value)(quoted.normalised(value))
    return "" if value is None else value


def with_part(part: str, template: str) -> ContentSource:
    return replace(SOURCE, **{part: template})  # type: ignore[arg-type]


def body_of(message: bytes) -> str:
    return message.partition(b"\r\n\r\n")[2].decode("ascii")


def text_of(template: str, **fields: object) -> str:
    """The text part that a text-only mailing with this template gives."""
    source = ContentSource(1, "s", Mailbox("news@example.com"), text=f"{template}|end")
    return parts_of(content.compile(source).build(fields, FACTS))["text/plain"].removesuffix(
        "|end\n"
    )


@given(templates, templates, field_values)
@settings(max_examples=60, deadline=None)
def test_both_parts_say_what_jinja_says(html: str, text: str, fields: dict[str, object]) -> None:
    source = replace(SOURCE, html=html or "<p>", text=text or "-")

    message = content.compile(source).build(fields, FACTS)

    assert parts_of(message) == {
        "text/plain": plain_jinja(source.text, fields, autoescape=False),
        "text/html": plain_jinja(source.html, fields, autoescape=True),
    }
    assert message.endswith(b"\r\n")
    assert_lines_are_safe(body_of(message))
    assert body_of(message) == relaxed(body_of(message))


@given(templates, field_values)
@settings(max_examples=40, deadline=None)
def test_the_fast_way_and_the_whole_way_say_the_same(
    template: str, fields: dict[str, object]
) -> None:
    fast = replace(SOURCE, html=template or "<p>", text=template or "-")
    whole = replace(SOURCE, html=WHOLE + fast.html, text=WHOLE + fast.text)

    built = [parts_of(content.compile(each).build(fields, FACTS)) for each in (fast, whole)]

    assert built[0] == built[1]


@given(templates, field_values)
@settings(max_examples=40, deadline=None)
def test_a_text_only_message_loses_at_most_blank_lines_at_its_end(
    text: str, fields: dict[str, object]
) -> None:
    source = replace(SOURCE, html="", text=text or "-")

    message = content.compile(source).build(fields, FACTS)

    said = parts_of(message)["text/plain"]
    assert said.rstrip("\n") == plain_jinja(source.text, fields, autoescape=False).rstrip("\n")
    assert body_of(message) == relaxed(body_of(message))
    assert message.endswith(b"\r\n")


@given(hostile_value, hostile_value, hostile_value)
@settings(max_examples=60, deadline=None)
def test_no_field_and_no_name_can_add_a_header(first: str, segment: str, name: str) -> None:
    compiled = content.compile(SOURCE)
    expected = parsed(compiled.build(FIELDS, FACTS)).keys()
    fields = {"first_name": first, "company": "ACME", "segment": segment}

    message = parsed(compiled.build(fields, replace(FACTS, recipient_name=name)))

    present = [key for key in expected if key != "X-Segment" or headers.collapsed(segment)]
    assert message.keys() == present
    assert [box.addr_spec for box in message["To"].addresses] == ["ana@example.com"]
    assert [box.addr_spec for box in message["From"].addresses] == ["news@send.example.com"]


def test_the_header_of_a_usual_message() -> None:
    message = parsed(content.compile(SOURCE).build(FIELDS, FACTS))

    assert dict(message.items()) == {
        "From": "Novedades & más <news@send.example.com>",
        "To": "Ana Luz <ana@example.com>",
        "Reply-To": "care@example.com",
        "Subject": "José, news for ACME <1> S.A.",
        "Date": "Fri, 02 Jan 2026 03:04:05 +0000",
        "Message-ID": "<1.17@send.example.com>",
        "List-Unsubscribe": "<https://u.example.com/u/t?a=1&b=2>, <mailto:u+t@u.example.com>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        "X-Segment": "new",
        "Precedence": "bulk",
        "Feedback-ID": "17:acme:bulk:postroad",
        "X-Postroad-Mailing": "17",
        "MIME-Version": "1.0",
        "Content-Type": message["Content-Type"],
    }


def test_a_transactional_message_without_a_link_has_nothing_to_unsubscribe_from() -> None:
    message = parsed(content.compile(SOURCE).build(FIELDS, replace(FACTS, unsubscribe_url="")))

    assert "List-Unsubscribe" not in message
    assert "List-Unsubscribe-Post" not in message


def test_a_proof_is_marked_as_one() -> None:
    message = parsed(content.compile(SOURCE).build(FIELDS, replace(FACTS, is_preview=True)))

    assert message["X-Postroad-Preview"] == "yes"


def test_the_parts_equal_those_of_the_standard_library() -> None:
    built = content.compile(SOURCE).build(FIELDS, FACTS)
    reference = EmailMessage(policy=SMTP)
    reference["Subject"] = "José, news for ACME <1> S.A."
    reference.set_content("Hello José of ACME <1> S.A.\n")
    reference.add_alternative("<p>Hello José &amp; ACME &lt;1&gt; S.A.</p>\n", subtype="html")

    assert parts_of(built) == parts_of(reference.as_bytes())
    ours, theirs = parsed(built), parsed(reference.as_bytes())
    assert ours["Subject"] == theirs["Subject"]
    assert ours.get_content_type() == theirs.get_content_type()


def test_building_again_gives_the_same_bytes() -> None:
    first, second = content.compile(SOURCE), content.compile(SOURCE)
    head, body = second.build_parts(FIELDS, FACTS)

    assert first.build(FIELDS, FACTS) == first.build(FIELDS, FACTS) == head + b"\r\n" + body


def test_the_preview_reads_like_the_message() -> None:
    compiled = content.compile(SOURCE)
    preview = compiled.preview(FIELDS, FACTS)
    parts = parts_of(compiled.build(FIELDS, FACTS))

    assert (preview.html, preview.text) == (parts["text/html"], parts["text/plain"])
    assert preview.subject == "José, news for ACME <1> S.A."


def test_a_field_cannot_pretend_to_be_the_unsubscribe_link() -> None:
    source = replace(SOURCE, text="{{ unsubscribe_url }} {{ tracking_token }}")
    fields = {"unsubscribe_url": "https://evil.example", "tracking_token": "forged"}
    facts = replace(FACTS, provided={"tracking_token": "t1"})

    said = parts_of(content.compile(source).build(fields, facts))["text/plain"]

    assert said == "https://u.example.com/u/t?a=1&b=2 t1"


def test_values_are_escaped_in_html_and_only_there() -> None:
    script = {"first_name": "<script>alert('x')</script>", "company": '"&"'}
    parts = parts_of(content.compile(SOURCE).build(script, FACTS))

    assert parts["text/html"] == (
        "<p>Hello &lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &#34;&amp;&#34;</p>\n"
    )
    assert parts["text/plain"] == "Hello <script>alert('x')</script> of \"&\"\n"


@pytest.mark.parametrize(
    ("value", "expected"),
    [({}, "friend"), ({"n": None}, "friend"), ({"n": " "}, "friend"), ({"n": 0}, "0")],
)
def test_default_stands_in_for_missing_none_and_blank(
    value: dict[str, object], expected: str
) -> None:
    assert text_of("{{ n | default('friend') }}", **value) == expected


DERIVED = [
    ("<p>Hello {{ a }}</p>", "Hello {{ a }}\n"),
    ("Hi {% if a %}dear {% endif %}friend", "Hi {% if a %}dear {% endif %}friend\n"),
    ('<a href="{{ unsubscribe_url }}">Leave</a>', "Leave ({{ unsubscribe_url }})\n"),
    ("<style>p{ {{ a }} }</style><!-- {{ b }} --><p>x</p>", "x\n"),
    ("<p>{{ a }}&#983040;&#xF0000;&#xE000;&#99999999999;\U000f0000\ue000 b</p>", "{{ a }} b\n"),
    ("<p>1 &lt; 2 &amp;&amp; &#123;&#123; x }}</p>", "1 < 2 && {{ '{' }}{ x }}\n"),
    (
        "<table>{% for p in q %}<tr><td>{{ p.n }}</td><td>{{ p.m }}</td></tr>{% endfor %}</table>",
        "{% for p in q %}{{ p.n }}  {{ p.m }}\n\n{% endfor %}\n",
    ),
    ('<td class="{% if a %}x{% endif %}">y</td>', "y\n"),
    (
        '<a href="{% if a %}https://x{% else %}https://y{% endif %}">z</a>',
        "z ({% if a %}https://x{% else %}https://y{% endif %})\n",
    ),
]


@pytest.mark.parametrize(("html", "template"), DERIVED)
def test_the_text_part_is_derived_once_from_html_with_its_expressions(
    html: str, template: str
) -> None:
    fields: dict[str, object] = {"a": "A & B", "b": "B", "q": [{"n": 1, "m": 2}, {"n": 3, "m": 4}]}
    message = content.compile(replace(SOURCE, html=html, text="")).build(fields, FACTS)

    expected = plain_jinja(
        template, {**fields, "unsubscribe_url": FACTS.unsubscribe_url}, autoescape=False
    )
    assert parts_of(message)["text/plain"] == expected


def test_a_condition_that_leaves_its_tag_needs_a_text_part_of_its_own() -> None:
    html = '<p {% if a %}class="x">y{% endif %}</p>'

    with pytest.raises(InvalidTemplate, match="no text part can be derived"):
        content.compile(replace(SOURCE, html=html, text=""))
    assert content.compile(replace(SOURCE, html=html, text="y")).build(FIELDS, FACTS)


@given(hostile_text.map(lambda text: re.sub(r"[{}]", "", text)), hostile_text)
@settings(max_examples=40, deadline=None)
def test_any_html_gives_a_text_part(around: str, value: str) -> None:
    html = f"<div>{around}{{{{ a }}}}</p>{{% if a %}}<td>{around}{{% endif %}}{around}"

    message = content.compile(replace(SOURCE, html=html, text="")).build({"a": value}, FACTS)

    assert set(parts_of(message)) == {"text/plain", "text/html"}
    assert body_of(message) == relaxed(body_of(message))


@pytest.mark.parametrize(
    ("template", "line", "said"),
    [
        ("a\nb {{ c", 2, "unexpected end"),
        ("{% if a %}", 1, "endif"),
        ("x\n{% endfor %}", 2, "endfor"),
        ("{{ a | shout }}", 1, "shout"),
        ("{{ a | random }}", 1, "random"),
        ("\n{% include 'x' %}", 2, "paste"),
        ("{% extends 'x' %}", 1, "paste"),
        ("{% import 'x' as y %}", 1, "paste"),
        ("{% for a in b %}" * 30 + "{% endfor %}" * 30, 0, "nested"),
        ("{{ " + "(" * 500 + "a" + ")" * 500 + " }}", 0, "nested"),
        ("{{ a" + ".b" * 2_000 + " }}", 0, "nested"),
        ("{{ a" + "|upper" * 2_000 + " }}", 0, "nested"),
        ("{% set a = 1 %}" * 5_000, 1, "more than 10,000"),
        ("x" * 500_001, 0, "longer"),
    ],
)
@pytest.mark.parametrize("part", ["subject", "html", "text"])
def test_a_template_that_cannot_work_is_refused_when_compiled(
    part: str, template: str, line: int, said: str
) -> None:
    with pytest.raises(InvalidTemplate, match=said) as caught:
        content.compile(with_part(part, template))

    assert (caught.value.part, caught.value.line) == (part, line)


def test_a_message_with_nothing_to_say_is_refused() -> None:
    with pytest.raises(InvalidTemplate, match="neither HTML nor text"):
        content.compile(replace(SOURCE, html="", text=""))


@pytest.mark.parametrize(
    "broken",
    [
        {"from_header": Mailbox("news")},
        {"reply_to": Mailbox("care@example.com\r\nBcc: x@example.com")},
        {"headers": (("Subject", "twice"),)},
        {"headers": (("X-A\r\nBcc", "x"),)},
    ],
)
def test_a_broken_static_header_is_refused_when_compiled(broken: dict[str, object]) -> None:
    with pytest.raises(InvalidHeader):
        content.compile(replace(SOURCE, **broken))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "broken",
    [
        {"recipient": "ana@example.com\r\nBcc: x@example.com"},
        {"rfc_message_id": "1@x>\r\nBcc: y"},
        {"unsubscribe_url": "javascript:alert(1)"},
        {"date": datetime(2026, 1, 1)},  # noqa: DTZ001
    ],
)
def test_broken_facts_of_one_message_are_refused_when_built(broken: dict[str, object]) -> None:
    with pytest.raises(InvalidHeader):
        content.compile(SOURCE).build(FIELDS, replace(FACTS, **broken))  # type: ignore[arg-type]


GREEDY = [
    "{% for i in range(10**9) %}x{% endfor %}",
    "{% for a in range(999) %}{% for b in range(999) %}{% endfor %}{% endfor %}",
    "{{ 'x' * 10**9 }}",
    "{{ 10**9 * 'x' }}",
    "{{ [0] * 10**9 }}",
    "{{ 9 ** 9999999 }}",
    "{{ 'x' | center(10**9) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (10**9, 1) }}",
    "{{ '%1000000000d' | format(1) }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ '{:{}}'.format(1, 10**9) }}",
    "{{ '{x:{y}}'.format_map({'x': 1, 'y': 10**9}) }}",
    "{{ 'x' | indent(10**9, true) }}",
    "{{ [1] | batch(10**9, 0) | list }}",
    "{{ [1] | slice(10**9) | list }}",
    "{{ 1.5 | round(10**9) }}",
    "{{ [1] | tojson(indent=10**9) }}",
    "{{ long | replace('', long) }}",
    "{{ long.replace('', long) }}",
    "{{ long | list | join(long) }}",
    "{{ long.join(long | list) }}",
    "{{ long.join(long | map('upper')) }}",
    "{{ long | wordwrap(1, wrapstring=long) }}",
    "{{ ([long] * 1000) | string }}",
    "{{ [long] * 1000 }}",
    "{% set n = namespace(x='xx') %}"
    "{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "{% set n = namespace(x='xx') %}"
    "{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "{% set n = namespace(x=9) %}"
    "{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "{% set n = namespace(x=[]) %}"
    "{% for i in range(999) %}{% set n.x = n.x + [long[1:]] %}{% endfor %}",
    "{% set n = namespace(x='x') %}"
    "{% for i in range(60) %}{% set n.x = '%s%s' % (n.x, n.x) %}{% endfor %}",
    "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% for x in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "{% set x %}{% for i in range(999) %}{{ long }}{% endfor %}{% endset %}{{ x | length }}",
    "{{ 'x'.ljust(10**9) }}",
    "{{ 'x'.zfill(10**9) }}",
    "{{ '\t'.expandtabs(10**9) }}",
    "{{ (1).to_bytes(10**9, 'big') }}",
    "{{ ''.__class__.__mro__ }}{{ ''.__class__.mro() }}",
    "{{ range.__init__.__globals__['x'] }}{{ [].append(1) }}",
    "{{ fields.update({'a': 1}) }}",
]  # fmt: skip


@pytest.mark.parametrize("template", GREEDY)
@pytest.mark.parametrize("part", ["subject", "html", "text"])
def test_a_template_cannot_use_up_the_machine_or_break_out(part: str, template: str) -> None:
    compiled = content.compile(with_part(part, f"\n{template}"))

    with pytest.raises(RenderFailed) as caught:
        compiled.build({**FIELDS, "long": "0123456789" * 2_000}, FACTS)

    assert caught.value.part == part
    assert caught.value.line == 2


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ '%.2f' | format(price) }}", "9.50"),
        ("{{ '{:>8,.2f}'.format(price * 1000) }}", "9,500.00"),
        ("{{ 'a-b'.split('-') | join(', ') }}", "a, b"),
        ("{{ ', '.join(names | map('upper')) }}", "ANA, LI"),
        ("{% for n in names %}{{ loop.cycle('o', 'e') }}{{ loop.last }} {% endfor %}",
         "oFalse eTrue "),
        ("{% for n in names | map('title') %}{{ loop.length }}{{ n }}{% endfor %}", "2Ana2Li"),
        ("{{ names | first }} {{ names | length }} {{ names[-1:] | first }}", "ana 2 li"),
        ("{{ when.strftime('%d.%m.%Y') }}", "02.01.2026"),
        ("{{ product.get('name') }} {{ product.name }} {{ product['name'] }}", "tea tea tea"),
        ("{% for k, v in product.items() %}{{ k }}={{ v }}{% endfor %}", "name=tea"),
        ("{{ 2 ** 10 }} {{ 7 // 2 }} {{ 7 % 4 }} {{ -(1) }}", "1024 3 3 -1"),
        ("{{ 'x' * 5 ~ '!' }}", "xxxxx!"),
        ("{% set n = namespace(t=0) %}{% for p in [1, 2] %}{% set n.t = n.t + p %}{% endfor %}"
         "{{ n.t }}", "3"),
        ("{% macro hi(n) %}Hi {{ n }}{% endmacro %}{{ hi('Li') }}", "Hi Li"),
        ("{{ none }}{{ unknown }}{% filter upper %}{{ none }}{% endfilter %}", ""),
        ("{{ names | sort | reverse | join('/') }}", "li/ana"),
        ("{{ nothing.at.all }}", ""),
    ],
)  # fmt: skip
def test_what_marketers_write_works(template: str, expected: str) -> None:
    fields: dict[str, object] = {
        "price": 9.5,
        "names": ["ana", "li"],
        "when": NOW,
        "product": {"name": "tea"},
        "unknown": None,
    }

    assert text_of(template, **fields) == expected


def test_a_failure_with_one_recipients_values_names_part_and_line() -> None:
    compiled = content.compile(replace(SOURCE, text="one\n{{ price * 2 + 'x' }}"))

    with pytest.raises(RenderFailed, match="text, line 2: TypeError") as caught:
        compiled.build({**FIELDS, "price": 3}, FACTS)

    assert (caught.value.part, caught.value.line) == ("text", 2)


@pytest.mark.parametrize("part", ["subject", "html", "text"])
def test_a_part_that_grows_too_long_is_refused(part: str) -> None:
    template = "{% for i in range(999) %}{{ long }}{% endfor %}"
    compiled = content.compile(with_part(part, template))

    with pytest.raises(RenderFailed, match=r"longer|too much"):
        compiled.build({**FIELDS, "long": "0123456789" * 2_000}, FACTS)


def test_one_failed_message_leaves_the_next_its_whole_budget() -> None:
    compiled = content.compile(replace(SOURCE, text="{% for i in items %}{{ i }}{% endfor %}"))

    with pytest.raises(RenderFailed):
        compiled.build({**FIELDS, "items": "x" * 300_000}, FACTS)

    assert parts_of(compiled.build({**FIELDS, "items": "ok"}, FACTS))["text/plain"] == "ok"
