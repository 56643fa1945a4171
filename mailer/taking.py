"""Taking a batch: by compare-and-set, for this process's journal, with all that sending it needs.

Of any number of runs of a batch's task one takes it. A batch of a mailing that is paused or
held, that is not due, or that somebody else has taken, is left alone.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import orjson
from django.db import InterfaceError, OperationalError, connection, transaction

from deliverability import gate
from deliverability.models import Source
from mailer import rendering, runtime
from mailer.core.retry import policy_from
from mailer.core.settlement import Standing
from mailer.models import Batch
from mailer.outcomes import Claim, Waiting

RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Parcel:
    """A taken batch with all that is needed to send it."""

    claim: Claim
    priority: int
    path: gate.Path
    source: Source
    frame: rendering.Frame
    messages: dict[int, Waiting]
    rows: list[rendering.Row]


_TAKE_SQL = """
    UPDATE mailer_batch b
    SET state = 'taken', journal_id = %(journal)s, host = %(host)s, taken_at = statement_timestamp()
    FROM mailer_mailing m
    WHERE b.id = %(id)s AND b.state = 'untaken' AND b.source_id IS NOT NULL AND b.provider <> ''
      AND (b.due_at IS NULL OR b.due_at <= statement_timestamp())
      AND m.id = b.mailing_id AND m.state IN ('expanding', 'running')
      AND NOT EXISTS (SELECT 1 FROM deliverability_hold h WHERE h.released_at IS NULL
                      AND (h.workspace_id IS NULL OR h.workspace_id = m.workspace_id))
    RETURNING b.ids, b.mailing_day, b.mailing_id, b.provider, b.priority, b.source_id,
              m.workspace_id, m.content_id, m.retry, m.unsubscribe_scope
"""


#: Batches that a thread of this process is taking or working on.
_working: set[int] = set()
_working_lock = threading.Lock()


def begin(batch_id: int, current: runtime.Runtime) -> bool:
    """Whether no other run of the task in this process has the batch.

    Both would take it for the same journal: what one has taken, the other must not free when it
    fails.
    """
    with _working_lock:
        if batch_id in _working or batch_id in current.journal.open_batches:
            return False
        _working.add(batch_id)
    return True


def end(batch_id: int) -> None:
    _working.discard(batch_id)


def take(batch_id: int, current: runtime.Runtime) -> Parcel | None:
    """Take the batch for this journal, once, and load what it needs; all of it or nothing."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            _TAKE_SQL, {"id": batch_id, "journal": current.journal_id, "host": current.host}
        )
        row = cursor.fetchone()
        if row is not None:
            return _parcel(batch_id, current, row)
    _unpublish(batch_id)
    return None


def _parcel(batch_id: int, current: runtime.Runtime, row: tuple[Any, ...]) -> Parcel:
    ids, day, mailing_id, provider, priority, source_id, workspace_id = row[:7]
    claim = Claim(
        batch_id,
        current.journal_id,
        day,
        mailing_id,
        workspace_id,
        provider,
        policy_from(orjson.loads(row[8])),
    )
    rows = rendering.load(day, ids)
    messages = {
        one.id: Waiting(Standing(one.id, one.attempts, one.failures, one.queued_at), one.address)
        for one in rows
    }
    source = Source.objects.get(pk=source_id)
    frame = rendering.Frame(day, mailing_id, row[7], row[9])
    return Parcel(claim, priority, gate.Path(source_id, provider), source, frame, messages, rows)


def free(batch_id: int, current: runtime.Runtime) -> None:
    """Give back a batch that may have been taken, as soon as the database can be reached."""

    def freeing() -> None:
        while not current.is_stopping.is_set():
            try:
                Batch.objects.filter(
                    pk=batch_id, state="taken", journal_id=current.journal_id
                ).update(state="untaken", journal_id=None, published_at=None, taken_at=None)
            except (OperationalError, InterfaceError):
                connection.close()
                current.is_stopping.wait(RETRY_SECONDS)
            else:
                end(batch_id)
                return

    current.do_after([], freeing)


def _unpublish(batch_id: int) -> None:
    """A batch whose mailing is paused, or that is not due, waits to be dispatched anew."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE mailer_batch SET published_at = NULL WHERE id = %s AND state = 'untaken'",
            [batch_id],
        )


def may_go_on(claim: Claim) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT m.state IN ('expanding', 'running') AND NOT EXISTS (
                SELECT 1 FROM deliverability_hold h WHERE h.released_at IS NULL
                AND (h.workspace_id IS NULL OR h.workspace_id = m.workspace_id))
            FROM mailer_mailing m WHERE m.id = %s
            """,
            [claim.mailing_id],
        )
        row = cursor.fetchone()
    return bool(row and row[0])
