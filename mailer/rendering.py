"""From message rows to envelopes: one query for a batch, then content compiled once per mailing."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import orjson
from django.db import connection

from mailer import compiling, conf
from mailer.core import content, tokens
from mailer.core.envelope import Envelope, UnsafeAddress


class NotRendered(Exception):
    """The message cannot be made from its content and fields; says why."""


@dataclass(frozen=True, slots=True)
class Row:
    """A waiting message, as delivery needs it."""

    id: int
    recipient_id: int | None
    address: str
    recipient_domain: str
    content_id: int | None
    context: dict[str, Any]
    attempts: int
    failures: int
    queued_at: datetime


@dataclass(frozen=True, slots=True)
class Frame:
    """What all messages of a batch have in common."""

    mailing_day: date
    mailing_id: int
    content_id: int | None
    unsubscribe_scope: str


def load(day: date, ids: Sequence[int]) -> list[Row]:
    """The messages of a batch that still wait and are not deferred, in the order of their ids."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT id, recipient_id, address, recipient_domain, content_id, context, attempts,
                   failures, queued_at
            FROM mailer_message
            WHERE mailing_day = %s AND id = ANY(%s) AND state = 'waiting' AND due_at IS NULL
            ORDER BY id
            """,
            [day, list(ids)],
        )
        return [Row(*row[:5], orjson.loads(row[5]), *row[6:]) for row in cursor.fetchall()]


def render(frame: Frame, row: Row, *, now: datetime) -> Envelope:
    """Make one message. Raises `NotRendered`: the same data would fail the same way again."""
    content_id = row.content_id or frame.content_id
    if content_id is None:
        raise NotRendered("the message has no content")
    try:
        stored, compiled = compiling.compiled(content_id, frame.mailing_id)
        body = compiled.build(row.context, _facts(frame, row, stored.return_path, now))
        return Envelope(
            row.id, row.attempts + 1, stored.return_path, row.address, body, is_dot_safe=True
        )
    except (content.RenderFailed, content.InvalidTemplate, content.InvalidHeader) as error:
        raise NotRendered(str(error)) from error
    except (UnsafeAddress, UnicodeError) as error:
        raise NotRendered(f"the address cannot be sent to: {error}") from error


def unsubscribe_url(frame: Frame, message_id: int, recipient_id: int | None) -> str:
    """The link behind List-Unsubscribe; "" where there is nothing to unsubscribe from."""
    if not frame.unsubscribe_scope:
        return ""
    token = tokens.sign(
        conf.token_keys()[0],
        tokens.Purpose.UNSUBSCRIBE,
        frame.mailing_day,
        frame.mailing_id,
        message_id,
        recipient_id or 0,
    )
    return f"{conf.place().public_url}/u/{token}"


def rfc_message_id(frame: Frame, message_id: int, return_path: str) -> str:
    """The same for every attempt, so that a receiver that got two copies can tell."""
    name = f"{frame.mailing_day:%Y%m%d}.{frame.mailing_id}.{message_id}"
    mark = hmac.digest(conf.token_keys()[0], name.encode(), "sha256")[:6].hex()
    return f"<{name}.{mark}@{return_path.rpartition('@')[2]}>"


def _facts(frame: Frame, row: Row, return_path: str, now: datetime) -> content.MessageFacts:
    return content.MessageFacts(
        recipient=row.address,
        rfc_message_id=rfc_message_id(frame, row.id, return_path),
        date=now,
        unsubscribe_url=unsubscribe_url(frame, row.id, row.recipient_id),
    )
