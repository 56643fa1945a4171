from __future__ import annotations

import pytest

from mailer.core import content
from mailer.core.content import ContentSource, InvalidTemplate, Mailbox


def source(text: str, **parts: object) -> ContentSource:
    given: dict[str, object] = {"subject": "Hello", "text": text, **parts}
    return ContentSource(1, from_header=Mailbox("news@send.example.com"), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "names", "guarded"),
    [
        ("no fields", "", ""),
        ("{{ first_name }}", "first_name", ""),
        ("{{ first_name | default('friend') }}", "first_name", "first_name"),
        ("{{ first_name | upper | default('friend') }}", "first_name", ""),
        ("{{ a | d(b) }}", "a b", "a"),
        ("{{ a | default('x') }} {{ a }}", "a", ""),
        ("{% if a %}{{ a }}{% endif %}", "a", "a"),
        ("{% if a %}{{ b }}{% endif %}", "a b", "a"),
        ("{% if a is defined %}x{% endif %}", "a", "a"),
        ("{{ a or 'friend' }}", "a", "a"),
        ("{{ 'Dear ' ~ a if a else 'Hello' }}", "a", "a"),
        ("{{ order.total }} {{ order['no'] }}", "order", ""),
        ("{% for p in products %}{{ p.name }}{% endfor %}", "products", "products"),
        ("{% set x = city %}{{ x }}", "city", ""),
        ("{% macro m(x) %}{{ x }}{{ y }}{% endmacro %}{{ m(z) }}", "y z", ""),
        ("{{ unsubscribe_url }} {{ range(3) | length }}", "", ""),
        ("{{ fields['Company name'] }} {{ fields.city }}", "Company name|city", ""),
        ("{{ fields.get('Company name') | default('x') }}", "Company name", "Company name"),
        ("{# {{ ignored }} #}{% raw %}{{ ignored }}{% endraw %}", "", ""),
    ],
)
def test_which_fields_a_template_uses(text: str, names: str, guarded: str) -> None:
    def split(listed: str) -> set[str]:
        return set(listed.split("|") if "|" in listed or "Company" in listed else listed.split())

    used = content.fields_used(source(text))

    assert used.names == split(names)
    assert used.guarded == split(guarded)
    assert not used.has_dynamic_lookup


@pytest.mark.parametrize(
    "text",
    [
        "{{ fields[key] }}",
        "{% for name, value in fields.items() %}{{ name }}{% endfor %}",
        "{{ fields }}",
        "{% set all = fields %}{{ all[key] }}",
        "{{ fields.get(key) }}",
    ],
)
def test_a_lookup_known_only_at_send_time_keeps_every_field(text: str) -> None:
    assert content.fields_used(source(text)).has_dynamic_lookup


def test_every_part_of_the_content_counts() -> None:
    used = content.fields_used(
        source(
            "{{ a }}",
            subject="{{ b }}",
            html="<p>{{ c }} {{ d | default('x') }}</p>",
            headers=(("X-Code", "{{ d }}"),),
        )
    )

    assert used.names == {"a", "b", "c", "d"}
    assert used.unguarded == {"a", "b", "c", "d"}


def test_a_name_is_guarded_only_where_every_part_guards_it() -> None:
    guarded = source("{{ a | default('x') }}", subject="{{ a | default('y') }}")
    gap = source("{{ a | default('x') }}", subject="{{ a }}")

    assert content.fields_used(guarded).guarded == {"a"}
    assert content.fields_used(gap).guarded == set()


def test_a_broken_template_is_named_with_part_and_line() -> None:
    with pytest.raises(InvalidTemplate) as caught:
        content.fields_used(source("one\ntwo {{ a"))

    assert (caught.value.part, caught.value.line) == ("text", 2)
