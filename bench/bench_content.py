"""What building a message costs: CPU microseconds for each, and where they go.

    python -m bench.bench_content --messages 20000 --json

The message is a typical newsletter: 20 KB of HTML with 16 holes for 5 fields, 4 KB of text
and 3 tracked links, in Spanish, with List-Unsubscribe and Feedback-ID. CPU time is the
process's own; the median of five passes is shown.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from mailer.core import content, headers, tokens
from mailer.core.content import CompiledContent, ContentSource, Mailbox, MessageFacts
from mailer.core.tokens import Purpose

_PASSES = 5
_DATE = datetime(2026, 1, 1, 12, tzinfo=UTC)
_KEY = b"a key that only the bench uses.."
_WORDS = (
    "oferta nueva temporada descuento exclusivo para nuestros clientes más fieles con envío "
    "gratis señor año mañana the quick newsletter of this week brings café recipes and travel "
    "ideas 20% save now order today limited stock"
)
_LINKS = ("offers", "account", "news")


def newsletter() -> ContentSource:
    """A source of the size and kind that the figures are about."""
    chance, words = random.Random(7), _WORDS.split()

    def sentence(count: int) -> str:
        return " ".join(chance.choice(words) for _ in range(count)).capitalize() + "."

    html = (
        '<!DOCTYPE html>\n<html lang="es"><head><meta charset="utf-8">'
        "<title>{{ first_name }}, tus novedades</title></head>\n<body>\n"
        "<p>Hola {{ first_name }} de {{ city }}, {{ company }} tiene un código para ti: "
        "<b>{{ code }}</b> por {{ amount }} €.</p>\n"
    )
    number = 0
    while len(html.encode()) < 19_700:
        html += _block(number, sentence)
        number += 1
    html += '<p>{{ first_name }} ({{ company }}). <a href="{{ unsubscribe_url }}">Baja</a></p>\n'
    text = "Hola {{ first_name }} de {{ city }},\n{{ company }}: {{ code }} por {{ amount }} €.\n\n"
    while len(text.encode()) < 4_000:
        text += sentence(24) + "\n\n"
    return ContentSource(
        mailing_id=17,
        subject="{{ first_name }}, novedades para {{ company }}",
        from_header=Mailbox("news@send.example.com", "Novedades"),
        html=html + "</body></html>\n",
        text=text,
        feedback_id="17:acme:bulk:postroad",
    )


def _block(number: int, sentence: Callable[[int], str]) -> str:
    link = ""
    if number < len(_LINKS):
        target = f"https://t.example.com/c/{number}/{{{{ tracking_token }}}}"
        link = f'<a class="btn" href="{target}" style="color:#fff">Ver {_LINKS[number]}</a>'
    return (
        '<table role="presentation" width="600" cellpadding="0" cellspacing="0"><tr>\n'
        '<td align="left" style="padding:20px 30px;font-family:Arial,sans-serif;color:#333">\n'
        f'<h2 style="margin:0 0 10px">{sentence(5)}</h2>\n<p>{sentence(45)}</p>\n'
        f'<img src="https://cdn.example.com/{number}.png" width="540" alt="{sentence(3)}">\n'
        f"{link}</td></tr></table>\n"
    )


def fields_for(number: int) -> dict[str, object]:
    """One recipient's fields; a good part of them needs escaping or encoding."""
    return {
        "first_name": ("José", "Ana & Luis", "María", "Li", "Bob")[number % 5],
        "city": ("Madrid", "Sevilla", "A Coruña", "Zürich")[number % 4],
        "company": f"ACME <{number % 97}> S.A.",
        "code": f"X{number:06d}=Y",
        "amount": f"{number % 500},50",
    }


def facts_for(number: int) -> MessageFacts:
    """What a worker would hand over for one message, tokens included."""
    token = tokens.sign(_KEY, Purpose.CLICK, _DATE.date(), 17, number, number)
    leave = tokens.sign(_KEY, Purpose.UNSUBSCRIBE, _DATE.date(), 17, number, number)
    return MessageFacts(
        recipient=f"u{number}@d{number % 7}.example",
        rfc_message_id=f"{number}.17@send.example.com",
        date=_DATE,
        unsubscribe_url=f"https://u.example.com/u/{leave}",
        list_unsubscribe_mailto=f"u+{leave}@u.example.com",
        provided={"tracking_token": token},
    )


def cpu_microseconds(count: int, step: Callable[[int], object]) -> float:
    """Median CPU time of `step(number)` over `count` numbers."""
    passes = []
    for _ in range(_PASSES):
        began = time.process_time()
        for number in range(count):
            step(number)
        passes.append((time.process_time() - began) / count * 1e6)
    return statistics.median(passes)


def measure(count: int) -> dict[str, Any]:
    """Everything that the bench reports."""
    source = newsletter()
    compiled = content.compile(source)
    macro = "{% macro nothing() %}{% endmacro %}"
    whole = content.compile(replace(source, html=macro + source.html, text=macro + source.text))
    given = [(fields_for(number), facts_for(number)) for number in range(1_000)]

    def build(number: int) -> bytes:
        return compiled.build(*given[number % 1_000])

    message = build(3)
    return {
        "messages": count,
        "html_bytes": len(source.html.encode()),
        "text_bytes": len(source.text.encode()),
        "message_bytes": len(message),
        "build_us": round(cpu_microseconds(count, build), 1),
        "build_whole_us": round(
            cpu_microseconds(max(count // 10, 1), lambda n: whole.build(*given[n % 1_000])), 1
        ),
        "facts_and_2_tokens_us": round(cpu_microseconds(count, facts_for), 1),
        "where": _where(compiled, given, count),
        "compile_ms": round(cpu_microseconds(5, lambda _: content.compile(source)) / 1000, 1),
    }


def _where(
    compiled: CompiledContent, given: list[tuple[dict[str, object], MessageFacts]], count: int
) -> dict[str, float]:
    """The steps of `build`, each on its own."""
    values = [content._values(*pair) for pair in given]
    steps: dict[str, Callable[[int], object]] = {
        "values_us": lambda n: content._values(*given[n % 1_000]),
        "head_us": lambda n: compiled._head(values[n % 1_000], given[n % 1_000][1]),
        "body_us": lambda n: compiled._body(values[n % 1_000]),
        "subject_render_us": lambda n: compiled._subject.text(values[n % 1_000]),
        "mailbox_us": lambda n: headers.mailbox("To", Mailbox(given[n % 1_000][1].recipient)),
        "date_us": lambda n: headers.date(_DATE),
    }
    return {name: round(cpu_microseconds(count, step), 1) for name, step in steps.items()}


def main() -> None:
    """Run and print one JSON line, or the same for people."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=5_000)
    parser.add_argument("--json", action="store_true", help="one JSON line")
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.messages), indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
