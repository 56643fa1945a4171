"""Recording what came of a batch: messages, attempts, account, ledger and the batch itself.

One transaction with a handful of statements, however many messages. Every move is
compare-and-set (the message still waits, and after exactly the attempt before this one), so
that recording the same outcomes twice, from memory and from a journal, counts once.
"""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from django.db import connection, transaction

from deliverability import ledger
from deliverability.core.outcome import Action, OutcomeKind, Phase, Reply, Verdict
from deliverability.rules import classify
from mailer import account
from mailer.core.journal import SettledRecord
from mailer.core.lifecycle import MessageEvent, MessageState
from mailer.core.retry import RetryPolicy
from mailer.core.settlement import (
    NOT_RENDERED,
    REPLY_LOST,
    Move,
    Standing,
    after_attempt,
    without_attempt,
)
from mailer.models import Batch, Mailing


class ClaimLost(Exception):
    """The batch is not ours any more: an operator declared this worker lost. Nothing is recorded
    here; the journal keeps the evidence."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message of a batch, as it was loaded."""

    standing: Standing
    address: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What an attempt met. `kind` says how far it came; the reply says the rest."""

    attempt_no: int
    at: datetime
    kind: OutcomeKind  #: ACCEPTED stands for "a reply came"; UNREACHED, IN_DOUBT, BROKEN
    reply: Reply
    host: str
    source_id: int

    def to_record(self) -> SettledRecord:
        return SettledRecord(
            at=self.at.timestamp(),
            kind=self.kind.value,
            code=self.reply.code,
            enhanced=self.reply.enhanced,
            text=self.reply.text,
            phase=self.reply.phase.value,
            host=self.host,
            source_id=self.source_id,
        )

    @classmethod
    def from_record(cls, attempt_no: int, record: SettledRecord) -> Seen:
        reply = Reply(record.code, record.enhanced, record.text, Phase(record.phase))
        return cls(
            attempt_no,
            datetime.fromtimestamp(record.at, UTC),
            OutcomeKind(record.kind),
            reply,
            record.host,
            record.source_id or 0,
        )


@dataclass(frozen=True, slots=True)
class Claim:
    """A taken batch, with what recording needs of its mailing."""

    batch_id: int
    journal_id: uuid.UUID
    mailing_day: object
    mailing_id: int
    workspace_id: int
    provider: str
    policy: RetryPolicy


@dataclass(frozen=True, slots=True)
class Rest:
    """Messages of the batch that no attempt was made for, and when they may be tried."""

    ids: Sequence[int] = ()
    due_at: datetime | None = None
    waits_for: str = ""


@dataclass(frozen=True, slots=True)
class _Row:
    move: Move
    seen: Seen | None
    verdict: Verdict | None
    address: str


def verdict_of(seen: Seen, provider: str) -> Verdict:
    """What an attempt means. Silence is not refusal: unreached is always tried again."""
    if seen.kind is OutcomeKind.IN_DOUBT:
        return REPLY_LOST
    if seen.kind is OutcomeKind.BROKEN:
        return NOT_RENDERED
    verdict = classify(seen.reply, provider)
    if seen.kind is OutcomeKind.UNREACHED:
        # Whoever was not asked about a recipient has said nothing about one.
        is_about_us = verdict.action is not Action.SUPPRESS
        is_throttled = verdict.kind is OutcomeKind.THROTTLED
        return replace(
            verdict,
            kind=OutcomeKind.THROTTLED if is_throttled else OutcomeKind.UNREACHED,
            action=verdict.action if is_about_us else Action.NONE,
        )
    return verdict


def record(
    claim: Claim,
    messages: dict[int, Waiting],
    seen: dict[int, Seen],
    aside: dict[int, tuple[MessageEvent, str]],
    rest: Rest,
    *,
    still_out: Sequence[int] = (),
    now: datetime,
) -> None:
    """Record outcomes (`seen`), moves without an attempt (`aside`), and give back the `rest`.

    `still_out`: messages whose reply is still awaited; the batch then stays taken, for them.
    Raises `ClaimLost` when the batch is not this journal's any more.
    """
    rows = [*_attempted(claim, messages, seen, now), *_set_aside(messages, aside)]
    with transaction.atomic():
        rest_ids = list(rest.ids)
        if rest_ids and _is_cancelled(claim.mailing_id):
            event = (MessageEvent.CANCELLED, "cancelled")
            rows += _set_aside(messages, dict.fromkeys(rest_ids, event))
            rest_ids = []
        _end_batch(claim, rest_ids, rest, still_out, [*seen, *aside, *rest.ids])
        moved = _move(claim, rows, now)
        done = [row for row in rows if row.move.message_id in moved]
        _append_attempts(claim, done)
        account.note(claim.mailing_id, _deltas(done))
        ledger.record(claim.workspace_id, _facts(claim, done))


def _attempted(
    claim: Claim, messages: dict[int, Waiting], seen: dict[int, Seen], now: datetime
) -> Iterable[_Row]:
    for message_id, one in seen.items():
        waiting = messages[message_id]
        verdict = verdict_of(one, claim.provider)
        decided = after_attempt(
            waiting.standing, verdict, claim.policy, now=max(now, one.at), draw=random.random()
        )
        yield _Row(decided, one, verdict, waiting.address)


def _set_aside(
    messages: dict[int, Waiting], aside: dict[int, tuple[MessageEvent, str]]
) -> list[_Row]:
    return [
        _Row(
            without_attempt(messages[message_id].standing, event, reason),
            None,
            None,
            messages[message_id].address,
        )
        for message_id, (event, reason) in aside.items()
    ]


def _is_cancelled(mailing_id: int) -> bool:
    return Mailing.objects.filter(pk=mailing_id, state="cancelled").exists()


def is_recorded(claim: Claim, seen: dict[int, Seen]) -> bool:
    """Whether `record` did commit these outcomes although its answer was lost. To be asked when
    a repetition finds the claim lost."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT EXISTS (
                SELECT FROM mailer_attempt a
                JOIN unnest(%s::bigint[], %s::timestamptz[]) AS s(id, at)
                    ON a.message_id = s.id AND a.at = s.at
                WHERE a.mailing_day = %s AND a.batch_id = %s AND a.journal_id = %s)
            """,
            [
                list(seen),
                [one.at for one in seen.values()],
                claim.mailing_day,
                claim.batch_id,
                claim.journal_id,
            ],
        )
        # Without outcomes there is nothing that could be lost.
        return not seen or bool(cursor.fetchone()[0])


def _end_batch(
    claim: Claim, rest_ids: list[int], rest: Rest, still_out: Sequence[int], ids: list[int]
) -> None:
    """Done; or untaken again with the rest; or still taken, for replies that are awaited.

    `ids` are no longer the batch's: where they are not in it any more, this was done before.
    """
    ours = Batch.objects.filter(pk=claim.batch_id, state="taken", journal_id=claim.journal_id)
    if still_out:
        changed = ours.filter(ids__contains=ids).update(ids=list(still_out))
        if rest_ids and changed:
            _lay_rest(claim.batch_id, rest_ids, rest)
    elif rest_ids:
        changed = ours.update(
            ids=rest_ids,
            state="untaken",
            due_at=rest.due_at,
            waits_for=rest.waits_for[:200],
            source_id=None,
            published_at=None,
            journal_id=None,
            host="",
            taken_at=None,
        )
    else:
        changed = ours.update(state="done")
    if not changed:
        raise ClaimLost(f"batch {claim.batch_id} is not taken by journal {claim.journal_id}")


def _lay_rest(batch_id: int, rest_ids: list[int], rest: Rest) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO mailer_batch (mailing_day, mailing_id, pool_id, provider, priority, ids,
                                      due_at, waits_for)
            SELECT mailing_day, mailing_id, pool_id, provider, priority, %s::bigint[], %s, %s
            FROM mailer_batch WHERE id = %s
            """,
            [rest_ids, rest.due_at, rest.waits_for[:200], batch_id],
        )


