"""Delivery: one batch, from taking it to its recorded outcomes.

Takes the batch by compare-and-set, so that of any number of runs of its task only one sends;
renders; asks the gate at the last moment; sends over the process's connections; records in
bulk. No transaction and no row lock is held while a server is spoken to.

What did not get its turn (a limit, a pause, the worker's shutdown) goes back as an untaken
batch. A reply that is still due when the task's patience ends is awaited by the loop and
recorded when it comes; the batch stays taken, by this process, until then.
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache

from django.db import InterfaceError, OperationalError, connection

from deliverability import gate, suppressions
from deliverability.core.outcome import OutcomeKind, Phase, Reply
from deliverability.models import SourceKind
from mailer import conf, outcomes, rendering, routing, runtime, taking
from mailer.core.envelope import Envelope
from mailer.core.lifecycle import MessageEvent
from mailer.core.priority import Priority
from mailer.feed import Feed
from mailer.models import Route, RouteState
from mailer.outcomes import ClaimLost, Rest, Seen
from mailer.slots import Slots, warm_seconds
from mailer.sources import connection_path, destinations
from mailer.taking import Parcel
from mailer.transport.door import Destination

logger = logging.getLogger(__name__)

#: How often a running batch looks whether a person paused or cancelled its mailing.
LOOK_SECONDS = 0.5
#: A batch that found no free connection asks again after this.
NO_SLOT_WAIT = timedelta(seconds=2)
#: A batch that could not be worked on through a fault of ours asks again after this.
FAULT_WAIT = timedelta(seconds=10)
#: Messages that were not sent although nothing is known to be in the way are tried after this.
TURN_WAIT = timedelta(seconds=1)


@dataclass(slots=True)
class Tray:
    """What has come of the parcel's messages so far. Written by the loop, read when it rests."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    seen: dict[int, Seen] = field(default_factory=dict)
    aside: dict[int, tuple[MessageEvent, str]] = field(default_factory=dict)


@cache
def _slots(current: runtime.Runtime) -> Slots:
    return Slots(current)


def slots() -> Slots:
    return _slots(runtime.current())


def deliver(batch_id: int) -> bool:
    """Deliver one batch; say whether dispatch should look for work now.

    False too when it is not ours to deliver: taken, done, paused, not due.
    """
    current = runtime.current()
    if current.is_stopping.is_set() or not taking.begin(batch_id, current):
        return False
    try:
        parcel = taking.take(batch_id, current)
    except Exception:
        # Whether it was taken or not: nothing of it was sent, and it must not stay ours.
        taking.free(batch_id, current)
        raise
    try:
        if parcel is not None:
            return _Delivery(current, parcel).run()
        return False
    finally:
        taking.end(batch_id)


