"""What lives as long as a worker process: one event loop with its SMTP connections, one journal.

Celery's threads hand work over to the loop and wait for it; the loop itself never waits for
them. Made on first use in each process, never before a fork.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import threading
import uuid
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop
from django.db import DatabaseError, connections
from django.db.models.functions import Now

from deliverability import gate
from mailer import conf
from mailer.journal import Journal
from mailer.models import WorkerJournal
from mailer.transport.door import Transport
from mailer.transport.mx import MxLookup, dns_mx
from mailer.transport.smtp import SmtpTransport

logger = logging.getLogger(__name__)
T = TypeVar("T")

RESCUE_SECONDS = 10.0
SHUTDOWN_GRACE_SECONDS = 15.0


class Runtime:
    """The loop, the transport, the resolver and the journal of this process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        place = conf.place()
        self.host = place.host
        self.is_stopping = threading.Event()
        self._journal: Journal | None = None
        self._journal_lock = threading.Lock()
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="smtp-loop", daemon=True)
        self._thread.start()
        self.mx: MxLookup = self.run(_make(lambda: _mx(place)))
        self.transport: Transport = self.run(_make(SmtpTransport))
        # What waits for replies that come after their task has ended.
        self._late: set[concurrent.futures.Future[None]] = set()

    @property
    def journal(self) -> Journal:
        """This process's journal, opened and made known on first use."""
        with self._journal_lock:
            if self._journal is None:
                place = conf.place()
                journal = Journal.open(place.journals, sync=place.fsync)
                WorkerJournal.objects.create(
                    id=uuid.UUID(journal.id), host=place.host, pid=os.getpid()
                )
                self._journal = journal
            return self._journal

    @property
    def journal_id(self) -> uuid.UUID:
        return uuid.UUID(self.journal.id)

    def do_after(
        self, futures: list[concurrent.futures.Future[Any]], then: Callable[[], object]
    ) -> None:
        """Do something, in a thread of its own, once all the futures are done."""
        late: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._late.add(late)

        def do() -> None:
            concurrent.futures.wait(futures)
            try:
                then()
            except Exception:
                logger.exception("mailer.runtime.late_work_failed")
            finally:
                connections.close_all()
                self._late.discard(late)
                late.set_result(None)

        threading.Thread(target=do, name="late", daemon=True).start()

    def run(self, work: Coroutine[Any, Any, T], timeout_seconds: float | None = None) -> T:
        """Run a coroutine in the loop and wait for it."""
        return self.submit(work).result(timeout_seconds)

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def stop(self) -> None:
        """Take no more messages from any feed; what is on the wire comes to its end."""
        self.is_stopping.set()

    def close(self) -> None:
        """Wait for replies that are due, within a grace, and end. What is left is replayed from
        the journal by whoever rescues it."""
        self.stop()
        try:
            self.run(self.transport.close(SHUTDOWN_GRACE_SECONDS), SHUTDOWN_GRACE_SECONDS + 5)
        except TimeoutError:
            logger.warning("mailer.runtime.closed_with_replies_due")
        concurrent.futures.wait(set(self._late), SHUTDOWN_GRACE_SECONDS)
        self._end_journal()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)

    def _end_journal(self) -> None:
        """End the journal if everything in it is recorded; otherwise leave it to the rescue."""
        journal = self._journal
        if journal is None or journal.open_batches:
            return
        try:
            gate.release_worker(uuid.UUID(journal.id))
            WorkerJournal.objects.filter(pk=journal.id).update(ended_at=Now())
        except DatabaseError:
            return
        journal.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()


async def _make(factory: Callable[[], T]) -> T:
    """Make something inside the loop that it will live in."""
    return factory()


def _mx(place: conf.Place) -> MxLookup:
    return dns_mx(place.nameserver, is_sandbox=place.is_sandbox)


_current: Runtime | None = None
_lock = threading.Lock()


def current() -> Runtime:
    """The runtime of this process."""
    global _current
    with _lock:
        if _current is None or _current.pid != os.getpid():
            _current = Runtime()
        return _current


def shut_down() -> None:
    """End this process's runtime, if it has one."""
    global _current
    with _lock:
        runtime, _current = _current, None
    if runtime is not None and runtime.pid == os.getpid():
        runtime.close()


def stop_feeding() -> None:
    """The worker is shutting down: give back what is not on the wire yet."""
    if _current is not None and _current.pid == os.getpid():
        _current.stop()


def every(seconds: float, step: Callable[[], object], *, name: str) -> threading.Thread:
    """Run `step` now, and again and again, in a thread of its own until the process ends.

    A step that fails is logged and tried again: it must be safe to repeat.
    """
    pause = threading.Event()

    def loop() -> None:
        while True:
            try:
                step()
            except Exception:
                logger.exception("%s.failed", name)
            finally:
                # A connection that broke with the server would stay broken in this thread.
                connections.close_all()
            pause.wait(seconds)

    thread = threading.Thread(target=loop, name=name, daemon=True)
    thread.start()
    return thread
