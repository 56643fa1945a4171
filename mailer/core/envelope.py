"""The envelope: who a message is handed over for, apart from its headers.

Pure. Guards the one place where an address becomes part of an SMTP command: nothing
that RFC 5321 section 4.1.2 does not allow inside angle brackets gets into an `Envelope`,
so no address can end a command and begin another.
"""

from __future__ import annotations

from dataclasses import dataclass


class UnsafeAddress(ValueError):
    """The address holds a character that could break out of an SMTP command."""


def checked(address: str) -> str:
    """Return `address` unchanged, or raise `UnsafeAddress`.

    Refuses control characters, spaces and angle brackets even inside quoted local parts:
    RFC 5321 allows some of them there, no mailbox in use needs them.
    """
    if any(char <= " " or char in "<>\x7f" or "\x80" <= char <= "\x9f" for char in address):
        raise UnsafeAddress(f"{address!r} holds a character that no envelope may carry")
    if len(address.encode("utf-8", "surrogatepass")) > 254:
        raise UnsafeAddress(f"{address[:40]!r}… is longer than 254 octets (RFC 5321, 4.5.3.1.3)")
    return address


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message as the transport needs it.

    `content` is the whole RFC 5322 message: bytes, CRLF line ends, ending with CRLF.
    `is_dot_safe` promises that no line of it begins with a dot, so nothing has to be
    stuffed (RFC 5321 section 4.5.2).
    """

    message_id: int
    attempt_no: int
    return_path: str  #: "" for the null reverse path
    recipient: str
    content: bytes
    is_dot_safe: bool = False

    def __post_init__(self) -> None:
        checked(self.return_path)
        if "@" not in checked(self.recipient):
            raise UnsafeAddress(f"{self.recipient!r} is not an address")
