"""What the tests of transports share: feeds that remember, a real server that follows a script."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import cast

from mailer.core.envelope import Envelope
from mailer.transport.door import Destination, Host, InDoubt, Replied, Result, Unreached
from mailer.transport.memory import ServerDialogue, ServerScript

CONTENT = b"Subject: Hello\r\n\r\nLine one\r\n..two dots\r\n.\r\nthe end\r\n"


def an_envelope(number: int, recipient: str | None = None, content: bytes = CONTENT) -> Envelope:
    return Envelope(
        message_id=number,
        attempt_no=1,
        return_path="bounce@sender.test",
        recipient=recipient or f"r{number}@recipient.test",
        content=content,
    )


@dataclass
class ListFeed:
    """Hands out a list; remembers what started and what came of each."""

    envelopes: list[Envelope]
    results: dict[int, Result] = field(default_factory=dict)
    started: list[int] = field(default_factory=list)
    taken: int = 0
    may_start: Callable[[Envelope], None] = lambda envelope: None
    on_settled: Callable[[Envelope, Result], None] = lambda envelope, result: None

    def next(self) -> Envelope | None:
        if self.taken == len(self.envelopes):
            return None
        self.taken += 1
        return self.envelopes[self.taken - 1]

    def starting(self, envelope: Envelope) -> None:
        self.may_start(envelope)
        self.started.append(envelope.message_id)

    def settle(self, envelope: Envelope, result: Result) -> None:
        assert envelope.message_id not in self.results, "settled twice"
        self.results[envelope.message_id] = result
        self.on_settled(envelope, result)

    def told(self) -> dict[int, str]:
        """Each result in a word or a code."""
        return {number: _word(result) for number, result in sorted(self.results.items())}


def _word(result: Result) -> str:
    match result:
        case Replied(reply):
            return f"{reply.code} {reply.phase}"
        case Unreached(reply):
            return f"unreached {reply.phase}"
        case InDoubt():
            return "in doubt"
        case _:
            return "unsent"


def feed_of(recipients: Iterable[str]) -> ListFeed:
    return ListFeed([an_envelope(number, name) for number, name in enumerate(recipients, start=1)])


class LoopbackServer:
    """A `ServerScript` spoken over real sockets, in the running loop."""

    def __init__(
        self,
        script: ServerScript,
        tls: ssl.SSLContext | None = None,
        *,
        delay_seconds: float = 0.0,
    ) -> None:
        self.script = script
        self.tls = tls
        self.delay_seconds = delay_seconds  #: before each reply
        self.peers: set[str] = set()
        self.host = Host("mx.test", "127.0.0.1", 1)
        self.connections: set[ServerConnection] = set()

    async def __aenter__(self) -> LoopbackServer:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: ServerConnection(self), "127.0.0.1", 0)
        self.host = Host("mx.test", "127.0.0.1", self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for connection in list(self.connections):
            connection.transport.abort()
        await until(lambda: not self.connections)


class ServerConnection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, server: LoopbackServer) -> None:
        self.server = server
        self.dialogue: ServerDialogue | None = None
        self.is_upgrading = False
        self.early = b""
        self.upgrade: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        if self.dialogue is None:
            self.server.connections.add(self)
            self.server.peers.add(transport.get_extra_info("peername")[0])
            self.dialogue = ServerDialogue(self.server.script)
            self._write(self.dialogue.greet())

    def data_received(self, data: bytes) -> None:
        assert self.dialogue is not None
        if self.is_upgrading:  # the first encrypted words may come before start_tls returns
            self.early += data
            return
        output = self.dialogue.receive(data)
        if self.server.delay_seconds:
            loop = asyncio.get_running_loop()
            loop.call_later(self.server.delay_seconds, self._write, output)
        else:
            self._write(output)
        if self.dialogue.wants_tls:
            self.dialogue.wants_tls, self.is_upgrading = False, True
            self.upgrade = asyncio.get_running_loop().create_task(self._start_tls())

    def _write(self, output: bytes) -> None:
        assert self.dialogue is not None
        if output:
            self.transport.write(output)
        if self.dialogue.is_over:
            self.transport.close()

    async def _start_tls(self) -> None:
        loop = asyncio.get_running_loop()
        assert self.server.tls is not None
        try:
            upgraded = await loop.start_tls(self.transport, self, self.server.tls, server_side=True)
        except (OSError, asyncio.CancelledError):
            return
        assert upgraded is not None
        self.transport, self.is_upgrading = upgraded, False
        self.data_received(self.early)

    def connection_lost(self, exc: Exception | None) -> None:
        assert self.dialogue is not None
        if self in self.server.connections:
            self.server.connections.discard(self)
            self.dialogue.closed()


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until `condition` holds; fail when it does not in time."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)


def a_destination(*hosts: Host, **settings: object) -> Destination:
    fixed: dict[str, object] = {"key": "test", "helo_name": "mail.sender.test", "tls": "none"}
    return Destination(hosts=hosts, **{**fixed, **settings})  # type: ignore[arg-type]
