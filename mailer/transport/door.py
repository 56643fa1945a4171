"""The door to other people's mail servers: what is asked of a transport, and what it answers.

Pure types. A feeder (delivery) hands envelopes out one by one and is told, exactly once for each
one taken, what came of it. Nothing here decides what a reply means or whether to try again.

`transport.smtp` is the real thing, `transport.memory` its twin without a network.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from deliverability.core.outcome import Phase, Reply
from mailer.core.envelope import Envelope

TlsPolicy = Literal["none", "opportunistic", "required"]


@dataclass(frozen=True, slots=True)
class Host:
    """One server to try: connected to by address, known (SNI, certificate, records) by name."""

    name: str
    address: str  #: an IP address, never a name: who resolves decides whom we may reach
    port: int = 25

    def __post_init__(self) -> None:
        ipaddress.ip_address(self.address)

    @property
    def is_loopback(self) -> bool:
        address = ipaddress.ip_address(self.address)
        mapped = getattr(address, "ipv4_mapped", None)
        return (mapped or address).is_loopback


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait for the server, in seconds. RFC 5321 section 4.5.3.2, mostly shorter."""

    connect_seconds: float = 60.0
    greeting_seconds: float = 30.0
    command_seconds: float = 60.0
    data_reply_seconds: float = 600.0  #: 10 minutes, as the RFC asks: giving up means doubt


@dataclass(frozen=True, slots=True)
class Limits:
    """What one process may use of a destination."""

    connections: int = 20
    messages_per_connection: int = 100
    idle_seconds: float = 30.0  #: how long a connection is kept warm

    def __post_init__(self) -> None:
        if self.connections < 1 or self.messages_per_connection < 1:
            raise ValueError("need at least one connection and one message on it")


@dataclass(frozen=True, slots=True)
class Destination:
    """Where to send and as whom. Two equal keys from one source share warm connections."""

    key: str  #: such as "gmail" or a domain; part of the identity of the connections
    hosts: tuple[Host, ...]  #: in order of preference
    helo_name: str
    #: Destinations of one path share `limits.connections`, such as all of a source at a provider.
    #: "": this destination alone.
    path: str = ""
    source_address: str | None = None  #: the local IP address to send from
    tls: TlsPolicy = "opportunistic"
    verify_certificate: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    oauth_token: Callable[[], Awaitable[str]] | None = field(default=None, repr=False)
    is_loopback_only: bool = False  #: the sandbox: no packet may leave this machine
    timeouts: Timeouts = Timeouts()
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class Replied:
    """The server accepted or refused the message.

    A message that this server could not carry at all (SMTPUTF8, SIZE) is refused in the same
    words, by ourselves; such a text begins with "not sent:".
    """

    reply: Reply
    host: str
    seconds: float  #: from handing over what the reply answers to reading it


@dataclass(frozen=True, slots=True)
class Unreached:
    """No server could be brought to take or refuse the message; no content went out.

    `reply` holds what was met: the greeting that refused us, or code 0 and why in words.
    """

    reply: Reply
    host: str

    @property
    def phase(self) -> Phase:
        return self.reply.phase

    @property
    def text(self) -> str:
        return self.reply.text


@dataclass(frozen=True, slots=True)
class Unsent:
    """The message's turn did not come. No attempt was made; it may be sent again at once."""

    why: str
    #: The connection ended before the message's turn; the transport takes another one by itself,
    #: a feeder sees this only when there is none.
    is_lost: bool = False


@dataclass(frozen=True, slots=True)
class InDoubt:
    """The content went out and the reply was lost: delivered or not, nobody knows."""

    why: str
    host: str


Result = Replied | Unreached | Unsent | InDoubt


class Feed(Protocol):
    """Where a transport takes envelopes from. All three are called in the loop; none may block."""

    def next(self) -> Envelope | None:
        """Hand out the next envelope; None when there is none now."""

    def starting(self, envelope: Envelope) -> None:
        """The content is about to be handed to the socket. If this raises, it is not sent."""

    def settle(self, envelope: Envelope, result: Result) -> None:
        """Say what came of an envelope: exactly once for each that `next` handed out."""


@dataclass(frozen=True, slots=True)
class SendReport:
    """What one call of `send` did with connections."""

    opened: int = 0
    reused: int = 0
    kept: int = 0  #: connections to the destination that are still open in this process
    #: Why the feed was left with envelopes in it: no connection could be made, or none would
    #: last. None when the feed ran empty or the sending was stopped.
    unreached: Unreached | None = None


class Transport(Protocol):
    async def send(self, destination: Destination, feed: Feed, connections: int) -> SendReport:
        """Send what the feed hands out, over at most `connections` connections.

        Returns when the feed is empty and every envelope settled, or when no connection can be
        had. Cancelling it stops the taking of envelopes; those whose content is out are still
        settled, later, by the transport.
        """

    async def close(self, grace_seconds: float) -> None:
        """Take nothing more, wait for replies that are due, then settle what is left."""
