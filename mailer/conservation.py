"""The conservation law, checked gently: mailings that changed lately, and any that is asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from django.db import connection

from mailer import account
from mailer.account import Recount

logger = logging.getLogger(__name__)


def changed_lately(limit: int = 20) -> list[int]:
    """Mailings with messages settled or made in the last minutes, the busiest first."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT m.id FROM mailer_mailing m
            WHERE m.state IN ('expanding', 'running', 'paused')
               OR m.finished_at > statement_timestamp() - interval '5 minutes'
            ORDER BY m.id DESC LIMIT %s
            """,
            [limit],
        )
        return [row[0] for row in cursor.fetchall()]


def check(mailing_ids: Iterable[int]) -> list[Recount]:
    """Recount mailings, one snapshot each."""
    return [account.recount(mailing_id) for mailing_id in mailing_ids]


def check_recent() -> list[Recount]:
    """Recount what changed lately; log each law that does not hold."""
    recounts = check(changed_lately())
    for one in recounts:
        for broken in one.broken:
            logger.error("mailer.conservation.broken mailing=%s %s", one.account.mailing_id, broken)
    return recounts
