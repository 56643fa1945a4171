"""The numbers of a running campaign, as its page asks for them every second.

Reads only. The account is a handful of small rows, always exact. What has to look at single
attempts (per provider, per source) is kept for a time that grows with what it cost, so that
people who watch never take more than a twentieth of the database.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

from django.core.cache import cache
from django.db import connection

from campaigns import progress
from campaigns.core import lifecycle
from campaigns.core.lifecycle import Event, State
from campaigns.models import Campaign
from campaigns.progress import Progress
from deliverability.models import Hold
from mailer.account import Account
from mailer.models import Mailing

_COST_SHARE = 20  #: a number that took a second to find is shown for twenty
_MIN_SECONDS = 2.0
_REFUSALS = 8

STATE_LABELS = {
    State.DRAFT: "info",
    State.SENDING: "warning",
    State.PAUSED: "danger",
    State.CANCELLED: "danger",
    State.FINISHED: "success",
}
STATE_WORDS = {
    "delivered": "delivered",
    "bounced": "bounced",
    "expired": "expired",
    "suppressed": "suppressed",
    "cancelled": "cancelled",
    "in_doubt": "in doubt",
    "dead": "failed on our side",
    "waiting": "waiting",
}
EXCLUSION_WORDS = {
    "unsubscribed": "unsubscribed",
    "unconfirmed": "never confirmed",
    "suppressed": "suppressed",
    "duplicate": "on the mailing already",
}


@dataclass(frozen=True, slots=True)
class Detail:
    """What came of the attempts, and what waits for what."""

    providers: list[dict[str, Any]]
    sources: list[dict[str, Any]]
    waits: list[dict[str, Any]]
    counted_at: float  #: of time.time()


def snapshot(campaign: Campaign, *, now: datetime) -> dict[str, Any]:
    """Everything the page shows, as JSON."""
    seen = progress.of(campaign, now=now)
    mailing = Mailing.objects.filter(pk=campaign.mailing_id).first()
    detail = _detail(mailing) if mailing else None
    return {
        "state": campaign.state,
        "label": headline(campaign, seen.states, audience=seen.audience),
        "is_over": seen.is_over,
        "expanded": seen.expanded,
        "matched": seen.matched,
        "excluded": _named(seen.excluded, EXCLUSION_WORDS),
        "audience": seen.audience,
        "states": _named(seen.states, STATE_WORDS),
        "settled": seen.settled_count,
        "attempts": seen.attempts,
        "average_per_minute": seen.rate_per_minute,
        "holds": _holds(campaign),
        "now": now.timestamp(),
        "providers": detail.providers if detail else [],
        "sources": detail.sources if detail else [],
        "waits": detail.waits if detail else [],
        "detail_age": round(time.time() - detail.counted_at) if detail else 0,
        "refusals": refusals(mailing.pk, mailing.day) if mailing else [],
    }


def seen_in_list(campaign: Campaign, account: Account | None) -> Progress:
    """The campaign's progress where the accounts of many were fetched at once."""
    seen = Progress(campaign.pk, campaign.name, campaign.state, campaign.mailing_id)
    if account is None:
        return seen
    return replace(
        seen,
        matched=account.matched,
        excluded=account.excluded,
        audience=account.audience,
        states=account.states,
        attempts=account.attempts,
        expanded=account.is_expanded,
        settled=account.is_settled,
    )


def headline(campaign: Campaign, states: Any, *, audience: int) -> str:
    """The state, said honestly: finished is not the same as delivered."""
    if campaign.state == State.FINISHED:
        missed = audience - states["delivered"]
        return f"finished, {missed:,} not delivered" if missed else "finished, all delivered"
    if campaign.state == State.CANCELLED:
        return f"cancelled, {states['delivered']:,} had been delivered"
    return campaign.state


def events_for(campaign: Campaign) -> tuple[Event, ...]:
    """What a person can do to the campaign in its state; finishing it is not theirs to do."""
    return tuple(one for one in lifecycle.events_from(campaign.state) if one is not Event.FINISH)


def refusals(mailing_id: int, day: date) -> list[dict[str, Any]]:
    """The latest attempts that were not accepted, with the replies as they came."""
    rows = _rows(
        """
        SELECT a.message_id, a.at, a.outcome, a.reason, a.reply_code, a.enhanced, a.reply,
               a.provider, a.mx_host, s.name AS source
        FROM mailer_attempt a LEFT JOIN deliverability_source s ON s.id = a.source_id
        WHERE a.mailing_day = %s AND a.mailing_id = %s AND a.outcome <> 'accepted'
        ORDER BY a.at DESC LIMIT %s
        """,
        [day, mailing_id, _REFUSALS],
    )
    return [{**row, "at": row["at"].timestamp()} for row in rows]