def _move(claim: Claim, rows: list[_Row], now: datetime) -> set[int]:
    """Move the messages, each by compare-and-set; returns those that really moved."""
    if not rows:
        return set()
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE mailer_message m
            SET state = o.state, due_at = o.due_at, attempts = o.attempts, failures = o.failures,
                reason = o.reason, settled_at = CASE WHEN o.state = 'waiting' THEN NULL
                                                     ELSE %s::timestamptz END
            FROM unnest(%s::bigint[], %s::text[], %s::timestamptz[], %s::smallint[],
                        %s::smallint[], %s::text[], %s::smallint[])
                AS o(id, state, due_at, attempts, failures, reason, attempts_before)
            WHERE m.mailing_day = %s AND m.id = o.id AND m.state = 'waiting'
              AND m.attempts = o.attempts_before
            RETURNING m.id
            """,
            [
                now,
                [row.move.message_id for row in rows],
                [row.move.state.value for row in rows],
                [row.move.due_at for row in rows],
                [row.move.attempts for row in rows],
                [row.move.failures for row in rows],
                [row.move.reason[:60] for row in rows],
                [row.move.attempts - (row.seen is not None) for row in rows],
                claim.mailing_day,
            ],
        )
        return {row[0] for row in cursor.fetchall()}


def _append_attempts(claim: Claim, rows: list[_Row]) -> None:
    tries = [(row.move, row.seen, row.verdict) for row in rows if row.seen and row.verdict]
    if not tries:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO mailer_attempt (mailing_day, mailing_id, batch_id, journal_id, provider,
                message_id, attempt_no, at, source_id, mx_host, outcome, phase, reply_code,
                enhanced, reply, reason, scope, rule)
            SELECT %s, %s, %s, %s, %s, t.*
            FROM unnest(%s::bigint[], %s::smallint[], %s::timestamptz[], %s::bigint[], %s::text[],
                        %s::text[], %s::text[], %s::smallint[], %s::text[], %s::text[],
                        %s::text[], %s::text[], %s::text[]) AS t
            ON CONFLICT (mailing_day, message_id, attempt_no) DO NOTHING
            """,
            [
                claim.mailing_day,
                claim.mailing_id,
                claim.batch_id,
                claim.journal_id,
                claim.provider,
                [move.message_id for move, _, _ in tries],
                [move.attempts for move, _, _ in tries],
                [seen.at for _, seen, _ in tries],
                [seen.source_id for _, seen, _ in tries],
                [_storable(seen.host, 255) for _, seen, _ in tries],
                [verdict.kind.value for _, _, verdict in tries],
                [seen.reply.phase.value for _, seen, _ in tries],
                [seen.reply.code for _, seen, _ in tries],
                [seen.reply.enhanced[:12] for _, seen, _ in tries],
                [_storable(seen.reply.text, 2000) for _, seen, _ in tries],
                [verdict.reason[:60] for _, _, verdict in tries],
                [verdict.scope.value for _, _, verdict in tries],
                [verdict.rule[:80] for _, _, verdict in tries],
            ],
        )


