"""SMTP on the network: one protocol object per connection, around a `Conversation`.

Decides nothing about mail. Keeps the order that everything else relies on: first the records
are kept, then the replies are written, all those of one read in one write.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from typing import Any

from sandbox.conversation import Conversation, Ending
from sandbox.mailstore import Keeper

log = logging.getLogger(__name__)

_WAITING_AT_MOST_BYTES = 1 << 20  #: beyond this a client whose reply is delayed is not read
_LINGER_SECONDS = 1.0
_HANDSHAKE_SECONDS = 30.0


class SmtpConnection(asyncio.Protocol):
    """One client."""

    def __init__(
        self,
        begin: Callable[[str, float], Conversation],
        keeper: Keeper,
        tls_context: ssl.SSLContext,
        connections: set[SmtpConnection],
    ) -> None:
        """`begin` makes a conversation from the peer's address and the time."""
        self._begin = begin
        self._keeper = keeper
        self._tls_context = tls_context
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._handshake: asyncio.Task[None] | None = None
        self._early: list[bytes] = []
        self._is_ending = False
        self._transport: Any = None
        self._heard_at = self._loop.time()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._connections.add(self)
        self._keeper.note_connection()
        peer = transport.get_extra_info("peername")
        self._conversation = self._begin(peer[0] if peer else "", time.time())
        self._settle()

    def data_received(self, data: bytes) -> None:
        if self._is_ending:
            return
        if self._handshake is not None:
            self._early.append(data)
            return
        self._heard_at = self._loop.time()
        self._conversation.receive(data, time.time())
        self._settle()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_ending = True
        self._connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        if not self._is_ending:
            self._transport.resume_reading()

    def has_been_idle_for(self, seconds: float) -> bool:
        """The client had the word for that long and said nothing."""
        return self._timer is None and self._loop.time() - self._heard_at > seconds

    def shut_down(self) -> None:
        """Say 421 and end."""
        if self._is_ending or self._handshake is not None:
            self._transport.abort()
            return
        self._conversation.delayed = None
        self._conversation.shut_down()
        self._settle()

    def _settle(self) -> None:
        """Carry out what the conversation laid out."""
        conversation = self._conversation
        if conversation.records and not self._has_kept():
            return
        if conversation.output:
            self._transport.write(bytes(conversation.output))
            conversation.output.clear()
        if conversation.delayed is not None:
            if self._timer is None:
                self._timer = self._loop.call_later(conversation.delayed[0], self._reply_is_due)
            if conversation.waiting_bytes > _WAITING_AT_MOST_BYTES:
                self._transport.pause_reading()
        elif conversation.ending is not None:
            self._end(conversation.ending)

    def _has_kept(self) -> bool:
        try:
            self._keeper.append(self._conversation.records)
        except OSError:
            # Nothing was promised yet, so the client will try again.
            log.exception("received mail cannot be kept")
            self._is_ending = True
            self._transport.abort()
            return False
        self._conversation.records.clear()
        return True

    def _reply_is_due(self) -> None:
        self._timer = None
        self._transport.resume_reading()
        self._conversation.reply_is_due(time.time())
        self._settle()

    def _end(self, ending: Ending) -> None:
        if ending is Ending.START_TLS:
            # At once: the next bytes belong to the handshake.
            self._transport.pause_reading()
            self._handshake = self._loop.create_task(self._start_tls())
            return
        self._is_ending = True
        if ending is Ending.CLOSE and self._transport.can_write_eof():
            # A socket closed with unread input is reset, and the client might lose the last
            # reply; so its input is read and ignored for a moment.
            self._transport.write_eof()
        else:
            self._transport.close()
        self._timer = self._loop.call_later(_LINGER_SECONDS, self._transport.abort)

    async def _start_tls(self) -> None:
        try:
            transport = await self._loop.start_tls(
                self._transport,
                self,
                self._tls_context,
                server_side=True,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS,
            )
        except (OSError, asyncio.CancelledError):
            self._transport.abort()
            return
        if transport is None:
            return
        self._transport = transport
        self._handshake = None
        self._conversation.tls_is_up(transport.get_extra_info("ssl_object").version())
        early, self._early = b"".join(self._early), []
        if early:
            self.data_received(early)


async def end_idle_connections(connections: set[SmtpConnection], idle_seconds: float) -> None:
    """End clients that say nothing; for ever, until cancelled."""
    while True:
        await asyncio.sleep(min(idle_seconds, 10.0))
        for connection in list(connections):
            if connection.has_been_idle_for(idle_seconds):
                connection.shut_down()
