"""The transport's twin without a network: mail servers that follow a script, in memory.

Everything is real (the pool, the sessions, the conversation) except the socket and what comes
before the first envelope. `ServerDialogue` is a whole small SMTP server without I/O, so the same
script can also be spoken over a real socket. For tests and rehearsals; never sends anything.

Faults are addresses: a script says by recipient (or, for MAIL, by return path) what happens.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from deliverability.core.outcome import Phase, Reply
from mailer.core.reply_lines import ReplyReader
from mailer.core.smtp_commands import Abilities
from mailer.transport.door import Destination, Host, Unreached
from mailer.transport.pool import NoConnection, PooledTransport
from mailer.transport.session import Session

HANGS_UP = ""  #: instead of a reply: the server closes the connection
IS_SILENT = "-"  #: instead of a reply: the server never says anything again

MODERN = ("PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE 50000000", "ENHANCEDSTATUSCODES")


@dataclass(frozen=True, slots=True)
class Treatment:
    """What one address meets: a reply (lines parted by CRLF), `HANGS_UP` or `IS_SILENT`."""

    mail: str = "250 2.1.0 Ok"  #: asked of the return path's treatment, not the recipient's
    rcpt: str = "250 2.1.5 Ok"
    data: str = "354 Go ahead"
    content: str = "250 2.0.0 Ok: queued"


@dataclass(frozen=True, slots=True)
class Received:
    return_path: str
    recipient: str
    content: bytes  #: with its dots unstuffed


@dataclass(slots=True)
class ServerScript:
    """How a server behaves, and what it got."""

    treatments: Mapping[str, Treatment] = field(default_factory=dict)
    greeting: str = "220 mx.test ESMTP"
    offers: tuple[str, ...] = MODERN
    speaks_esmtp: bool = True
    credentials: tuple[str, str] | None = None
    messages_per_connection: int = 0  #: further ones meet 421; 0 for no limit
    is_careless: bool = False  #: answers DATA with 354 even when it refused the recipient
    flushes_on_error: bool = False  #: forgets what was pipelined behind a refused recipient
    inbox: list[Received] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    empty_contents: int = 0  #: lone dots: content for nobody
    connections: int = 0
    open_connections: int = 0
    most_connections: int = 0

    def treatment_of(self, address: str) -> Treatment:
        return self.treatments.get(address, Treatment())


class ServerDialogue:
    """The server's side of one connection: bytes in, bytes out."""

    def __init__(self, script: ServerScript) -> None:
        self.script = script
        self.is_over = False
        self.wants_tls = False
        self._is_silent = False
        self._buffer = b""
        self._taken = 0
        self._return_path: str | None = None
        self._recipient: str | None = None
        self._treatment = Treatment()
        self._in_content = False
        self._login: list[str] | None = None
        script.connections += 1
        script.open_connections += 1
        script.most_connections = max(script.most_connections, script.open_connections)

    def greet(self) -> bytes:
        self.is_over = not self.script.greeting.startswith("220")
        return self.script.greeting.encode() + b"\r\n"

    def closed(self) -> None:
        self.script.open_connections -= 1

    def receive(self, data: bytes) -> bytes:
        """Take in bytes; return the replies, in order."""
        self._buffer += data
        output: list[str] = []
        while not self.is_over and not self._is_silent:
            reply = self._step()
            if reply is None:
                break
            if reply in (HANGS_UP, IS_SILENT):
                self.is_over, self._is_silent = reply == HANGS_UP, reply == IS_SILENT
                break
            self.is_over = self.is_over or reply.startswith("421")
            output.append(reply + "\r\n")
            if self.wants_tls:
                self._buffer = b""
                break
        return "".join(output).encode()

    def _step(self) -> str | None:
        """Answer the next command or content; None when it is not complete."""
        if self._in_content:
            return self._take_content()
        line, end, rest = self._buffer.partition(b"\r\n")
        if not end:
            return None
        self._buffer = rest
        return self._answer(line.decode())

    def _answer(self, line: str) -> str:
        self.script.commands.append(line)
        if self._login is not None:
            return self._continue_login(line)
        verb = line.split(" ", 1)[0].upper()
        address = line.partition("<")[2].partition(">")[0]
        match verb:
            case "EHLO" if self.script.speaks_esmtp:
                return "\r\n".join(self._offers())
            case "MAIL":
                return self._mail(address)
            case "RCPT":
                return self._rcpt(address)
            case "DATA":
                return self._data()
            case "AUTH":
                return self._auth(line.split(" ")[1:])
            case _:
                return self._plain_command(verb)

    def _plain_command(self, verb: str) -> str:
        if verb == "QUIT":
            self.is_over = True
            return "221 2.0.0 Bye"
        if verb == "STARTTLS" and "STARTTLS" in self.script.offers:
            self.wants_tls = True
            return "220 2.0.0 Ready to start TLS"
        if verb in ("RSET", "NOOP", "HELO"):
            self._return_path = self._recipient = None
            return "250 2.0.0 Ok"
        return "502 5.5.2 Command not recognized"

    def _offers(self) -> list[str]:
        lines = ["mx.test", *self.script.offers]
        return [f"250-{line}" for line in lines[:-1]] + [f"250 {lines[-1]}"]

    def _mail(self, address: str) -> str:
        limit = self.script.messages_per_connection
        if limit and self._taken >= limit:
            return "421 4.7.0 Too many messages for this connection"
        if self._return_path is not None:
            return "503 5.5.1 Error: nested MAIL command"
        reply = self.script.treatment_of(address).mail
        if reply.startswith("2"):
            self._return_path = address
        return reply

    def _rcpt(self, address: str) -> str:
        if self._return_path is None:
            return "503 5.5.1 Error: need MAIL command"
        self._treatment = self.script.treatment_of(address)
        if self._treatment.rcpt.startswith("2"):
            self._recipient = address
        elif self.script.flushes_on_error:
            self._buffer = b""
        return self._treatment.rcpt

    def _data(self) -> str:
        if self._recipient is None and not self.script.is_careless:
            return "503 5.5.1 Error: need RCPT command"
        reply = self._treatment.data if self._recipient is not None else "354 Go ahead"
        self._in_content = reply.startswith("354")
        return reply

    def _take_content(self) -> str | None:
        if self._buffer.startswith(b".\r\n"):
            content, self._buffer = b"", self._buffer[3:]
        else:
            content, end, rest = self._buffer.partition(b"\r\n.\r\n")
            if not end:
                return None
            content, self._buffer = content + b"\r\n", rest
        self._in_content = False
        return self._deliver(content)

    def _deliver(self, content: bytes) -> str:
        return_path, recipient = self._return_path, self._recipient
        self._return_path = self._recipient = None
        if recipient is None:
            self.script.empty_contents += 1
            return "554 5.5.1 Error: no valid recipients"
        self._taken += 1
        # A server that hangs up or falls silent here may well have taken the message.
        if self._treatment.content in (HANGS_UP, IS_SILENT) or self._treatment.content[0] == "2":
            unstuffed = content.replace(b"\r\n..", b"\r\n.").removeprefix(b".")
            self.script.inbox.append(Received(return_path or "", recipient, unstuffed))
        return self._treatment.content

    def _auth(self, words: list[str]) -> str:
        mechanism = words[0].upper() if words else ""
        if mechanism == "PLAIN" and len(words) == 2:
            _, username, password = base64.b64decode(words[1]).decode().split("\0")
            return self._authenticated(username, password)
        if mechanism == "LOGIN" and len(words) == 2:
            self._login = [base64.b64decode(words[1]).decode()]
            return "334 UGFzc3dvcmQ6"
        return "504 5.5.4 Unrecognized authentication type"

    def _continue_login(self, line: str) -> str:
        (username,) = self._login or [""]
        self._login = None
        return self._authenticated(username, base64.b64decode(line).decode())

    def _authenticated(self, username: str, password: str) -> str:
        if (username, password) == self.script.credentials:
            return "235 2.7.0 Authentication successful"
        return "535 5.7.8 Authentication credentials invalid"


