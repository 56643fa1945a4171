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
    """Write the suppression down; False when it stood already. The first reason is kept."""
    _, is_new = Suppression.objects.get_or_create(
        workspace_id=workspace_id,
        address_key=address_key,
        scope=scope,
        defaults={"reason": reason, "detail": detail[:1000], "until": until},
    )
    return is_new


def suppress_many(workspace_id: int, rows: Iterable[tuple[str, str, str]]) -> None:
    """Suppress for the whole workspace: (address_key, reason, detail) each."""
    rows = list(rows)
    if not rows:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO deliverability_suppression
                (workspace_id, address_key, scope, reason, detail)
            SELECT %s, key, %s, reason, detail
            FROM unnest(%s::text[], %s::text[], %s::text[]) AS r(key, reason, detail)
            ON CONFLICT (workspace_id, address_key, scope) DO NOTHING
            """,
            [
                workspace_id,
                EVERYTHING,
                [key for key, _, _ in rows],
                [reason for _, reason, _ in rows],
                [detail[:1000] for _, _, detail in rows],
            ],
        )


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
