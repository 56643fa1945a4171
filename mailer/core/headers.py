"""Header fields: how a name and a value become lines that no value can escape from.

Decides folding (RFC 5322 section 2.2.3), encoded words (RFC 2047) and the form of mailboxes
(RFC 5322 section 3.4). Never lets a value end its field: every run of control characters,
CR and LF among them, and of Unicode line separators is one space before anything else is
looked at. Addresses are never repaired: what is not an address is `InvalidHeader`.
Mailboxes are ASCII on the wire: domains are written in their ASCII form (RFC 5891), local
parts outside ASCII would need SMTPUTF8 (RFC 6531) from every server on the way and are refused.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import idna

from mailer.core.quoted import without_surrogates

_LINE_CHARS = 78  #: RFC 5322, 2.1.1: should
_WORD_CHARS = 75  #: RFC 2047, section 2
_OPENING, _CLOSING = "=?utf-8?q?", "?="
_OPENING_B = "=?utf-8?b?"
_READABLE_RATIO = 1.8  #: up to this size text stays readable in Q; beyond it B is shorter
_MAX_ADDRESS_OCTETS = 254  #: RFC 5321, 4.5.3.1.3 less the angle brackets
_MAX_URI_CHARS = 900  #: keeps the line under RFC 5322's 998

_BREAKING = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_plain = re.compile(r"[!-~](?:[ -~]*[!-~])?").fullmatch
_phrase = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]*").fullmatch
_TOKENS = re.compile(r" *[^ ]+")
_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_address = re.compile(
    rf"{_ATEXT}(?:\.{_ATEXT})*@(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?\.)*"
    r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
).fullmatch
_local_part = re.compile(r"[!-~]{1,64}").fullmatch
_message_id = re.compile(rf"{_ATEXT}(?:\.{_ATEXT})*@{_ATEXT}(?:\.{_ATEXT})*").fullmatch
_uri = re.compile(r"[!-;=?-~]+").fullmatch
_field_name = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,75}").fullmatch

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]

#: Fields that the engine writes itself, that others on the way write, or that would make
#: a message speak for somebody else.
_RESERVED = frozenset(
    [
        "from",
        "sender",
        "to",
        "cc",
        "bcc",
        "reply-to",
        "subject",
        "date",
        "message-id",
        "return-path",
        "received",
        "mime-version",
        "delivered-to",
        "envelope-to",
        "errors-to",
        "feedback-id",
        "list-unsubscribe",
        "list-unsubscribe-post",
        "authentication-results",
        "received-spf",
        "domainkey-signature",
        "disposition-notification-to",
        "return-receipt-to",
        "apparently-to",
        "bounces-to",
    ]
)
_RESERVED_PREFIXES = ("content-", "dkim-", "arc-", "resent-", "x-postroad-", "x-google-dkim-")


class InvalidHeader(ValueError):
    """A header field that may not be sent; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Mailbox:
    """An address with the name shown beside it."""

    address: str
    name: str = ""


def collapsed(value: str) -> str:
    """Make `value` one line: control characters and line ends become single spaces."""
    if _plain(value):
        return value
    return without_surrogates(_BREAKING.sub(" ", value)).strip(" ")


def unstructured(name: str, value: str) -> str:
    """Build the field `name` with free text, folded and encoded as needed, ending in CRLF."""
    value = collapsed(value)
    if not value:
        return f"{name}:\r\n"
    if _plain(value) and "=?" not in value:
        if len(name) + 2 + len(value) <= _LINE_CHARS:
            return f"{name}: {value}\r\n"
        folded = _folded(name, value)
        if folded is not None:
            return folded
    return f"{name}: {_encoded(value, len(name) + 2)}\r\n"


def mailbox(name: str, box: Mailbox) -> str:
    """Build the field `name` with one mailbox; raise `InvalidHeader` if the address is none."""
    address = ascii_address(box.address)
    shown = collapsed(box.name) if box.name else ""
    if not shown:
        return f"{name}: {address}\r\n"
    phrase = _phrase_of(shown, len(name) + 2)
    last_line = phrase.rpartition("\n")[2] if "\n" in phrase else f"{name}: {phrase}"
    gap = " " if len(last_line) + len(address) + 3 <= _LINE_CHARS else "\r\n "
    return f"{name}: {phrase}{gap}<{address}>\r\n"


def ascii_address(address: str) -> str:
    """Return the address as it stands in a header, its domain in ASCII."""
    if len(address) <= _MAX_ADDRESS_OCTETS and _address(address):
        return address
    local, at, domain = address.rpartition("@")
    if not at or not _local_part(local):
        raise InvalidHeader(
            f"{address[:80]!r} is not an address that can be sent to: "
            "it needs a name of plain characters, an @ and a domain"
        )
    written = f"{_ascii_local_part(local)}@{_ascii_domain(domain)}"
    if len(written) > _MAX_ADDRESS_OCTETS:
        raise InvalidHeader(f"{address[:80]!r}… is longer than {_MAX_ADDRESS_OCTETS} octets")
    return written


