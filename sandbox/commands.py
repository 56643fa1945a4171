"""Reading SMTP commands: paths, parameters and chunk sizes.

Pure. Parses what stands in a command line, and answers with a value or with the reply that
the line deserves; keeps no state of the conversation.

RFC 5321 section 4.1.2 (syntax); parameters: RFC 1870 SIZE, RFC 6152 8BITMIME, RFC 3030
BINARYMIME and BDAT, RFC 6531 SMTPUTF8, RFC 3461 DSN.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sandbox.providers import Provider

PATH_AT_MOST_BYTES = 256  #: RFC 5321 section 4.5.3.1.3, with its angle brackets
LOCAL_PART_AT_MOST_BYTES = 64  #: RFC 5321 section 4.5.3.1.1

_PATH = rb'<((?:"(?:[^"\\]|\\.)*"|[^<>"])*)>((?: .*)?)'
_FROM = re.compile(rb"FROM: ?" + _PATH, re.IGNORECASE | re.DOTALL)
_TO = re.compile(rb"TO: ?" + _PATH, re.IGNORECASE | re.DOTALL)
_SOURCE_ROUTE = re.compile(rb"@[^:]*:")
_CHUNK = re.compile(rb"([0-9]{1,12})( LAST)?", re.IGNORECASE)
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a command is not obeyed, as the reply says it."""

    reply: bytes


@dataclass(frozen=True, slots=True)
class Sender:
    """MAIL FROM."""

    path: str
    size_bytes: int
    is_binary: bool
    is_utf8: bool


BAD_SYNTAX = Objection(b"501 5.5.4 Syntax error in parameters\r\n")
BAD_PATH = Objection(b"501 5.1.3 Bad address syntax\r\n")
NEEDS_UTF8 = Objection(b"553 5.6.7 Address is not ASCII, and SMTPUTF8 was not asked for\r\n")
UNKNOWN_PARAMETER = Objection(b"555 5.5.4 Unsupported parameter\r\n")

_DSN_FOR_SENDER = {"RET", "ENVID"}
_DSN_FOR_RECIPIENT = {"NOTIFY", "ORCPT"}


def parse_sender(argument: bytes, provider: Provider) -> Sender | Objection:
    """Read what follows MAIL."""
    match = _FROM.fullmatch(argument)
    if match is None:
        return BAD_SYNTAX
    size, is_binary, is_utf8 = 0, False, False
    for parameter in match[2].decode("latin-1").split():
        keyword, _, value = parameter.partition("=")
        match keyword.upper(), value.upper():
            case "SIZE", digits if digits.isdecimal() and len(digits) <= 20:
                size = int(digits)
            case "BODY", "7BIT":
                pass
            case "BODY", "8BITMIME" if provider.offers("8BITMIME"):
                pass
            case "BODY", "BINARYMIME" if provider.offers("BINARYMIME"):
                is_binary = True
            case "SMTPUTF8", "" if provider.offers("SMTPUTF8"):
                is_utf8 = True
            case word, _ if word in _DSN_FOR_SENDER and provider.offers("DSN"):
                pass
            case _:
                return UNKNOWN_PARAMETER
    path = _checked(match[1], is_utf8=is_utf8) if match[1] else ""
    return path if isinstance(path, Objection) else Sender(path, size, is_binary, is_utf8)


def parse_recipient(argument: bytes, provider: Provider, *, is_utf8: bool) -> str | Objection:
    """Read what follows RCPT."""
    match = _TO.fullmatch(argument)
    if match is None:
        return BAD_SYNTAX
    for parameter in match[2].decode("latin-1").split():
        keyword = parameter.partition("=")[0].upper()
        if keyword not in _DSN_FOR_RECIPIENT or not provider.offers("DSN"):
            return UNKNOWN_PARAMETER
    if match[1].lower() == b"postmaster":
        return "postmaster"
    return _checked(match[1], is_utf8=is_utf8)


def parse_chunk(argument: bytes) -> tuple[int, bool] | Objection:
    """Read what follows BDAT: how many bytes come, and whether they are the last."""
    match = _CHUNK.fullmatch(argument.strip())
    if match is None:
        return BAD_SYNTAX
    return int(match[1]), match[2] is not None


def _checked(path: bytes, *, is_utf8: bool) -> str | Objection:
    """A mailbox with a domain, or why it is none."""
    if path.startswith(b"@"):
        path = _SOURCE_ROUTE.sub(b"", path, count=1)
    local_part, _, domain = path.rpartition(b"@")
    if not local_part or not domain or len(path) > PATH_AT_MOST_BYTES - 2:
        return BAD_PATH
    if len(local_part) > LOCAL_PART_AT_MOST_BYTES or _CONTROL.search(path) or b" " in domain:
        return BAD_PATH
    if path.isascii():
        return path.decode("ascii")
    if not is_utf8:
        return NEEDS_UTF8
    try:
        return path.decode("utf-8")
    except UnicodeDecodeError:
        return BAD_PATH
