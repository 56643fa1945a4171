"""How a message will look to one recipient: the mailer's own rendering, shown harmlessly.

What comes out is only ever put into a sandboxed frame: no script runs, no form is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.http import HttpResponse
from django.utils import timezone

from campaigns.models import Recipient
from mailer.core import content

#: A response of its own origin: no scripts, no forms, nothing but pictures is fetched.
POLICY = (
    "sandbox allow-popups; default-src 'none'; style-src 'unsafe-inline'; "
    "img-src https: http: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
_SAMPLE_ADDRESS = "ada.lovelace@example.com"
_SAMPLE_FIELDS = {
    "first_name": "Ada",
    "last_name": "Lovelace",
    "name": "Ada Lovelace",
    "company": "Analytical Engines",
    "city": "London",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """`error` is "" where the content could be rendered."""

    to: str
    subject: str = ""
    html: str = ""
    text: str = ""
    error: str = ""


def sample_recipient(workspace_id: int, address: str = "") -> Recipient | None:
    """The recipient with this address, or else the newest one of the workspace."""
    rows = Recipient.objects.filter(workspace_id=workspace_id)
    if address.strip():
        return rows.filter(address_key=address.strip().lower()).first()
    return rows.order_by("-pk").first()


def show(*, subject: str, html: str, text: str, recipient: Recipient | None) -> Shown:
    """Render for the recipient, or for an invented one. Never raises for what people wrote."""
    address = recipient.address if recipient else _SAMPLE_ADDRESS
    fields: Mapping[str, Any] = recipient.attributes if recipient else _SAMPLE_FIELDS
    try:
        compiled = content.compile(
            content.ContentSource(
                mailing_id=0,
                subject=subject,
                from_header=content.Mailbox("preview@example.com"),
                html=html,
                text=text,
            )
        )
        seen = compiled.preview(fields, _facts(address))
    except (content.InvalidTemplate, content.InvalidHeader, content.RenderFailed) as problem:
        return Shown(address, error=str(problem))
    return Shown(address, seen.subject, seen.html, seen.text)


def _facts(address: str) -> content.MessageFacts:
    return content.MessageFacts(
        recipient=address,
        rfc_message_id="<preview@example.com>",
        date=timezone.now(),
        unsubscribe_url="https://example.com/unsubscribe",
        is_preview=True,
    )


def as_document(shown: Shown) -> HttpResponse:
    """The message's HTML (or text) as a page that can do nothing."""
    if shown.html:
        response = HttpResponse(shown.html)
    else:
        response = HttpResponse(shown.error or shown.text, content_type="text/plain; charset=utf-8")
    response["Content-Security-Policy"] = POLICY
    return response