class _Delivery:
    def __init__(self, current: runtime.Runtime, parcel: Parcel) -> None:
        self.runtime = current
        self.parcel = parcel
        self.tray = Tray()
        self.feeds: list[Feed] = []
        self.waits_for, self.due_at = "", _now()

    def run(self) -> bool:
        """Send and record; say whether there is anything for dispatch to do.

        A finished bulk batch makes room for another one. Urgent ones are never held back for
        room, so only what was not sent needs to be looked at again.
        """
        try:
            self.runtime.journal.took(self.parcel.claim.batch_id)
            self._send()
        except Exception as error:
            # One catch-all: whatever went wrong, what was seen is recorded and the rest goes back.
            logger.exception("mailer.batch.failed batch=%s", self.parcel.claim.batch_id)
            self.put_off(f"a fault: {error!r}", FAULT_WAIT)
        self._record()
        return self.parcel.priority != Priority.URGENT or bool(self.waits_for)

    def put_off(self, why: str, wait: timedelta) -> None:
        """Say why, and for how long, what was not sent goes back."""
        self.waits_for, self.due_at = why[:200], _now() + wait

    def _send(self) -> None:
        routes = self._set_aside()
        envelopes = self._envelopes()
        if not envelopes:
            return
        wanted = self._connections(len(envelopes))
        path = connection_path(self.parcel.source, self.parcel.claim.provider)
        granted = slots().take(path, wanted, priority=self.parcel.priority)
        if not granted:
            self.put_off("a free connection", NO_SLOT_WAIT)
            return
        try:
            groups = self._group(envelopes, routes, granted)
            total = sum(len(group) for group in groups.values())
            admission = gate.admit(self.parcel.path, total, now=_now())
            self.feeds = self._feeds(groups, admission)
            self._converse(groups, wanted)
            self._when_quiet(lambda: self._give_back(admission))
        finally:
            self._when_quiet(lambda: slots().give_back(path))

    def _give_back(self, admission: gate.Admission) -> None:
        """Return what led to no attempt; asked only when no more attempts can come."""
        gate.give_back(admission, admission.admitted - sum(feed.tried for feed in self.feeds))

    def _set_aside(self) -> dict[str, Route]:
        """Take out whom we must not or cannot send to. Returns the routes of the others."""
        parcel, now = self.parcel, _now()
        keys = {row.address.lower(): row.id for row in parcel.rows}
        suppressed = suppressions.suppressed_among(
            parcel.claim.workspace_id, keys, parcel.frame.unsubscribe_scope, now=now
        )
        for row in parcel.rows:
            reason = suppressed.get(row.address.lower())
            if reason is not None:
                self.tray.aside[row.id] = (MessageEvent.SUPPRESSED, reason)
            elif row.queued_at + parcel.claim.policy.max_age < now:
                self.tray.aside[row.id] = (MessageEvent.EXPIRED, "too_old")
        if parcel.source.kind == SourceKind.RELAY:
            return {}
        open_rows = [row for row in parcel.rows if row.id not in self.tray.aside]
        routes = routing.routes_for({row.recipient_domain for row in open_rows}, now=now)
        for row in open_rows:
            reply = _route_reply(routes[row.recipient_domain])
            if reply is not None:
                # What DNS says for sure counts like a server's word; its silence does not.
                kind = OutcomeKind.ACCEPTED if reply.code else OutcomeKind.UNREACHED
                self._see(row.id, row.attempts + 1, kind, reply, "")
        return routes

    def _envelopes(self) -> list[tuple[rendering.Row, Envelope]]:
        envelopes = []
        for row in self.parcel.rows:
            if row.id in self.tray.aside or row.id in self.tray.seen:
                continue
            try:
                envelopes.append((row, rendering.render(self.parcel.frame, row, now=_now())))
            except rendering.NotRendered as error:
                reply = Reply(0, "", str(error)[:2000], Phase.ROUTE)
                self._see(row.id, row.attempts + 1, OutcomeKind.BROKEN, reply, "")
        return envelopes

    def _group(
        self,
        envelopes: list[tuple[rendering.Row, Envelope]],
        routes: dict[str, Route],
        connections: int,
    ) -> dict[Destination, deque[Envelope]]:
        """Group by where they go; domains with the same mail hosts share connections."""
        current = self.runtime
        found = destinations(
            current,
            self.parcel.source,
            self.parcel.claim.provider,
            {row.recipient_domain for row, _ in envelopes},
            routes,
            connections=connections,
            warm_seconds=warm_seconds(self.parcel.priority),
        )
        groups: dict[Destination, deque[Envelope]] = {}
        for row, envelope in envelopes:
            match found[row.recipient_domain]:
                case Destination() as destination:
                    groups.setdefault(destination, deque()).append(envelope)
                case Reply() as reply:
                    self._see(row.id, envelope.attempt_no, OutcomeKind.UNREACHED, reply, "")
        return groups

    def _connections(self, total: int) -> int:
        """How many connections are worth opening: one for every ten messages, within bounds."""
        return max(1, min(conf.delivery_policy().connections_per_batch, -(-total // 10)))

    def _feeds(
        self, groups: dict[Destination, deque[Envelope]], admission: gate.Admission
    ) -> list[Feed]:
        left = admission.admitted
        if left < sum(len(envelopes) for envelopes in groups.values()):
            self.waits_for = admission.why
            self.due_at = admission.ready_at or _now()
        feeds = []
        for envelopes in groups.values():
            while len(envelopes) > left:
                envelopes.pop()
            left -= len(envelopes)
            feeds.append(self._feed(envelopes))
        return feeds

    def _feed(self, envelopes: deque[Envelope]) -> Feed:
        return Feed(
            self.runtime,
            self.parcel.claim.batch_id,
            envelopes,
            see=self._see,
            put_off=lambda why: self.put_off(why, FAULT_WAIT),
        )

    def _converse(self, groups: dict[Destination, deque[Envelope]], connections: int) -> None:
        """Send all groups, a share of the connections each, within the batch's patience."""
        pairs = [(to, feed) for to, feed in zip(groups, self.feeds, strict=True) if feed.envelopes]
        total = sum(len(feed.envelopes) for _, feed in pairs)
        deadline = time.monotonic() + conf.delivery_policy().patience.total_seconds()
        waiting = deque(sorted(pairs, key=lambda pair: -len(pair[1].envelopes)))
        running: dict[concurrent.futures.Future[object], tuple[Feed, int]] = {}
        free, look_at = connections, time.monotonic() + LOOK_SECONDS
        while waiting or running:
            while waiting and free > 0:
                destination, feed = waiting.popleft()
                share = max(1, min(free, connections * len(feed.envelopes) // max(1, total)))
                feed.start(destination, share)
                assert feed.future is not None
                running[feed.future] = (feed, share)
                free -= share
            done, _ = concurrent.futures.wait(
                running, LOOK_SECONDS, concurrent.futures.FIRST_COMPLETED
            )
            for future in done:
                free += running.pop(future)[1]
                self._note_fault(future)
            if time.monotonic() < look_at:
                continue
            # By the clock, since among many servers one has always just ended.
            look_at = time.monotonic() + LOOK_SECONDS
            is_late = time.monotonic() > deadline
            if is_late or self._must_stop():
                waiting.clear()
                for feed, _ in running.values():
                    feed.is_stopped = True
                if is_late or self.runtime.is_stopping.is_set():
                    break

    def _note_fault(self, conversation: concurrent.futures.Future[object]) -> None:
        """A conversation that ended in a fault of ours leaves its messages unsent: say why."""
        if conversation.cancelled() or (error := conversation.exception()) is None:
            return
        batch_id = self.parcel.claim.batch_id
        logger.error("mailer.conversation.failed batch=%s", batch_id, exc_info=error)
        if not self.waits_for:
            self.put_off(f"a fault while sending: {error!r}", FAULT_WAIT)

    def _must_stop(self) -> bool:
        """Whether a person, or a rule, stopped this mailing meanwhile. When the database cannot
        be asked, sending goes on: its outcomes wait in the journal."""
        if self.runtime.is_stopping.is_set():
            return True
        try:
            return not taking.may_go_on(self.parcel.claim)
        except (OperationalError, InterfaceError):
            connection.close()
            return False

    def _when_quiet(self, then: Callable[[], object]) -> None:
        """Do it once no conversation of this batch runs any more; now, if none does."""
        running = [feed.future for feed in self.feeds if feed.future and not feed.future.done()]
        if running:
            self.runtime.do_after(running, then)
        else:
            then()

    def _record(self) -> None:
        """Record what is known; what is still out is recorded when it has come back."""
        out = self._halt()
        here = {row.id for row in self.parcel.rows} - out
        left = here - self.tray.seen.keys() - self.tray.aside.keys()
        if left and not self.waits_for and not self._must_stop():
            # Whatever kept it from its turn, such as a server that hangs up, may not be over.
            self.put_off("its turn, which did not come", TURN_WAIT)
        if self._commit(here, still_out=out) and out:
            self._when_quiet(lambda: self._commit(out))

    def _halt(self) -> set[int]:
        """Let no feed hand out anything more; say which messages are with the transport.

        Asked in the loop, where feeds hand out: seen from another thread, a message might be
        neither here nor there just now, and would be sent twice.
        """
        if all(feed.future is None or feed.future.done() for feed in self.feeds):
            return set()

        async def halt() -> set[int]:
            for feed in self.feeds:
                feed.is_stopped = True
            return {message_id for feed in self.feeds for message_id in feed.out}

        return self.runtime.run(halt())

    def _commit(self, ids: set[int], *, still_out: Set[int] = frozenset()) -> bool:
        """Write down what became of `ids`, for as long as it takes: until then it waits in the
        journal. What has no outcome goes back. False: given up, for whoever rescues it."""
        claim, messages = self.parcel.claim, self.parcel.messages
        with self.tray.lock:
            seen = {key: value for key, value in self.tray.seen.items() if key in ids}
            aside = {key: value for key, value in self.tray.aside.items() if key in ids}
        rest = Rest(sorted(ids - seen.keys() - aside.keys()), self.due_at, self.waits_for)
        was_unheard = False  # the database may have committed, and its answer was lost
        while True:
            try:
                try:
                    outcomes.record(
                        claim, messages, seen, aside, rest, still_out=sorted(still_out), now=_now()
                    )
                except ClaimLost:
                    if not was_unheard or not outcomes.is_recorded(claim, seen):
                        raise
            except ClaimLost:
                logger.exception("mailer.batch.claim_lost batch=%s", claim.batch_id)
                return False
            except (OperationalError, InterfaceError) as error:
                logger.warning("mailer.batch.record_waits batch=%s %s", claim.batch_id, error)
                connection.close()
                was_unheard = True
                if self.runtime.is_stopping.wait(taking.RETRY_SECONDS):
                    return False
            else:
                break
        if not still_out:
            self.runtime.journal.recorded(claim.batch_id)
        return True

    def _see(
        self, message_id: int, attempt_no: int, kind: OutcomeKind, reply: Reply, host: str
    ) -> Seen:
        seen = Seen(attempt_no, _now(), kind, reply, host, self.parcel.source.pk)
        with self.tray.lock:
            self.tray.seen[message_id] = seen
        return seen


def _now() -> datetime:
    return datetime.now(UTC)


def _route_reply(route: Route) -> Reply | None:
    """What DNS alone says about the recipient's domain; None when there are hosts to ask."""
    match route.state:
        case RouteState.NULL_MX:
            return Reply(556, "5.1.10", "the domain accepts no mail (null MX)", Phase.ROUTE)
        case RouteState.NO_DOMAIN:
            text = route.detail or "the domain does not exist"
            return Reply(550, "5.1.2", text, Phase.ROUTE)
        case RouteState.FAILED:
            return Reply(0, "", f"DNS gave no answer: {route.detail}", Phase.ROUTE)
    return None
