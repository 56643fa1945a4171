"""Reading single header fields of a message without parsing the whole of it.

Pure. RFC 5322 section 2.2: names in any case, folded lines joined. Bytes that are not ASCII
are read as UTF-8 (RFC 6532), or as Latin-1 where they are not that either.
"""

from __future__ import annotations

import re
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from functools import lru_cache

MAILING_HEADER = "X-Postroad-Mailing"  #: says which mailing a message belongs to

_FOLD = re.compile(r"\r?\n[ \t]*")


def header_block(content: bytes) -> bytes:
    """The header, up to the empty line, with a CRLF before its first field."""
    if content.startswith(b"\r\n"):
        return b""
    end = content.find(b"\r\n\r\n")
    return b"\r\n" + (content if end < 0 else content[:end])


@lru_cache(maxsize=32)
def _field(name: str) -> re.Pattern[bytes]:
    pattern = rb"\r\n" + re.escape(name.encode()) + rb"[ \t]*:[ \t]*([^\r]*(?:\r\n[ \t][^\r]*)*)"
    return re.compile(pattern, re.IGNORECASE)


def header_value(block: bytes, name: str) -> str:
    """The first field of that name in a `header_block`, unfolded; "" where there is none."""
    match = _field(name).search(block)
    if match is None:
        return ""
    raw = match[1]
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    if "\n" in text:
        text = _FOLD.sub(" ", text)
    return text.strip()


def readable(value: str) -> str:
    """Decode the encoded words of RFC 2047; leave what cannot be decoded as it is."""
    if "=?" not in value:
        return value
    try:
        return str(make_header(decode_header(value)))
    except (HeaderParseError, LookupError, UnicodeError, ValueError):
        return value
