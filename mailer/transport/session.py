"""One open SMTP connection: moves bytes between a socket and the conversation.

Owns the asyncio protocol, the time-outs and the order in which the feed is asked and told. What
to say and what a reply means is decided by `mailer.core.smtp`. Never connects and never retries.

A time-out is decided in two steps. A timer that fires asks for a short grace, so that bytes
that wait in the socket are read first: a process that was stopped for an hour (SIGSTOP, a
suspended machine) and goes on must read the replies that arrived, not declare them lost, and
uvloop runs timers before it reads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from deliverability.core.outcome import Phase, Reply
from mailer.core import smtp as core
from mailer.core.smtp_commands import Abilities
from mailer.transport.door import (
    Feed,
    Host,
    InDoubt,
    Limits,
    Replied,
    Result,
    Timeouts,
    Unreached,
    Unsent,
)

logger = logging.getLogger(__name__)

GRACE_SECONDS = 0.5  #: any delay above zero lets the loop read once; more forgives a busy loop
QUIT_SECONDS = 5.0  #: how long a server may take to say goodbye


class Session(asyncio.Protocol):
    """Sends envelopes over one connection, one feed at a time."""

    def __init__(
        self,
        host: Host,
        abilities: Abilities,
        timeouts: Timeouts,
        limits: Limits,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.host = host
        self.has_delivered = False
        self.has_answered = False  #: whether any message got a reply that settled it
        self.has_swallowed = False  #: the server does not bear PIPELINING after an error
        self.last_unreached: Unreached | None = None
        self.on_over: Callable[[Session], None] = lambda session: None
        self._conversation = core.Conversation(abilities)
        self._timeouts = timeouts
        self._messages_left = limits.messages_per_connection
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._feed: Feed | None = None
        self._done: asyncio.Future[None] | None = None
        self._is_paused = False
        self._is_ended = False
        self._is_our_doing = False
        self._replies_before = 0  # heard before this feed was served
        self._announced_at = 0.0
        self._handed_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._deadline = 0.0
        self._is_overdue = False

    # -- for the pool

    def attach(self, transport: asyncio.Transport) -> None:
        """Take over an open connection on which mail may flow."""
        self._transport = transport
        transport.set_protocol(self)

    def speak_plainly(self) -> None:
        """Do without PIPELINING. To be said before the first feed."""
        abilities = self._conversation.abilities
        self._conversation.abilities = replace(abilities, pipelining=False)

    @property
    def is_open(self) -> bool:
        transport = self._transport
        is_alive = transport is not None and not transport.is_closing()
        return is_alive and self._conversation.over is None

    @property
    def closing_reply(self) -> Reply | None:
        """The 421 with which the server ended the connection."""
        return self._conversation.closing_reply

    @property
    def is_reusable(self) -> bool:
        return self.is_open and self._messages_left > 0 and not self._conversation.is_busy

    async def serve(self, feed: Feed) -> None:
        """Send what the feed hands out until it is empty or the connection is over.

        Raises what the feed raised, once everything taken from it is settled.
        """
        self._feed = feed
        self._replies_before = self._conversation.replies_heard
        done = self._done = self._loop.create_future()
        self._guarded(self._turn)
        await done

    def quit(self) -> None:
        """Say goodbye. The connection is over when the server answers, or soon."""
        if not self.is_open or self._conversation.is_busy:
            self.abort("given up")
            return
        self._conversation.quit()
        self._write()
        self._arm(QUIT_SECONDS)

    def abort(self, why: str) -> None:
        """Close at once; settle what was begun."""
        self._is_our_doing = True
        self._guarded(lambda: self._lose(why))

    # -- asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        self._guarded(lambda: self._hear(data))

    def eof_received(self) -> None:
        return None  # closes the transport: a server that stops talking cannot answer any more

    def connection_lost(self, exc: Exception | None) -> None:
        why = f"the connection was lost: {exc}" if exc else "the server closed the connection"
        self._guarded(lambda: self._lose(why))
        self._transport = None
        self.on_over(self)

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._guarded(self._turn)

    # -- the turn: everything that can be done now, in one write

    def _hear(self, data: bytes) -> None:
        replies_heard = self._conversation.replies_heard
        self._tell_all(self._conversation.receive(data))
        # A reply that trickles in is no progress: its time-out runs on.
        self._turn(is_progress=self._conversation.replies_heard > replies_heard)

    def _turn(self, is_progress: bool = True) -> None:
        if self.is_open and not self._is_paused and self._feed is not None:
            self._hand_over()
            self._announce()
        self._write()
        if not self.is_open:
            self._lose("the connection was lost")
        elif not self._is_waiting:
            self._finish_feed()
        elif is_progress:
            self._arm(self._patience())

    @property
    def _is_waiting(self) -> bool:
        """Whether the server has something to do before we can go on."""
        return self._conversation.is_busy or (self._is_paused and self._feed is not None)

    def _hand_over(self) -> None:
        envelope = self._conversation.ready
        if envelope is None:
            return
        assert self._feed is not None
        self._feed.starting(envelope)
        self._conversation.hand_over()
        self._handed_at = self._loop.time()

    def _announce(self) -> None:
        feed = self._feed
        assert feed is not None
        while self._messages_left > 0 and self._conversation.wants_envelope:
            envelope = feed.next()
            if envelope is None:
                return
            try:
                refusal = self._conversation.announce(envelope)
            except Exception as error:
                feed.settle(envelope, Unsent(f"our own fault: {error!r}"))
                raise
            if refusal is None:
                self._messages_left -= 1
                self._announced_at = self._loop.time()
            else:
                feed.settle(envelope, Replied(refusal, self.host.name, 0.0))

    def _write(self) -> None:
        output = self._conversation.take_output()
        if output and self._transport is not None:
            self._transport.write(output)

    # -- time

    def _patience(self) -> float:
        if self._conversation.awaits is core.Step.CONTENT:
            return self._timeouts.data_reply_seconds
        return self._timeouts.command_seconds

    def _arm(self, seconds: float) -> None:
        self._is_overdue = False
        self._deadline = self._loop.time() + seconds
        # One timer for many deadlines: it is moved when it fires, not at every reply.
        if self._timer is None or self._timer_at > self._deadline:
            self._set_timer(seconds)

    def _set_timer(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self._loop.time() + seconds
        self._timer = self._loop.call_later(seconds, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        remaining = self._deadline - self._loop.time()
        if self._is_ended or not self._is_waiting:
            return
        if remaining > 0:
            self._set_timer(remaining)
        elif not self._is_overdue:
            self._is_overdue = True
            self._set_timer(GRACE_SECONDS)
        else:
            self.has_swallowed = self._conversation.is_swallowing
            awaits = self._conversation.awaits
            asked = awaits.value if awaits is not None else "free room to write"
            self._guarded(lambda: self._lose(f"timed out waiting for {asked}"))

    # -- telling the feed

    def _tell_all(self, events: list[core.Settled]) -> None:
        """Tell each, even when telling one of them fails."""
        error: Exception | None = None
        for settled in events:
            try:
                self._tell(settled)
            except Exception as raised:
                error = error or raised
        if error is not None:
            raise error

    def _tell(self, settled: core.Settled) -> None:
        feed = self._feed
        assert feed is not None
        feed.settle(settled.envelope, self._result_of(settled.fate))

    def _result_of(self, fate: core.Fate) -> Result:
        match fate:
            case core.Answered(reply) if self._was_stale(reply):
                return Unsent(f"the idle connection was closed: {reply.text}", is_lost=True)
            case core.Answered(reply):
                return self._replied(reply)
            case core.InDoubt(why):
                return InDoubt(why, self.host.name)
            case core.Broken(reply):
                return self._unreached(reply)
            case core.NotSent(why, phase):
                if self._is_our_doing or self.has_answered or self._handed_at:
                    return Unsent(why, is_lost=not self._is_our_doing)
                # It was the first that a fresh connection met, so it would meet the same again.
                return self._unreached(Reply(0, "", why, phase))

    def _was_stale(self, reply: Reply) -> bool:
        """A 421 that was already under way when an idle connection was used again."""
        heard = self._conversation.replies_heard
        return reply is self.closing_reply and heard == self._replies_before + 1 > 1

    def _unreached(self, reply: Reply) -> Unreached:
        self.last_unreached = Unreached(reply, self.host.name)
        return self.last_unreached

    def _replied(self, reply: Reply) -> Replied:
        self.has_answered = True
        is_content = reply.phase is Phase.CONTENT
        self.has_delivered = self.has_delivered or (is_content and reply.code < 300)
        since = self._handed_at if is_content else self._announced_at
        return Replied(reply, self.host.name, self._loop.time() - since)

    # -- ends

    def _guarded(self, act: Callable[[], None]) -> None:
        """Run a step. What the feed raises ends the connection and goes to `serve`'s caller."""
        try:
            act()
        except Exception as error:
            self._is_our_doing = True
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        try:
            self._tell_all(self._conversation.lose(f"our own fault: {error!r}"))
        except Exception:
            logger.exception("mailer.transport.settle_failed")
        self._end(error)

    def _lose(self, why: str) -> None:
        self._tell_all(self._conversation.lose(why))
        self._end(None)

    def _end(self, error: Exception | None) -> None:
        if not self._is_ended:
            self._is_ended = True
            if self._timer is not None:
                self._timer.cancel()
            if self._transport is not None:
                self._transport.abort()
        self._finish_feed(error)

    def _finish_feed(self, error: Exception | None = None) -> None:
        done, self._done, self._feed = self._done, None, None
        if done is None or done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(None)
