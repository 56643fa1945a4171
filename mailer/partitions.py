"""Partitions of single days for messages and attempts, made before they are needed.

A partition is made on the side and then attached, which asks for a weaker lock on the parent
(SHARE UPDATE EXCLUSIVE) than CREATE … PARTITION OF: sending goes on meanwhile.
"""

from __future__ import annotations

from datetime import date, timedelta

from django.db import connection, transaction

#: Rows are written when made and once per outcome: room for one update in place per row, and
#: vacuum soon after a batch of outcomes rather than after a fifth of a huge table.
_STORAGE = {
    "mailer_message": "fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, "
    "autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_analyze_scale_factor = 0.05",
    "mailer_attempt": "autovacuum_vacuum_insert_scale_factor = 0.2",
}

DAYS_AHEAD = 7

#: Days whose partitions this process has seen committed: a partition that messages may still
#: enter is never dropped.
_seen: set[date] = set()


def ensure(day: date) -> None:
    """Make the partitions of `day` if they are missing. Safe to run in parallel."""
    if day in _seen:
        return
    for parent in _STORAGE:
        if not _exists(parent, day):
            _make(parent, day)
    if not connection.in_atomic_block:  # else they may be rolled back
        _seen.add(day)


def ensure_ahead(today: date) -> None:
    for offset in range(DAYS_AHEAD + 1):
        ensure(today + timedelta(days=offset))


def name_of(parent: str, day: date) -> str:
    return f"{parent}_{day:%Y%m%d}"


def _exists(parent: str, day: date) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT EXISTS (SELECT 1 FROM pg_inherits
                           WHERE inhparent = %s::regclass AND inhrelid = to_regclass(%s))
            """,
            [parent, name_of(parent, day)],
        )
        return bool(cursor.fetchone()[0])


def _make(parent: str, day: date) -> None:
    name, next_day = name_of(parent, day), day + timedelta(days=1)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [name])
        if _exists(parent, day):
            return
        cursor.execute(
            f"CREATE TABLE {name} (LIKE {parent} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"
        )
        cursor.execute(f"ALTER TABLE {name} SET ({_STORAGE[parent]})")
        cursor.execute(
            f"ALTER TABLE {parent} ATTACH PARTITION {name} FOR VALUES FROM (%s) TO (%s)",
            [day.isoformat(), next_day.isoformat()],
        )
