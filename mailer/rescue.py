"""Rescue: what a dead worker had taken is settled from its journal, and the rest is freed.

Only proof of death counts: the lock of the worker's journal, which the kernel frees when the
process ends, however it ends. A frozen worker keeps its lock and is left alone for as long as
it is frozen. Every worker process looks, every few seconds, at the journals of its own host.

What it can get wrong: a message whose intent stands in the journal without a reply becomes in
doubt, although its content may never have left the machine. A host whose disk is lost has no
journals to replay: `declare_lost` then puts into doubt whatever its batches had not recorded.
"""

from __future__ import annotations

import contextlib
import logging
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson
from django.db import connection, transaction
from django.db.models import F, Q
from django.db.models.functions import Now

from deliverability import gate
from deliverability.core.outcome import OutcomeKind, Phase, Reply
from mailer import conf, dispatch, outcomes, rendering
from mailer.core.journal import BatchTrace
from mailer.core.retry import policy_from
from mailer.core.settlement import Standing
from mailer.journal import Claim as JournalClaim
from mailer.journal import Missing, claim_dead, journal_ids
from mailer.models import Batch, WorkerJournal
from mailer.outcomes import Claim, ClaimLost, Rest, Seen, Waiting

logger = logging.getLogger(__name__)

#: A worker can die without any fault of its batch: one death says nothing.
DEATHS_BEFORE_HALVING = 3
DEATHS_OF_ONE_MESSAGE = 8

_POISON = Reply(0, "", "every worker that took this message died with it", Phase.ROUTE)
_LOST_REPLY = Reply(0, "", "the worker died before the reply was read", Phase.CONTENT)
_LOST_HOST = Reply(0, "", "the host was lost together with its journals", Phase.CONTENT)


@dataclass(frozen=True, slots=True)
class Rescued:
    """What one rescue did."""

    journals: int = 0
    batches: int = 0

    def __add__(self, other: Rescued) -> Rescued:
        return Rescued(self.journals + other.journals, self.batches + other.batches)


def rescue_host() -> Rescued:
    """Rescue every dead worker of this host. Two rescuers exclude each other per journal."""
    place, total = conf.place(), Rescued()
    for journal_id in journal_ids(place.journals):
        claim = claim_dead(place.journals, journal_id)
        if claim is None:
            continue
        with claim:
            try:
                total += _rescue(claim)
            except Exception:
                # One that cannot be settled must not keep the others: it is tried again.
                logger.exception("mailer.rescue.failed journal=%s", journal_id)
    return total + Rescued(0, free_orphans())


def free_orphans() -> int:
    """Free batches whose taking was committed only after their worker had been rescued.

    Such a worker died before it learned that the batch was its own: it sent nothing of it.
    """
    ended = WorkerJournal.objects.filter(ended_at__isnull=False).values("pk")
    freed = 0
    for batch in Batch.objects.filter(state="taken", journal_id__in=ended):
        with contextlib.suppress(ClaimLost):  # another rescuer was quicker
            _record(batch, {})
            freed += 1
    return freed


def declare_lost(host: str) -> Rescued:
    """An operator's word that a host will never come back: nothing of it can still be sending.

    Its batches end; every message in them that was not recorded becomes in doubt.
    """
    total = Rescued()
    for journal in WorkerJournal.objects.filter(host=host, ended_at__isnull=True):
        batches = _taken_by(journal.pk)
        for batch in batches:
            _settle_lost(batch)
        _end(journal.pk)
        total += Rescued(1, len(batches))
    return total


def _rescue(journal: JournalClaim) -> Rescued:
    journal_id = uuid.UUID(journal.journal_id)
    traces, batches = journal.read(), _taken_by(journal_id)
    if isinstance(traces, Missing) and batches:
        logger.error("mailer.rescue.journal_damaged journal=%s %s", journal_id, traces.why)
        return Rescued()
    if isinstance(traces, Missing):
        traces = {}  # its worker died before its first note, or had recorded everything
    for batch in batches:
        _replay(batch, traces.get(batch.pk, BatchTrace()))
    _end(journal_id)
    journal.discard()
    logger.info("mailer.worker.rescued journal=%s batches=%s", journal_id, len(batches))
    return Rescued(1, len(batches))


def _replay(batch: Batch, trace: BatchTrace) -> None:
    """Record what the journal knows; what it does not know of was never sent, and is freed."""
    seen = {
        message_id: Seen.from_record(settled.attempt_no, settled.result)
        for message_id, settled in trace.settled.items()
    }
    for message_id, attempt_no in trace.unanswered.items():
        seen[message_id] = Seen(
            attempt_no, _now(), OutcomeKind.IN_DOUBT, _LOST_REPLY, "", batch.source_id or 0
        )
    _record(batch, seen)


def _settle_lost(batch: Batch) -> None:
    rows = rendering.load(batch.mailing_day, batch.ids)
    doubted = {
        row.id: Seen(
            row.attempts + 1, _now(), OutcomeKind.IN_DOUBT, _LOST_HOST, "", batch.source_id or 0
        )
        for row in rows
    }
    _record(batch, doubted)


def _record(batch: Batch, seen: dict[int, Seen]) -> None:
    claim = _claim(batch)
    with transaction.atomic():
        rows = rendering.load(batch.mailing_day, batch.ids)
        messages = {
            row.id: Waiting(
                Standing(row.id, row.attempts, row.failures, row.queued_at), row.address
            )
            for row in rows
        }
        # Attempts that were recorded before the worker died are behind us.
        news = {
            message_id: one
            for message_id, one in seen.items()
            if message_id in messages
            and messages[message_id].standing.attempts == one.attempt_no - 1
        }
        left = [row for row in rows if row.id not in news]
        if len(left) == 1 and batch.rescued + 1 >= DEATHS_OF_ONE_MESSAGE:
            poison = left.pop()
            news[poison.id] = Seen(
                poison.attempts + 1, _now(), OutcomeKind.BROKEN, _POISON, "", batch.source_id or 0
            )
        rest = Rest([row.id for row in left], None, "")
        outcomes.record(claim, messages, news, {}, rest, now=_now())
        _suspect(batch, len(left))


def _suspect(batch: Batch, size: int) -> None:
    """Remember that a worker died with this batch; after some deaths halve it, so that a message
    that kills its worker is soon alone."""
    freed = Batch.objects.filter(pk=batch.pk, state="untaken")
    freed.update(rescued=F("rescued") + 1)
    if batch.rescued + 1 >= DEATHS_BEFORE_HALVING and size > 1:
        rest_id = dispatch.cut(batch.pk, size // 2)
        Batch.objects.filter(pk=rest_id).update(rescued=batch.rescued + 1)


def _claim(batch: Batch) -> Claim:
    assert batch.journal_id is not None
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT workspace_id, retry FROM mailer_mailing WHERE id = %s", [batch.mailing_id]
        )
        workspace_id, retry = cursor.fetchone()
    return Claim(
        batch.pk,
        batch.journal_id,
        batch.mailing_day,
        batch.mailing_id,
        workspace_id,
        batch.provider,
        policy_from(orjson.loads(retry)),
    )


def _taken_by(journal_id: uuid.UUID) -> list[Batch]:
    return list(Batch.objects.filter(Q(state="taken"), journal_id=journal_id).order_by("id"))


def _end(journal_id: uuid.UUID) -> None:
    gate.release_worker(journal_id)
    WorkerJournal.objects.filter(pk=journal_id).update(ended_at=Now())


def _now() -> datetime:
    return datetime.now(UTC)