def _deltas(rows: list[_Row]) -> dict[str, int]:
    states = Counter(
        row.move.state.value for row in rows if row.move.state is not MessageState.WAITING
    )
    attempts = sum(1 for row in rows if row.seen)
    return {"waiting": -states.total(), account.ATTEMPTS: attempts, **states}


def _facts(claim: Claim, rows: list[_Row]) -> Iterable[ledger.Fact]:
    for row in rows:
        if row.seen is None or row.verdict is None or row.verdict.kind is OutcomeKind.BROKEN:
            continue  # no server said anything about any path
        yield ledger.Fact(
            at=row.seen.at,
            source_id=row.seen.source_id,
            provider=claim.provider,
            address_key=row.address.lower(),
            outcome=row.verdict.kind.value,
            reason=row.verdict.reason,
            scope=row.verdict.scope,
            action=row.verdict.action,
            detail=_storable(_told(row.seen.reply), 1000),
        )


def _told(reply: Reply) -> str:
    return " ".join(filter(None, [str(reply.code or ""), reply.enhanced, reply.text]))


def _storable(text: str, limit: int) -> str:
    """PostgreSQL's text takes no NUL, and UTF-8 no lone surrogate."""
    return text.replace("\0", "�").encode("utf-8", "replace").decode()[:limit]
