"""The door to who we will not send to. Every scope but "workspace" names a list or a topic."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from django.db import connection
from django.db.models import Q

from deliverability.models import EVERYTHING, Suppression


def suppress(
    workspace_id: int,
    address_key: str,
    *,
    scope: str = EVERYTHING,
    reason: str,
    detail: str = "",
    until: datetime | None = None,
) -> bool:
    """Write the suppression down; False when one that lasts as long stood already.

    The first reason is kept, unless what stands ends earlier.
    """
    return _write(workspace_id, scope, {address_key: (reason, detail)}, until) > 0


def suppress_many(workspace_id: int, rows: Iterable[tuple[str, str, str]]) -> None:
    """Suppress for the whole workspace and for good: (address_key, reason, detail) each."""
    by_key: dict[str, tuple[str, str]] = {}
    for key, reason, detail in rows:
        by_key.setdefault(key, (reason, detail))
    if by_key:
        _write(workspace_id, EVERYTHING, by_key, None)


def _write(
    workspace_id: int, scope: str, by_key: dict[str, tuple[str, str]], until: datetime | None
) -> int:
    # In one order for all writers: two that meet each other's rows would else wait for ever.
    keys = sorted(by_key)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO deliverability_suppression AS s
                (workspace_id, address_key, scope, reason, detail, until)
            SELECT %s, key, %s, reason, detail, %s
            FROM unnest(%s::text[], %s::text[], %s::text[]) AS r(key, reason, detail)
            ON CONFLICT (workspace_id, address_key, scope) DO UPDATE
                SET reason = excluded.reason, detail = excluded.detail, until = excluded.until
                WHERE s.until < coalesce(excluded.until, 'infinity')
            """,
            [
                workspace_id,
                scope,
                until,
                keys,
                [by_key[key][0] for key in keys],
                [by_key[key][1][:1000] for key in keys],
            ],
        )
        return int(cursor.rowcount)


def suppressed_among(
    workspace_id: int, address_keys: Iterable[str], scope: str, *, now: datetime
) -> dict[str, str]:
    """Which of the addresses are suppressed for everything or for `scope`, with the reason."""
    rows = Suppression.objects.filter(
        Q(until__isnull=True) | Q(until__gt=now),
        workspace_id=workspace_id,
        scope__in={EVERYTHING, scope},
        address_key__in=list(address_keys),
    )
    return dict(rows.values_list("address_key", "reason"))


#: SQL that tells whether `page.address_key` is suppressed; for expansion, which runs in SQL.
#: Parameters: workspace_id, unsubscribe_scope.
IS_SUPPRESSED_SQL = """
    EXISTS (
        SELECT 1 FROM deliverability_suppression s
        WHERE s.workspace_id = %(workspace_id)s AND s.address_key = page.address_key
          AND s.scope IN ('workspace', %(unsubscribe_scope)s)
          AND (s.until IS NULL OR s.until > statement_timestamp())
    )
"""
