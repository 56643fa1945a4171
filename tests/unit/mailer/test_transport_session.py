"""The session's time-outs and its dealings with the feed, with a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from mailer.core.envelope import Envelope
from mailer.core.smtp_commands import Abilities
from mailer.transport.door import (
    Host,
    InDoubt,
    Limits,
    Replied,
    Result,
    Timeouts,
    Unreached,
    Unsent,
)
from mailer.transport.session import GRACE_SECONDS, Session

HOST = Host("mx.test", "127.0.0.1")
CONTENT = b"Subject: x\r\n\r\nx\r\n"
GO = b"250 Ok\r\n250 Ok\r\n354 Go\r\n"


class Clock:
    """The part of an event loop that a session uses, with time that stands still."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[tuple[float, Callable[[], None], ClockTimer]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, callback: Callable[[], None]) -> ClockTimer:
        timer = ClockTimer()
        self.timers.append((self.now + seconds, callback, timer))
        return timer

    def create_future(self) -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()

    def jump(self, seconds: float) -> None:
        """Let time pass as after a stop: every timer that is due fires before any byte is read."""
        self.now += seconds
        due = [entry for entry in self.timers if entry[0] <= self.now]
        self.timers = [entry for entry in self.timers if entry[0] > self.now]
        for _, callback, timer in due:
            if not timer.is_cancelled:
                callback()


