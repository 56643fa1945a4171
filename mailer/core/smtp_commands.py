"""What goes on the wire for one envelope: its commands, and its content made transparent.

Decides which parameters a server's abilities allow, and refuses here, in words for a person,
what that server could not carry. Never sends, never changes a byte of content that a signature
may cover: content that is not ready for the wire is refused, not repaired.

RFC 5321 section 4.1.1, RFC 1870 (SIZE), RFC 6152 (8BITMIME), RFC 6531 (SMTPUTF8).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deliverability.core.outcome import Phase, Reply
from mailer.core.envelope import Envelope

DATA = b"DATA\r\n"
RSET = b"RSET\r\n"
QUIT = b"QUIT\r\n"
END_OF_CONTENT = b".\r\n"


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the server's answer to EHLO offered, as far as sending needs it."""

    pipelining: bool = False
    eight_bit: bool = False
    smtputf8: bool = False
    size: bool = False
    size_limit_bytes: int = 0  #: 0 when the server told none
    chunking: bool = False

    @classmethod
    def of(cls, extensions: Mapping[str, str]) -> Abilities:
        """Read them from keywords (any case) and their parameters."""
        offered = {keyword.lower(): value for keyword, value in extensions.items()}
        limit = offered.get("size", "").strip()
        is_limit = limit.isascii() and limit.isdigit() and len(limit) <= 20  # RFC 1870, section 3
        return cls(
            pipelining="pipelining" in offered,
            eight_bit="8bitmime" in offered,
            smtputf8="smtputf8" in offered,
            size="size" in offered,
            size_limit_bytes=int(limit) if is_limit else 0,
            chunking="chunking" in offered,
        )


@dataclass(frozen=True, slots=True)
class Commands:
    mail: bytes
    rcpt: bytes


def commands_for(envelope: Envelope, abilities: Abilities) -> Commands | Reply:
    """Return the envelope's commands, or the reply with which we refuse it ourselves."""
    is_ascii = envelope.return_path.isascii() and envelope.recipient.isascii()
    is_seven_bit = envelope.content.isascii()
    refusal = _refusal(envelope, abilities, is_ascii=is_ascii, is_seven_bit=is_seven_bit)
    if refusal is not None:
        return refusal
    parameters = b""
    if abilities.size:
        parameters = b" SIZE=%d" % len(envelope.content)
    if abilities.eight_bit and not is_seven_bit:
        parameters += b" BODY=8BITMIME"
    if not is_ascii:
        parameters += b" SMTPUTF8"
    return Commands(
        b"MAIL FROM:<%b>%b\r\n" % (envelope.return_path.encode(), parameters),
        b"RCPT TO:<%b>\r\n" % envelope.recipient.encode(),
    )


def wire_content(envelope: Envelope) -> bytes:
    """Return the content with leading dots doubled (RFC 5321 section 4.5.2)."""
    content = envelope.content
    if envelope.is_dot_safe:
        return content
    stuffed = content.replace(b"\r\n.", b"\r\n..")
    return b"." + stuffed if stuffed.startswith(b".") else stuffed


def _refusal(
    envelope: Envelope, abilities: Abilities, *, is_ascii: bool, is_seven_bit: bool
) -> Reply | None:
    if not is_ascii:
        refusal = _address_refusal(envelope, abilities)
        if refusal is not None:
            return refusal
    if not is_seven_bit and not abilities.eight_bit:
        return _refused(554, "5.6.3", "the server does not offer 8BITMIME, which the content needs")
    limit = abilities.size_limit_bytes
    if limit and len(envelope.content) > limit:
        return _refused(552, "5.3.4", f"{len(envelope.content)} octets, the server takes {limit}")
    if not envelope.content.endswith(b"\r\n"):
        return _refused(554, "5.6.0", "the content does not end with CRLF")
    # Content that promises to be dot-safe comes from our own compiler, which tests prove: looking
    # through it again would double what sending costs.
    if not envelope.is_dot_safe and not _has_clean_line_ends(envelope.content):
        return _refused(554, "5.6.0", "the content holds a CR or LF that stands alone")
    return None


def _address_refusal(envelope: Envelope, abilities: Abilities) -> Reply | None:
    """Refuse addresses that are not ASCII where they cannot be said."""
    is_return_path = not envelope.return_path.isascii()
    whose, phase = ("return path", Phase.MAIL) if is_return_path else ("recipient", Phase.RCPT)
    try:
        (envelope.return_path + envelope.recipient).encode()
    except UnicodeEncodeError:
        return _refused(553, "5.1.3", f"the {whose} is not text", phase)
    if not abilities.smtputf8:
        text = f"the server does not offer SMTPUTF8, which the {whose} needs"
        return _refused(553, "5.6.7", text, phase)
    return None


def _has_clean_line_ends(content: bytes) -> bool:
    """Lone CR or LF is what one server passes on and the next takes for a line's end."""
    pairs = content.count(b"\r\n")
    return content.count(b"\r") == pairs == content.count(b"\n")


def _refused(code: int, enhanced: str, text: str, phase: Phase = Phase.DATA) -> Reply:
    return Reply(code, enhanced, f"not sent: {text}", phase)
