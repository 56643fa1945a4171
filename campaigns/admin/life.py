"""What was sent to one person, over all mailings: found by index, never by a search through mail.

A campaign's message is unique by (day, mailing, recipient): one probe for each of the latest
mailings of the workspace.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import connection

from campaigns.models import Recipient
from deliverability.models import Suppression

LATEST_MAILINGS = 300

_SQL = """
SELECT w.id, w.state, w.reason, w.attempts, w.queued_at, w.settled_at, w.due_at, w.mailing_day,
       g.id AS mailing_id, g.name AS mailing
FROM unnest(%(recipients)s::text[]) AS r(key)
CROSS JOIN LATERAL (
    SELECT id, day, name FROM mailer_mailing
    WHERE (%(workspaces)s::bigint[] IS NULL OR workspace_id = ANY(%(workspaces)s))
    ORDER BY id DESC LIMIT %(latest)s) g
CROSS JOIN LATERAL (
    SELECT * FROM mailer_message m
    WHERE m.mailing_day = g.day AND m.mailing_id = g.id AND m.dedup_key = r.key LIMIT 1) w
ORDER BY w.queued_at DESC LIMIT %(limit)s
"""


def messages_to(recipient: Recipient, limit: int = 20) -> list[dict[str, Any]]:
    return found([recipient.pk], [recipient.workspace_id], limit)


def found(
    recipient_ids: Sequence[int], workspace_ids: Sequence[int] | None, limit: int
) -> list[dict[str, Any]]:
    """Messages to these recipients in the latest mailings of the workspaces (None: of all)."""
    with connection.cursor() as cursor:
        cursor.execute(
            _SQL,
            {
                "recipients": [str(one) for one in recipient_ids],
                "workspaces": None if workspace_ids is None else list(workspace_ids),
                "latest": LATEST_MAILINGS,
                "limit": limit,
            },
        )
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def suppressions_of(recipient: Recipient) -> list[Suppression]:
    rows = Suppression.objects.filter(
        workspace_id=recipient.workspace_id, address_key=recipient.address_key
    )
    return list(rows.order_by("-pk")[:20])
