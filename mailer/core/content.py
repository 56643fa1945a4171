"""A mailing's content, compiled once, and the message that each recipient gets.

Decides the whole RFC 5322 message: its header fields, their order, its MIME structure and
its encoding. The result is ASCII with CRLF line ends, ends with CRLF, holds no line that
begins with a dot, and its body is its own relaxed canonical form. Never looks at a clock and
never draws a number: the date, the Message-ID and the boundary's seed are arguments, so
building again gives the same bytes. Never signs.

What a static part gets wrong is found when the mailing is compiled (`InvalidTemplate`,
`InvalidHeader`); what one recipient's values get wrong, when that message is built
(`RenderFailed`, `InvalidHeader`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from mailer.core import headers, merge, mime
from mailer.core.headers import InvalidHeader, Mailbox
from mailer.core.merge import MergeFields
from mailer.core.plain_text import text_template
from mailer.core.template import (
    CompiledTemplate,
    InvalidTemplate,
    RenderFailed,
    parse,
    values_for,
)

__all__ = [
    "CompiledContent",
    "ContentSource",
    "InvalidHeader",
    "InvalidTemplate",
    "Mailbox",
    "MessageFacts",
    "Preview",
    "RenderFailed",
    "compile",
    "fields_used",
]


@dataclass(frozen=True, slots=True)
class ContentSource:
    """What a mailing says, as templates. Subject, parts and extra headers may hold fields.

    With `html` alone the text part is derived from it; with `text` alone there is one part.
    """

    mailing_id: int
    subject: str
    from_header: Mailbox
    html: str = ""
    text: str = ""
    reply_to: Mailbox | None = None
    headers: tuple[tuple[str, str], ...] = ()  #: (name, template of the value)
    boundary_seed: str = ""
    feedback_id: str = ""


@dataclass(frozen=True, slots=True)
class MessageFacts:
    """What differs from message to message apart from the merge fields."""

    recipient: str
    rfc_message_id: str
    date: datetime
    recipient_name: str = ""
    unsubscribe_url: str = ""  #: "" where there is nothing to unsubscribe from
    list_unsubscribe_mailto: str = ""
    provided: Mapping[str, object] = field(
        default_factory=dict
    )  #: wins over fields of the same name
    is_preview: bool = False  #: marks a proof as such in its header


@dataclass(frozen=True, slots=True)
class Preview:
    """A message as people read it. `html` is "" where the message has no HTML part."""

    subject: str
    html: str
    text: str


def compile(source: ContentSource) -> CompiledContent:
    """Prepare `source` for any number of messages; milliseconds, once per mailing."""
    return CompiledContent(source)


def fields_used(source: ContentSource) -> MergeFields:
    """Say which merge fields `source` uses; raises `InvalidTemplate` like `compile`."""
    used = merge.NO_FIELDS
    for part, template, is_html in _templates(source):
        used |= merge.fields_in(parse(part, template, is_html=is_html))
    return used


class CompiledContent:
    """A mailing's content, ready to build messages. Immutable; may be shared by threads."""

    def __init__(self, source: ContentSource) -> None:
        self._source = source
        self._subject = _line("subject", source.subject)
        self._headers = tuple(
            (headers.checked_name(name), _line(f"header {name}", value))
            for name, value in source.headers
        )
        text = _text_of(source)
        self._text = CompiledTemplate("text", text, is_html=False, is_body=True)
        self._html = (
            CompiledTemplate("html", source.html, is_html=True, is_body=True)
            if source.html
            else None
        )
        self._boundary = mime.boundary_for(source.boundary_seed or str(source.mailing_id))
        self._from = headers.mailbox("From", source.from_header)
        self._reply_to = headers.mailbox("Reply-To", source.reply_to) if source.reply_to else ""
        self._closing = _closing_fields(source, self._boundary)

    def build(self, fields: Mapping[str, object], facts: MessageFacts) -> bytes:
        """Build the whole message."""
        head, body = self._parts(fields, facts)
        return f"{head}\r\n{body}".encode("ascii")

    def build_parts(self, fields: Mapping[str, object], facts: MessageFacts) -> tuple[bytes, bytes]:
        """Build (header, body) apart, as a signer wants them; an empty line goes between."""
        head, body = self._parts(fields, facts)
        return head.encode("ascii"), body.encode("ascii")

    def preview(self, fields: Mapping[str, object], facts: MessageFacts) -> Preview:
        """Render for people's eyes: the same templates and values, nothing encoded."""
        values = _values(fields, facts)
        subject = headers.collapsed(self._subject.text(values))
        html = self._source.html
        return Preview(
            subject,
            _readable("html", html, is_html=True).text(values) if html else "",
            _readable("text", _text_of(self._source), is_html=False).text(values),
        )

    def _parts(self, fields: Mapping[str, object], facts: MessageFacts) -> tuple[str, str]:
        values = _values(fields, facts)
        return self._head(values, facts), self._body(values)

    def _head(self, values: dict[str, object], facts: MessageFacts) -> str:
        return "".join(
            (
                self._from,
                headers.mailbox("To", Mailbox(facts.recipient, facts.recipient_name)),
                self._reply_to,
                headers.unstructured("Subject", self._subject.text(values)),
                headers.date(facts.date),
                headers.message_id(facts.rfc_message_id),
                _unsubscription(facts),
                *self._extra(values),
                "X-Postroad-Preview: yes\r\n" if facts.is_preview else "",
                self._closing,
            )
        )

    def _extra(self, values: dict[str, object]) -> Iterator[str]:
        for name, template in self._headers:
            value = headers.collapsed(template.text(values))
            if value:
                yield headers.unstructured(name, value)

    def _body(self, values: dict[str, object]) -> str:
        text = self._text.encoded(values)
        if self._html is None:
            return mime.single_body(text)
        return mime.alternative_body(self._boundary, text, self._html.encoded(values))