def _detail(mailing: Mailing) -> Detail:
    key = f"postroad.live.{mailing.pk}"
    known: Detail | None = cache.get(key)
    if known is not None:
        return known
    began = time.monotonic()
    found = _looked_up(mailing)
    cost = time.monotonic() - began
    cache.set(key, found, timeout=max(_MIN_SECONDS, cost * _COST_SHARE))
    return found


_ATTEMPTS_SQL = """
SELECT a.provider, a.source_id, s.name AS source, a.outcome, count(*) AS n
FROM mailer_attempt a LEFT JOIN deliverability_source s ON s.id = a.source_id
WHERE a.mailing_day = %s AND a.mailing_id = %s
GROUP BY a.provider, a.source_id, s.name, a.outcome
"""

_BATCHES_SQL = """
SELECT provider, max(waits_for) AS waits_for, min(due_at) AS due_at,
       sum(cardinality(ids))::bigint AS n, bool_or(state = 'taken') AS is_moving
FROM mailer_batch WHERE mailing_id = %s AND state <> 'done' GROUP BY provider
"""

_DEFERRED_SQL = """
SELECT coalesce(r.provider, '') AS provider, w.reason AS waits_for, min(w.due_at) AS due_at,
       count(*) AS n, false AS is_moving
FROM mailer_message w LEFT JOIN mailer_route r ON r.domain = w.recipient_domain
WHERE w.mailing_day = %s AND w.mailing_id = %s AND w.due_at IS NOT NULL
GROUP BY 1, 2
"""


def _looked_up(mailing: Mailing) -> Detail:
    attempts = _rows(_ATTEMPTS_SQL, [mailing.day, mailing.pk])
    waits = _rows(_BATCHES_SQL, [mailing.pk]) + _rows(_DEFERRED_SQL, [mailing.day, mailing.pk])
    return Detail(
        providers=_by(attempts, "provider", waits),
        sources=_by(attempts, "source", []),
        waits=sorted((_wait(row) for row in waits), key=lambda row: -row["count"])[:20],
        counted_at=time.time(),
    )


def _wait(row: dict[str, Any]) -> dict[str, Any]:
    if row["due_at"] is None:
        why = row["waits_for"] or ("being sent" if row["is_moving"] else "its turn")
    else:
        why = (
            f"another try ({row['waits_for'].replace('_', ' ')})"
            if row["waits_for"]
            else "another try"
        )
    return {
        "provider": row["provider"] or "not looked up yet",
        "why": why,
        "due": row["due_at"].timestamp() if row["due_at"] else None,
        "count": row["n"],
    }


def _by(
    attempts: Iterable[dict[str, Any]], key: str, waits: Iterable[dict[str, Any]]
) -> list[dict[str, Any]]:
    """One row for each provider or source: accepted, tried again, refused, waiting."""
    found: dict[str, dict[str, Any]] = {}

    def row(name: str | None) -> dict[str, Any]:
        blank = {"accepted": 0, "later": 0, "refused": 0, "in_doubt": 0, "waiting": 0}
        return found.setdefault(name or "unknown", {"name": name or "unknown", **blank})

    columns = {"accepted": "accepted", "rejected": "refused", "in_doubt": "in_doubt"}
    for one in attempts:
        row(one[key])[columns.get(one["outcome"], "later")] += one["n"]
    for one in waits:
        row(one["provider"] or "not looked up yet")["waiting"] += one["n"]
    return sorted(found.values(), key=lambda one: -(one["accepted"] + one["waiting"]))


def _holds(campaign: Campaign) -> list[str]:
    """Why nothing leaves although the campaign is being sent."""
    if campaign.state != State.SENDING:
        return []
    rows = Hold.objects.filter(released_at__isnull=True).values_list("workspace_id", "reason")
    return [reason for workspace, reason in rows if workspace in (None, campaign.workspace_id)]


def _named(counts: Any, words: dict[str, str]) -> list[dict[str, Any]]:
    """In the order of `words`; what is not known by words comes last."""
    keys = [key for key in words if key in counts] + [key for key in counts if key not in words]
    return [
        {"key": key, "name": words.get(key, key.replace("_", " ")), "count": counts[key]}
        for key in keys
    ]


def _rows(sql: str, params: list[object]) -> list[dict[str, Any]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