class ClockTimer:
    is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Wire(asyncio.Transport):
    """Remembers what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_aborted = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


class Feed:
    def __init__(self, count: int) -> None:
        self.waiting = [
            Envelope(number, 1, "b@s.test", f"r{number}@x.test", CONTENT, is_dot_safe=True)
            for number in range(1, count + 1)
        ]
        self.results: dict[int, Result] = {}
        self.fails_at: dict[str, int] = {}

    def next(self) -> Envelope | None:
        if self.fails_at.get("next") == len(self.waiting):
            raise OSError("the journal is full")
        return self.waiting.pop(0) if self.waiting else None

    def starting(self, envelope: Envelope) -> None:
        if self.fails_at.get("starting") == envelope.message_id:
            raise OSError("the journal is full")

    def settle(self, envelope: Envelope, result: Result) -> None:
        assert envelope.message_id not in self.results
        self.results[envelope.message_id] = result
        if self.fails_at.get("settle") == envelope.message_id:
            raise OSError("the journal is full")


class Scene:
    """A session that serves a feed over a wire."""

    def __init__(self, count: int = 2, limits: Limits | None = None) -> None:
        self.clock, self.wire, self.feed = Clock(), Wire(), Feed(count)
        self.session = Session(
            HOST,
            Abilities(pipelining=True),
            Timeouts(),
            limits or Limits(),
            self.clock,  # type: ignore[arg-type]
        )
        self.session.attach(self.wire)
        self.serving = asyncio.ensure_future(self.session.serve(self.feed))

    def hear(self, data: bytes) -> None:
        self.session.data_received(data)


def play(scenario: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(scenario())


def test_a_timer_that_fires_while_a_reply_waits_in_the_socket_does_not_lose_it() -> None:
    async def scenario() -> None:
        scene = Scene()
        await asyncio.sleep(0)
        scene.hear(GO)

        scene.clock.jump(3600)  # stopped for an hour: the timer runs first, then the socket is read
        scene.hear(b"250 2.0.0 queued\r\n" + GO)

        result = scene.feed.results[1]
        assert isinstance(result, Replied)
        assert result.reply.code == 250
        scene.clock.jump(GRACE_SECONDS)
        scene.hear(b"250 2.0.0 queued\r\n")
        assert isinstance(scene.feed.results[2], Replied)
        await scene.serving

    play(scenario)


def test_a_reply_that_never_comes_leaves_content_in_doubt_after_ten_minutes() -> None:
    async def scenario() -> None:
        scene = Scene()
        await asyncio.sleep(0)
        scene.hear(GO)

        scene.clock.jump(599)
        assert scene.feed.results == {}
        scene.clock.jump(2)
        assert scene.feed.results == {}
        scene.clock.jump(GRACE_SECONDS)

        assert scene.feed.results == {
            1: InDoubt("timed out waiting for content", "mx.test"),
            2: Unsent("timed out waiting for content", is_lost=True),
        }
        await scene.serving
        assert scene.wire.is_aborted

    play(scenario)


def test_a_command_without_reply_is_given_up_after_a_minute() -> None:
    async def scenario() -> None:
        scene = Scene(count=1)
        await asyncio.sleep(0)
        scene.hear(b"250 Ok\r\n")

        scene.clock.jump(61)
        scene.clock.jump(GRACE_SECONDS)

        result = scene.feed.results[1]
        assert isinstance(result, Unreached)
        assert (result.phase, result.text) == ("rcpt", "timed out waiting for rcpt")
        await scene.serving

    play(scenario)


def test_the_patience_for_content_does_not_extend_to_the_next_command() -> None:
    async def scenario() -> None:
        scene = Scene(count=2)
        await asyncio.sleep(0)
        scene.clock.jump(59)
        scene.hear(GO)
        scene.clock.jump(2)  # the first timer fires early and is moved to ten minutes
        scene.hear(b"250 Ok\r\n")

        scene.clock.jump(61)
        scene.clock.jump(GRACE_SECONDS)

        assert scene.feed.results[2] == Unsent("timed out waiting for mail", is_lost=True)
        await scene.serving

    play(scenario)


def test_a_reply_that_trickles_in_does_not_hold_the_connection_for_ever() -> None:
    async def scenario() -> None:
        scene = Scene(count=1)
        await asyncio.sleep(0)

        for _ in range(3):
            scene.clock.jump(30)
            scene.hear(b"250-x\r\n")

        assert isinstance(scene.feed.results[1], Unreached)
        await scene.serving

    play(scenario)


def test_each_step_is_one_write() -> None:
    async def scenario() -> None:
        scene = Scene()
        await asyncio.sleep(0)
        scene.hear(GO)
        scene.hear(b"250 Ok\r\n" + GO)
        scene.hear(b"250 Ok\r\n")
        await scene.serving

        assert len(scene.wire.written) == 3
        assert scene.wire.written[1].startswith(CONTENT + b".\r\nMAIL FROM:")

    play(scenario)


def test_nothing_is_taken_or_started_while_the_socket_is_full() -> None:
    async def scenario() -> None:
        scene = Scene(count=3)
        await asyncio.sleep(0)
        scene.session.pause_writing()
        scene.hear(GO)
        assert len(scene.wire.written) == 1
        assert len(scene.feed.waiting) == 2

        scene.session.resume_writing()
        assert scene.wire.written[1].startswith(CONTENT)

        scene.session.pause_writing()
        scene.hear(b"250 Ok\r\n550 no\r\n550 no\r\n550 no\r\n")
        assert len(scene.feed.waiting) == 1
        assert not scene.serving.done()
        scene.session.resume_writing()
        assert scene.wire.written[2].startswith(b"MAIL FROM:")
        scene.session.abort("the test is over")
        await scene.serving

    play(scenario)


def test_a_socket_that_stays_full_is_given_up() -> None:
    async def scenario() -> None:
        scene = Scene(count=1)
        await asyncio.sleep(0)
        scene.session.pause_writing()
        scene.hear(GO)

        scene.clock.jump(61)
        scene.clock.jump(GRACE_SECONDS)

        assert isinstance(scene.feed.results[1], Unreached)
        assert len(scene.wire.written) == 1
        await scene.serving

    play(scenario)


@pytest.mark.parametrize("where", ["starting", "settle"])
def test_a_feed_that_fails_ends_the_connection_and_is_told_of_every_message(where: str) -> None:
    async def scenario() -> None:
        scene = Scene(count=3)
        scene.feed.fails_at = {where: 1}
        await asyncio.sleep(0)
        scene.hear(GO)
        scene.hear(b"250 Ok\r\n" + GO)

        with pytest.raises(OSError, match="journal is full"):
            await scene.serving

        assert scene.wire.is_aborted
        if where == "starting":
            assert {number: type(each) for number, each in scene.feed.results.items()} == {
                1: Unsent
            }
            assert len(scene.wire.written) == 1
        else:
            assert {number: type(each) for number, each in scene.feed.results.items()} == {
                1: Replied,
                2: Unsent,
            }

    play(scenario)


def test_content_that_was_not_written_because_the_feed_failed_is_unsent() -> None:
    async def scenario() -> None:
        scene = Scene(count=2)
        await asyncio.sleep(0)
        scene.feed.fails_at = {"next": 1}
        scene.hear(GO)

        with pytest.raises(OSError, match="journal is full"):
            await scene.serving

        assert [type(each) for each in scene.feed.results.values()] == [Unsent]
        assert len(scene.wire.written) == 1

    play(scenario)


def test_a_421_that_was_under_way_to_an_idle_connection_is_not_the_messages() -> None:
    async def scenario() -> None:
        scene = Scene(count=1)
        await asyncio.sleep(0)
        scene.hear(GO)
        scene.hear(b"250 Ok\r\n")
        await scene.serving
        again = Feed(1)
        serving = asyncio.ensure_future(scene.session.serve(again))
        await asyncio.sleep(0)

        scene.hear(b"421 4.4.2 idle for too long\r\n")

        await serving
        assert again.results == {
            1: Unsent("the idle connection was closed: idle for too long", is_lost=True)
        }

    play(scenario)


def test_goodbye_is_not_waited_for_for_ever() -> None:
    async def scenario() -> None:
        scene = Scene(count=0)
        await scene.serving

        scene.session.quit()
        assert scene.wire.written == [b"QUIT\r\n"]
        scene.clock.jump(6)
        scene.clock.jump(GRACE_SECONDS)

        assert scene.wire.is_aborted

    play(scenario)


def test_serving_over_a_connection_that_has_ended_returns_at_once() -> None:
    async def scenario() -> None:
        scene = Scene(count=0)
        await scene.serving
        scene.session.connection_lost(None)
        feed = Feed(1)

        await asyncio.wait_for(scene.session.serve(feed), 5)

        assert len(feed.waiting) == 1

    play(scenario)