def message_id(rfc_message_id: str) -> str:
    """Build the Message-ID field; angle brackets around the value may be there or not."""
    bare = rfc_message_id
    if bare.startswith("<") and bare.endswith(">"):
        bare = bare[1:-1]
    if len(bare) > 250 or not _message_id(bare):
        raise InvalidHeader(f"{rfc_message_id[:80]!r} is not a Message-ID (RFC 5322, 3.6.4)")
    return f"Message-ID: <{bare}>\r\n"


def date(moment: datetime) -> str:
    """Build the Date field, in UTC; `moment` must be aware."""
    if moment.tzinfo is None:
        raise InvalidHeader("the message's date has no time zone")
    at = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return (
        f"Date: {_DAYS[at.weekday()]}, {at.day:02d} {_MONTHS[at.month - 1]} {at.year:04d} "
        f"{at.hour:02d}:{at.minute:02d}:{at.second:02d} +0000\r\n"
    )


def list_unsubscribe(url: str, mailto: str = "") -> str:
    """Build List-Unsubscribe (RFC 2369) and, as there is a URL, its one-click twin (RFC 8058)."""
    checked_uri(url, ("https://", "http://"))
    field = f"List-Unsubscribe: <{url}>"
    if mailto:
        target = mailto if mailto.startswith("mailto:") else f"mailto:{mailto}"
        field += f",\r\n <{checked_uri(target, ('mailto:',))}>"
    return f"{field}\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"


def checked_uri(uri: str, schemes: tuple[str, ...]) -> str:
    """Return `uri` unchanged if it may stand between angle brackets."""
    if len(uri) > _MAX_URI_CHARS or not uri.startswith(schemes) or not _uri(uri):
        raise InvalidHeader(f"{uri[:80]!r} is not a URL that may stand in a header")
    return uri


def checked_name(name: str) -> str:
    """Return the name of an extra field unchanged, or raise `InvalidHeader`."""
    if not _field_name(name):
        raise InvalidHeader(
            f"{name[:80]!r} is not a header name: begin with a letter, use letters, digits and '-'"
        )
    lowered = name.lower()
    if lowered in _RESERVED or lowered.startswith(_RESERVED_PREFIXES):
        raise InvalidHeader(f"{name} is written by the engine and cannot be set by hand")
    return name


def _folded(name: str, value: str) -> str | None:
    """Fold at spaces; `None` where a word alone is longer than a line."""
    lines = [f"{name}:"]
    for token in _TOKENS.findall(f" {value}"):
        if len(lines[-1]) + len(token) <= _LINE_CHARS:
            lines[-1] += token
        elif len(token) <= _LINE_CHARS and (len(lines) > 1 or len(lines[0]) > len(name) + 1):
            lines.append(token)
        else:
            return None
    return "\r\n".join(lines) + "\r\n"


def _encoded(value: str, column: int) -> str:
    """Write `value` as encoded words, each on a line of its own, the first one at `column`."""
    room = min(_WORD_CHARS, _LINE_CHARS - 2 - column) - len(_OPENING) - len(_CLOSING)
    later = _WORD_CHARS - 1 - len(_OPENING) - len(_CLOSING)
    costs = [_q_cost(char) for char in value]
    octets = len(value.encode())
    if sum(costs) <= octets * _READABLE_RATIO:
        words = _split(value, costs, room, later)
        return "\r\n ".join(f"{_OPENING}{_q(word)}{_CLOSING}" for word in words)
    sizes = [len(char.encode()) for char in value]
    words = _split(value, sizes, room // 4 * 3, later // 4 * 3)
    return "\r\n ".join(
        f"{_OPENING_B}{b64encode(word.encode()).decode('ascii')}{_CLOSING}" for word in words
    )


def _split(value: str, costs: list[int], first_room: int, later_room: int) -> Iterator[str]:
    """Cut `value` between characters so that no piece costs more than its room."""
    start, used, room = 0, 0, first_room
    for index, cost in enumerate(costs):
        if used + cost > room:
            yield value[start:index]
            start, used, room = index, 0, later_room
        used += cost
    yield value[start:]


def _q_cost(char: str) -> int:
    if char == " " or (char.isascii() and char.isalnum()):
        return 1
    return 3 * len(char.encode())


def _q(word: str) -> str:
    """Q encoding with the few characters that RFC 2047, 5 (3) allows in a phrase."""
    return "".join(
        "_" if byte == 32 else chr(byte) if chr(byte).isalnum() and byte < 128 else f"={byte:02X}"
        for byte in word.encode()
    )


def _phrase_of(shown: str, column: int) -> str:
    if len(shown) > 60 or not _plain(shown) or "=?" in shown:
        return _encoded(shown, column)
    if _phrase(shown):
        return shown
    escaped = shown.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _ascii_local_part(local: str) -> str:
    if re.fullmatch(rf"{_ATEXT}(?:\.{_ATEXT})*", local):
        return local
    if local.startswith('"') and local.endswith('"') and len(local) > 2:
        local = re.sub(r"\\(.)", r"\1", local[1:-1])
    if any(char in '"\\<>' for char in local):
        raise InvalidHeader(f"the local part {local!r} holds a character that no header may carry")
    return f'"{local}"'


def _ascii_domain(domain: str) -> str:
    try:
        written = idna.encode(domain, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        written = domain
    if not _address(f"x@{written}"):
        raise InvalidHeader(f"{domain[:80]!r} is not a domain")
    return written