class MemoryTransport(PooledTransport):
    """A transport to scripted servers, found by IP address."""

    def __init__(self, servers: Mapping[str, ServerScript], *, connections: int = 200) -> None:
        super().__init__(MemoryDialler(servers), connections=connections)


class MemoryDialler:
    def __init__(self, servers: Mapping[str, ServerScript]) -> None:
        self._servers = servers

    async def dial(self, destination: Destination, host: Host) -> Session:
        script = self._servers.get(host.address)
        if script is None:
            reply = Reply(0, "", f"nobody listens at {host.address}", Phase.CONNECT)
            raise NoConnection(Unreached(reply, host.name))
        dialogue = ServerDialogue(script)
        greeting = ReplyReader().read(dialogue.greet())[0]
        if greeting.code != 220:
            dialogue.closed()
            raise NoConnection(Unreached(greeting.told(Phase.GREETING), host.name))
        offers = dict(offer.partition(" ")[::2] for offer in script.offers if script.speaks_esmtp)
        loop = asyncio.get_running_loop()
        abilities = Abilities.of(offers)
        session = Session(host, abilities, destination.timeouts, destination.limits, loop)
        session.attach(MemoryLink(dialogue, loop))
        return session


class MemoryLink(asyncio.Transport):
    """A socket's place: what is written reaches the dialogue, its replies come back later."""

    def __init__(self, dialogue: ServerDialogue, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._dialogue = dialogue
        self._loop = loop
        self._protocol: asyncio.Protocol | None = None
        self._is_closing = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast(asyncio.Protocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol

    def is_closing(self) -> bool:
        return self._is_closing

    def write(self, data: Any) -> None:
        if self._is_closing:
            return
        output = self._dialogue.receive(bytes(data))
        if output:
            self._loop.call_soon(self._deliver, output)
        if self._dialogue.is_over:
            self._loop.call_soon(self.close)

    def _deliver(self, output: bytes) -> None:
        if not self._is_closing and self._protocol is not None:
            self._protocol.data_received(output)

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._loop.call_soon(self._lose)

    def abort(self) -> None:
        self.close()

    def _lose(self) -> None:
        self._dialogue.closed()
        if self._protocol is not None:
            self._protocol.connection_lost(None)