def _values(fields: Mapping[str, object], facts: MessageFacts) -> dict[str, object]:
    provided = {"unsubscribe_url": facts.unsubscribe_url, "fields": fields, **facts.provided}
    return values_for(fields, provided)


def _templates(source: ContentSource) -> Iterator[tuple[str, str, bool]]:
    """Every template of `source`: its part's name, its text, whether it is HTML."""
    yield "subject", source.subject, False
    for name, value in source.headers:
        yield f"header {name}", value, False
    if source.text:
        yield "text", source.text, False
    if source.html:
        yield "html", source.html, True


def _line(part: str, template: str) -> CompiledTemplate:
    return CompiledTemplate(part, template, is_html=False, is_body=False)


def _readable(part: str, template: str, *, is_html: bool) -> CompiledTemplate:
    return CompiledTemplate(part, template, is_html=is_html, is_body=False)


def _text_of(source: ContentSource) -> str:
    if source.text:
        return source.text
    if not source.html:
        raise InvalidTemplate("text", 0, "the message has neither HTML nor text; write one")
    parse("html", source.html, is_html=True)
    derived = text_template(source.html)
    try:
        parse("text", derived, is_html=False)
    except InvalidTemplate as error:
        advice = "a condition or loop begins inside an HTML tag and ends outside of it, so no text "
        raise InvalidTemplate("html", 0, f"{advice}part can be derived; write one") from error
    return derived


def _closing_fields(source: ContentSource, boundary: str) -> str:
    """The fields that are the same in every message, and end its header."""
    feedback = source.feedback_id
    return "".join(
        (
            headers.unstructured("Feedback-ID", feedback) if feedback else "",
            f"X-Postroad-Mailing: {source.mailing_id:d}\r\n",
            mime.alternative_fields(boundary) if source.html else mime.SINGLE_TEXT_FIELDS,
        )
    )


def _unsubscription(facts: MessageFacts) -> str:
    if not facts.unsubscribe_url:
        return ""
    return headers.list_unsubscribe(facts.unsubscribe_url, facts.list_unsubscribe_mailto)
