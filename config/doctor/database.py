"""PostgreSQL: does it answer, is it ours, does it keep what it was told?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from django.conf import settings
from django.db import connection, transaction
from django.db.migrations.executor import MigrationExecutor

from config.doctor.finding import Check, Finding, Needs, error, ok, warning
from mailer import partitions

OLDEST_VERSION = 15
CONNECT_SECONDS = 3
STATEMENT_MS = 8_000
SKEW_WARNING, SKEW_ERROR = timedelta(seconds=2), timedelta(seconds=30)
FULL_RATIO = 0.8

#: Attributes of Django's connection parameters that are not PostgreSQL's.
_OURS = {"pool", "cursor_factory", "context", "prepare_threshold", "connect_timeout"}


@contextmanager
def asking() -> Iterator[Any]:
    """A cursor whose statements may not take long."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL statement_timeout = {STATEMENT_MS}")
        yield cursor


def one_value(sql: str, *parameters: object) -> Any:
    with asking() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchone()[0]


def _reachable() -> Iterator[Finding]:
    """Connect apart from the pool, which would try again and again."""
    given = connection.get_connection_params()
    wanted = {key: value for key, value in given.items() if key not in _OURS}
    where = f"{given.get('host') or 'the local socket'}:{given.get('port') or 5432}"
    try:
        with psycopg.connect(**wanted, connect_timeout=CONNECT_SECONDS) as fresh:
            version = fresh.info.server_version
    except psycopg.OperationalError as problem:
        told = " ".join(str(problem).split())
        advice = (
            "Start PostgreSQL, or correct DATABASE_URL. Until then nothing is accepted and "
            "outcomes wait in the journals; sending resumes by itself."
        )
        yield error("database", f"{where} does not answer: {told}", advice)
        return
    readable = f"PostgreSQL {version // 10_000}.{version % 10_000} at {where}"
    if version < OLDEST_VERSION * 10_000:
        yield error("database", readable, f"Postroad needs PostgreSQL {OLDEST_VERSION} or newer.")
    else:
        yield ok("database", f"{readable}, database {given.get('dbname')}")


def _migrations() -> Iterator[Finding]:
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if not plan:
        count = len(executor.loader.applied_migrations)
        yield ok("migrations", f"all {count} applied")
        return
    names = ", ".join(f"{migration.app_label}.{migration.name}" for migration, _ in plan[:5])
    yield error("migrations", f"{len(plan)} not applied: {names}", "Run `manage.py migrate`.")


def _durability() -> Iterator[Finding]:
    names = ("fsync", "synchronous_commit", "full_page_writes")
    with asking() as cursor:
        cursor.execute("SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", [list(names)])
        found = dict(cursor.fetchall())
    told = ", ".join(f"{name} {found[name]}" for name in names)
    off = [name for name in names if found[name] == "off"]
    if not off:
        yield ok("durability", told)
        return
    advice = (
        f"Switch {' and '.join(off)} on: after a crash the database would have forgotten what "
        "was sent, and it would be sent again."
    )
    # What a crash can repeat in a sandbox reaches nobody.
    yield (warning if settings.POSTROAD_SANDBOX else error)("durability", told, advice)


def _partitions() -> Iterator[Finding]:
    today = datetime.now(UTC).date()
    days = [today + timedelta(days=offset) for offset in range(partitions.DAYS_AHEAD + 1)]
    wanted = {
        partitions.name_of(parent, day): day
        for parent in ("mailer_message", "mailer_attempt")
        for day in days
    }
    with asking() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_class JOIN pg_inherits ON inhrelid = oid"
            " WHERE relname = ANY(%s)",
            [list(wanted)],
        )
        there = {row[0] for row in cursor.fetchall()}
    missing = sorted(wanted.keys() - there)
    if not missing:
        yield ok("partitions", f"messages and attempts until {days[-1]}")
        return
    advice = (
        "Worker “upkeep” and beat make them every 30 seconds (task mailer.clean): see that both "
        "run. Until then the first message of a day makes its own, which takes a lock."
    )
    shown = ", ".join(missing[:4]) + (" …" if len(missing) > 4 else "")
    yield warning("partitions", f"missing: {shown}", advice)


def _connections() -> Iterator[Finding]:
    with asking() as cursor:
        cursor.execute(
            "SELECT count(*), current_setting('max_connections')::int FROM pg_stat_activity"
            " WHERE backend_type = 'client backend'"
        )
        used, most = cursor.fetchone()
    told = f"{used} of {most} connections"
    if used < most * FULL_RATIO:
        yield ok("connections", told)
        return
    advice = "Raise max_connections, or lower DATABASE_POOL_SIZE: it counts for each process."
    yield warning("connections", told, advice)


def _clock() -> Iterator[Finding]:
    before = datetime.now(UTC)
    theirs: datetime = one_value("SELECT clock_timestamp()")
    after = datetime.now(UTC)
    # The answer was made between both; only what lies outside of them is skew.
    skew = max(before - theirs, theirs - after, timedelta(0))
    told = f"{skew.total_seconds():.1f} s apart from PostgreSQL's"
    advice = "Run NTP on both machines: due times and rates are compared across them."
    if skew >= SKEW_ERROR:
        yield error("clock", told, advice)
    elif skew >= SKEW_WARNING:
        yield warning("clock", told, advice)
    else:
        yield ok("clock", told)


CHECKS = (
    Check("database", _reachable, Needs.DATABASE, is_root=True),
    Check("migrations", _migrations, Needs.DATABASE),
    Check("durability", _durability, Needs.DATABASE),
    Check("partitions", _partitions, Needs.DATABASE),
    Check("connections", _connections, Needs.DATABASE),
    Check("clock", _clock, Needs.DATABASE),
)
