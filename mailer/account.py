"""The account of a mailing: how many messages are in which state, and the conservation law.

For every mailing, always: audience = the sum of all states, and matched = audience + each
exclusion. Changes are appended as deltas in the outcome's own transaction and folded later;
`recount` compares the account with the rows themselves, in one snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson
from django.db import connection, transaction

from mailer.core.lifecycle import MessageState

STATES = tuple(state.value for state in MessageState)
ATTEMPTS = "attempts"


@dataclass(frozen=True, slots=True)
class Account:
    mailing_id: int
    matched: int
    excluded: dict[str, int]
    states: dict[str, int]  #: every state, also those at 0
    attempts: int
    is_expanded: bool

    @property
    def audience(self) -> int:
        return sum(self.states.values())

    @property
    def is_settled(self) -> bool:
        """Nothing waits any more. What is in doubt is settled by evidence or by a person."""
        return self.is_expanded and self.states["waiting"] == 0

    @property
    def is_finished(self) -> bool:
        return self.is_settled and self.states["in_doubt"] == 0

    @property
    def undelivered(self) -> int:
        return self.audience - self.states["delivered"]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "audience": self.audience, "settled": self.is_settled}


@dataclass(frozen=True, slots=True)
class Recount:
    """What the rows say against what the account says."""

    account: Account
    rows: dict[str, int]
    attempt_rows: int
    broken: list[str] = field(default_factory=list)  #: each violation, in words

    @property
    def holds(self) -> bool:
        return not self.broken


_ENTRIES_SQL = """
    SELECT mailing_id, entry, sum(n)::bigint FROM (
        SELECT mailing_id, entry, count AS n FROM mailer_mailingcount
            WHERE mailing_id = ANY(%(ids)s)
        UNION ALL
        SELECT mailing_id, entry, delta FROM mailer_mailingdelta WHERE mailing_id = ANY(%(ids)s)
    ) e GROUP BY mailing_id, entry
"""


def accounts_of(mailing_ids: Iterable[int]) -> dict[int, Account]:
    """Accounts of many mailings with two queries; an unknown id is left out."""
    ids = list(mailing_ids)
    with connection.cursor() as cursor:
        cursor.execute(_ENTRIES_SQL, {"ids": ids})
        entries: dict[int, dict[str, int]] = {}
        for mailing_id, entry, total in cursor.fetchall():
            entries.setdefault(mailing_id, {})[entry] = total
        cursor.execute(
            """
            SELECT m.id, coalesce(e.matched, 0), coalesce(e.excluded, '{}'), coalesce(e.done, true)
            FROM mailer_mailing m LEFT JOIN mailer_expansion e ON e.mailing_id = m.id
            WHERE m.id = ANY(%s)
            """,
            [ids],
        )
        return {
            row[0]: _account(row[0], entries.get(row[0], {}), row[1], orjson.loads(row[2]), row[3])
            for row in cursor.fetchall()
        }


def account_of(mailing_id: int) -> Account:
    """The account of one mailing. Raises `KeyError` when there is no such mailing."""
    return accounts_of([mailing_id])[mailing_id]


def note(mailing_id: int, deltas: Mapping[str, int]) -> None:
    """Append changes; call it in the transaction that makes them."""
    rows = [(mailing_id, entry, delta) for entry, delta in deltas.items() if delta]
    if not rows:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO mailer_mailingdelta (mailing_id, entry, delta)
            SELECT * FROM unnest(%s::bigint[], %s::text[], %s::bigint[])
            """,
            [list(column) for column in zip(*rows, strict=True)],
        )


def fold(limit: int = 20_000) -> int:
    """Fold deltas into counts, in one statement, so that every reader sees one truth."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH gone AS (
                DELETE FROM mailer_mailingdelta WHERE id IN (
                    SELECT id FROM mailer_mailingdelta ORDER BY id LIMIT %s
                    FOR UPDATE SKIP LOCKED)
                RETURNING mailing_id, entry, delta),
            folded AS (
                INSERT INTO mailer_mailingcount AS c (mailing_id, entry, count)
                SELECT mailing_id, entry, sum(delta) FROM gone GROUP BY mailing_id, entry
                ON CONFLICT (mailing_id, entry) DO UPDATE SET count = c.count + excluded.count)
            SELECT count(*) FROM gone
            """,
            [limit],
        )
        return int(cursor.fetchone()[0])


def recount(mailing_id: int) -> Recount:
    """Check the conservation law of one mailing against its rows, in one snapshot."""
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.connection is not None and not connection.savepoint_ids:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        account = account_of(mailing_id)
        cursor.execute("SELECT day FROM mailer_mailing WHERE id = %s", [mailing_id])
        day = cursor.fetchone()[0]
        cursor.execute(
            "SELECT state, count(*), sum(attempts) FROM mailer_message"
            " WHERE mailing_day = %s AND mailing_id = %s GROUP BY state",
            [day, mailing_id],
        )
        found = cursor.fetchall()
    rows = dict.fromkeys(STATES, 0) | {state: count for state, count, _ in found}
    attempts = sum(row[2] for row in found)
    return Recount(account, rows, attempts, list(_violations(account, rows, attempts)))


def _violations(account: Account, rows: dict[str, int], attempts: int) -> Iterable[str]:
    for state in STATES:
        if account.states[state] != rows[state]:
            yield f"{state}: the account says {account.states[state]}, the rows {rows[state]}"
    if account.attempts != attempts:
        yield f"attempts: the account says {account.attempts}, the rows {attempts}"
    explained = account.audience + sum(account.excluded.values())
    if account.matched and account.matched != explained:
        yield f"matched {account.matched}, but audience and exclusions make {explained}"


def _account(
    mailing_id: int, entries: dict[str, int], matched: int, excluded: dict[str, int], done: bool
) -> Account:
    states = {state: entries.get(state, 0) for state in STATES}
    return Account(mailing_id, matched, excluded, states, entries.get(ATTEMPTS, 0), done)
