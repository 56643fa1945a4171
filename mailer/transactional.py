"""Transactional requests: one message each, accepted once per workspace and dedup key.

The dedup key names the request, not the recipient: a second password reset is another request.
Accepting is one transaction; what is to be published afterwards is returned. A part of the
outbox, through which everybody else reaches it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import orjson
from django.db import connection, transaction

from mailer import dispatch, partitions
from mailer.core.envelope import UnsafeAddress, checked
from mailer.core.retry import policy_from
from mailer.models import Mailing, MailingKind

#: How long an expired route goes on telling the lane of a transactional message.
ROUTE_TELLS_LANE_FOR = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Request:
    """One transactional message. `dedup_key` names the request, not the recipient: a second
    password reset is another request."""

    workspace_id: int
    pool_id: int
    content_id: int
    dedup_key: str
    address: str  #: normalised for sending: ASCII domain, see campaigns/core/addresses.py
    context: Mapping[str, Any] = field(default_factory=dict)
    priority: int = 4
    retry: str | Mapping[str, object] = "exponential"


@dataclass(frozen=True, slots=True)
class Accepted:
    """`is_new` is False when the same request was accepted before."""

    message_id: int
    mailing_id: int
    is_new: bool
    publications: list[dispatch.Publication]


def submit(request: Request, *, now: datetime) -> Accepted:
    """Accept one transactional message, once per workspace and dedup key, and lay its batch.

    The key is remembered for the day of the request and the day before it.
    """
    day = now.date()
    partitions.ensure(day)
    with transaction.atomic():
        _lock(f"request:{request.workspace_id}:{request.dedup_key}")
        known = _known_request(request, day)
        if known:
            return Accepted(known[0], known[1], False, [])
        mailing = _standing_mailing(request, day)
        message_id, batch_id = _add_message(request, mailing, now)
        publications = dispatch.assign([batch_id], now=now)
    return Accepted(message_id, mailing.pk, True, publications)


def _standing_mailing(request: Request, day: date) -> Mailing:
    """The transactional mailing that takes such requests today."""
    spec = policy_from(request.retry).spec()
    digest = hashlib.sha256(orjson.dumps(spec, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]
    mailing, _ = Mailing.objects.get_or_create(
        workspace_id=request.workspace_id,
        reference=f"transactional:{request.pool_id}:{request.priority}:{digest}",
        day=day,
        defaults={
            "kind": MailingKind.TRANSACTIONAL,
            "name": f"Transactional, {day}",
            "pool_id": request.pool_id,
            "priority": request.priority,
            "retry": spec,
            "state": "running",
        },
    )
    return mailing


def _known_request(request: Request, day: date) -> tuple[int, int] | None:
    days = [day, day - timedelta(days=1)]
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT id, mailing_id FROM mailer_message
            WHERE mailing_day = ANY(%s) AND dedup_key = %s AND mailing_id = ANY(ARRAY(
                SELECT id FROM mailer_mailing
                WHERE workspace_id = %s AND kind = %s AND day = ANY(%s)))
            LIMIT 1
            """,
            [days, request.dedup_key, request.workspace_id, str(MailingKind.TRANSACTIONAL), days],
        )
        return cursor.fetchone()


# One statement, since each round trip is time that somebody waits for a password. An old route
# still tells the lane: delivery looks the hosts up again.
_ADD_SQL = """
WITH added AS (
    INSERT INTO mailer_message (mailing_day, mailing_id, dedup_key, address,
        recipient_domain, content_id, context, state, queued_at)
    VALUES (%(day)s, %(mailing)s, %(key)s, %(address)s, %(domain)s, %(content)s, %(context)s,
            'waiting', %(now)s)
    RETURNING id),
laid AS (
    INSERT INTO mailer_batch (mailing_day, mailing_id, pool_id, provider, priority, ids)
    SELECT %(day)s, %(mailing)s, %(pool)s, coalesce((
               SELECT provider FROM mailer_route WHERE domain = %(domain)s
               AND state <> 'failed' AND expires_at > %(routes_since)s), ''),
           %(priority)s, ARRAY[id]
    FROM added RETURNING id),
noted AS (
    INSERT INTO mailer_mailingdelta (mailing_id, entry, delta) VALUES (%(mailing)s, 'waiting', 1))
SELECT added.id, laid.id FROM added, laid
"""


def _add_message(request: Request, mailing: Mailing, now: datetime) -> tuple[int, int]:
    """Add the message, lay its batch and note it in the account; the ids of both."""
    local, _, domain = checked(request.address).rpartition("@")
    if not (local and domain):
        raise UnsafeAddress(f"{request.address!r} is not an address")
    with connection.cursor() as cursor:
        cursor.execute(
            _ADD_SQL,
            {
                "day": mailing.day,
                "mailing": mailing.pk,
                "pool": mailing.pool_id,
                "priority": mailing.priority,
                "key": request.dedup_key,
                "address": request.address,
                "domain": domain,
                "content": request.content_id,
                "context": orjson.dumps(dict(request.context)).decode(),
                "now": now,
                "routes_since": now - ROUTE_TELLS_LANE_FOR,
            },
        )
        return cursor.fetchone()


def _lock(name: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [name])
