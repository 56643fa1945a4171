"""Connections kept warm: how many are open, to which host, and who may use them next.

Decides when a connection is opened, used again or closed, within the limits of its destination
and of the process, and gives a message whose connection was lost before its turn another one.
Never speaks SMTP (`session` does) and never knows how a connection is made (a dialler does).

RFC 5321 section 5.1: hosts are tried in the order given.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, cast

from deliverability.core.outcome import Phase, Reply
from mailer.transport.door import Destination, Feed, Host, SendReport, Unreached, Unsent
from mailer.transport.session import Session
from mailer.transport.supply import Supply

DEAD_SECONDS = 60.0  #: how long a host that did not answer is passed over
BARREN_LIMIT = 3  #: connections in a row that answered no message; one may be a message's fault


class NoConnection(Exception):
    """The host could not be connected to, or refused us. It says nothing about any message."""

    def __init__(self, unreached: Unreached) -> None:
        super().__init__(unreached.text)
        self.unreached = unreached


class Dialler(Protocol):
    async def dial(self, destination: Destination, host: Host) -> Session:
        """Open a connection on which mail may flow, or raise `NoConnection`."""


@dataclass(slots=True)
class _Lane:
    """The connections of one identity to one destination."""

    path: str = ""  #: lanes of one path share its limit
    open_count: int = 0
    idle: list[tuple[Session, asyncio.TimerHandle]] = field(default_factory=list)


@dataclass(slots=True)
class _Tally:
    opened: int = 0
    reused: int = 0
    failure: Unreached | None = None
    is_drained: bool = False  #: a worker ended because nothing was left to send


def _close_an_idle_one(lanes: Iterable[_Lane]) -> None:
    for lane in lanes:
        if lane.idle:
            session, timer = lane.idle.pop(0)
            timer.cancel()
            session.quit()
            return


def _check_welcome(session: Session, barren_count: int) -> None:
    """Raise `NoConnection` when to knock again would only burn one message each time."""
    if session.closing_reply is not None and not session.has_delivered:
        raise NoConnection(Unreached(session.closing_reply, session.host.name))
    if barren_count >= BARREN_LIMIT:
        text = f"{barren_count} connections in a row ended without answering any message"
        silence = Unreached(Reply(0, "", text, Phase.MAIL), session.host.name)
        raise NoConnection(session.last_unreached or silence)


class PooledTransport:
    """A `Transport` over connections that a dialler makes. Lives in one event loop."""

    def __init__(self, dialler: Dialler, *, connections: int = 200) -> None:
        self._dialler = dialler
        self._limit = connections
        self._open_count = 0
        self._lanes: dict[tuple[object, ...], _Lane] = {}
        self._sessions: set[Session] = set()
        self._dead: dict[tuple[object, ...], tuple[float, Unreached]] = {}
        self._plain_hosts: set[Host] = set()  # those that proved not to bear PIPELINING
        self._waiters: set[asyncio.Future[None]] = set()
        self._supplies: set[Supply] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._dialling: set[asyncio.Task[None]] = set()  # those of them that have no session yet
        self._is_closed = False

    # -- the door

    async def send(self, destination: Destination, feed: Feed, connections: int) -> SendReport:
        if self._is_closed:
            return SendReport()
        supply, tally = Supply(feed), _Tally()
        wanted = supply.prefetch(min(connections, destination.limits.connections))
        self._supplies.add(supply)
        workers = [self._spawn(destination, supply, tally) for _ in range(wanted)]
        finish = self._keep(self._finish(supply, workers, tally))
        try:
            # Shielded: content that is out is waited for, whatever becomes of the caller.
            await asyncio.shield(finish)
        except asyncio.CancelledError:
            supply.stop("the sending was stopped")
            self._wake()
            raise
        kept = self._lane(destination).open_count
        return SendReport(tally.opened, tally.reused, kept, tally.failure)

    async def close(self, grace_seconds: float) -> None:
        self._is_closed = True
        for supply in self._supplies:
            supply.stop("the transport is closing")
        self._wake()
        for session in self._idle_sessions():
            session.quit()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await self._last_words()
        for session in list(self._sessions):
            session.abort("the transport was closed before the reply came")
        for task in self._dialling:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _last_words(self) -> None:
        """Wait until every task and every connection has ended."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        while self._sessions:
            await self._room_or_session()

    def connections_to(self, destination: Destination) -> int:
        """Count the connections open in this process, idle ones included."""
        return self._lane(destination).open_count

    # -- workers: each uses one connection at a time

    async def _work(self, destination: Destination, supply: Supply, tally: _Tally) -> None:
        barren_count = 0
        try:
            while supply.has_more:
                session = await self._take(destination, supply, tally)
                if session is None:
                    break
                await self._serve(destination, session, supply)
                is_barren = not session.has_answered and not session.is_open
                barren_count = barren_count + 1 if is_barren else 0
                _check_welcome(session, barren_count)
            tally.is_drained = True
        except NoConnection as error:
            tally.failure = error.unreached
        except Exception:
            supply.stop("the feed failed")
            raise

    async def _serve(self, destination: Destination, session: Session, supply: Supply) -> None:
        try:
            await session.serve(supply)
        finally:
            self._put_back(destination, session)

    async def _finish(
        self, supply: Supply, workers: list[asyncio.Task[None]], tally: _Tally
    ) -> None:
        """Wait for the workers; settle what they left; raise what the feed raised."""
        try:
            ends = await asyncio.gather(*workers, return_exceptions=True)
        finally:
            self._supplies.discard(supply)
            if tally.is_drained and not supply.holds_any:
                tally.failure = None
            supply.settle_held(tally.failure or Unsent("no connection was left"))
        for end in ends:
            if isinstance(end, Exception):
                raise end

    def _spawn(self, destination: Destination, supply: Supply, tally: _Tally) -> asyncio.Task[None]:
        return self._keep(self._work(destination, supply, tally))

    def _keep(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- connections

    async def _take(
        self, destination: Destination, supply: Supply, tally: _Tally
    ) -> Session | None:
        """Return a connection to use alone; None when nothing is left to send."""
        while supply.has_more:
            session = self._warm_session(destination)
            if session is not None:
                tally.reused += 1
                return session
            if self._path_has_room(destination) and self._has_room():
                session = await self._open(destination)
                tally.opened += 1
                return session
            await self._room_or_session()
        return None

    def _warm_session(self, destination: Destination) -> Session | None:
        lane = self._lane(destination)
        while lane.idle:
            session, timer = lane.idle.pop()
            timer.cancel()
            if session.is_reusable and session.host in destination.hosts:
                return session
            session.quit()
        return None

    def _put_back(self, destination: Destination, session: Session) -> None:
        if session.is_reusable and not self._is_closed:
            loop = asyncio.get_running_loop()
            timer = loop.call_later(destination.limits.idle_seconds, session.quit)
            self._lane(destination).idle.append((session, timer))
        else:
            session.quit()
        self._wake()

    async def _open(self, destination: Destination) -> Session:
        self._lane(destination).open_count += 1
        self._open_count += 1
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._dialling.add(task)
        try:
            session = await self._dial(destination)
        except BaseException:
            self._release(destination)
            raise
        finally:
            self._dialling.discard(task)
        self._sessions.add(session)
        if session.host in self._plain_hosts:
            session.speak_plainly()
        session.on_over = lambda over: self._forget(destination, over)
        return session

    async def _dial(self, destination: Destination) -> Session:
        failure: Unreached | None = None
        for host in destination.hosts:
            known = self._known_unreached(destination, host)
            if known is not None:
                failure = failure or known
                continue
            try:
                session = await self._dialler.dial(destination, host)
            except NoConnection as error:
                self._remember(destination, host, error.unreached)
                # A server's own words tell more than silence.
                if failure is None or (error.unreached.reply.code and not failure.reply.code):
                    failure = error.unreached
            else:
                self._dead.pop((host, destination.source_address), None)
                return session
        no_host = Reply(0, "", "there is no host to try", Phase.ROUTE)
        raise NoConnection(failure or Unreached(no_host, destination.key))

    def _known_unreached(self, destination: Destination, host: Host) -> Unreached | None:
        """Say without a packet that the host will not be reached, if that is known."""
        if destination.is_loopback_only and not host.is_loopback:
            text = f"sandbox mode: {host.address} is not this machine, nothing was sent"
            return Unreached(Reply(0, "", text, Phase.CONNECT), host.name)
        until, unreached = self._dead.get((host, destination.source_address), (0.0, None))
        return unreached if asyncio.get_running_loop().time() < until else None

    def _remember(self, destination: Destination, host: Host, unreached: Unreached) -> None:
        """A host that was silent is passed over for a while; one that spoke is not."""
        if unreached.reply.code == 0 and unreached.phase in (Phase.CONNECT, Phase.GREETING):
            now = asyncio.get_running_loop().time()
            self._dead = {key: dead for key, dead in self._dead.items() if dead[0] > now}
            self._dead[host, destination.source_address] = (now + DEAD_SECONDS, unreached)

    # -- counting

    def _lane(self, destination: Destination) -> _Lane:
        identity = (
            destination.key,
            destination.source_address,
            destination.helo_name,
            destination.tls,
            destination.verify_certificate,
            destination.username,
        )
        return self._lanes.setdefault(identity, _Lane(destination.path or str(identity)))

    def _path_has_room(self, destination: Destination) -> bool:
        """Whether the path allows one more connection; if not, make room for later."""
        path = self._lane(destination).path
        lanes = [lane for lane in self._lanes.values() if lane.path == path]
        if sum(lane.open_count for lane in lanes) < destination.limits.connections:
            return True
        _close_an_idle_one(lanes)
        return False

    def _has_room(self) -> bool:
        """Whether the process may open one more; if not, make room for later."""
        if self._open_count < self._limit:
            return True
        _close_an_idle_one(self._lanes.values())
        return False

    def _idle_sessions(self) -> Iterator[Session]:
        for lane in self._lanes.values():
            while lane.idle:
                session, timer = lane.idle.pop()
                timer.cancel()
                yield session

    def _forget(self, destination: Destination, session: Session) -> None:
        self._sessions.discard(session)
        if session.has_swallowed:
            self._plain_hosts.add(session.host)
        lane = self._lane(destination)
        for entry in lane.idle:
            if entry[0] is session:
                entry[1].cancel()
        lane.idle = [entry for entry in lane.idle if entry[0] is not session]
        self._release(destination)

    def _release(self, destination: Destination) -> None:
        self._lane(destination).open_count -= 1
        self._open_count -= 1
        self._lanes = {key: lane for key, lane in self._lanes.items() if lane.open_count}
        self._wake()

    async def _room_or_session(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
