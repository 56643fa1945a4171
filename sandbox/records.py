"""What is worth keeping of a conversation: contents taken, and recipients refused."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Accepted:
    """A content for which the server said 250, or would have if the reply had not been lost."""

    provider: str
    host: str
    peer: str
    helo: str
    tls: str  #: protocol version, "" for plain text
    return_path: str
    recipients: tuple[str, ...]
    content: bytes
    received_at: float  #: seconds since the epoch


@dataclass(frozen=True, slots=True)
class Refused:
    """Recipients turned away with a 4yz or a 5yz."""

    provider: str
    recipients: tuple[str, ...]
    code: int
    text: str
    refused_at: float  #: seconds since the epoch


Record = Accepted | Refused
