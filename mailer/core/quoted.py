"""Quoted-printable, in pieces that can be joined: how text becomes lines of a message body.

Decides how every character of a body is written (RFC 2045 section 6.7). Each piece begins
and ends at column 0 (a soft line break closes it where its text does not end a line), so
pieces prepared in advance and pieces made per message join by plain concatenation.

What every result keeps, whatever the text: ASCII only; lines of at most 76 characters; no
tab, no run of two spaces and no space at a line's end, so the relaxed body canonical form
of DKIM (RFC 6376 section 3.4.4) is the body itself; no line that begins with a dot, so
nothing has to be stuffed for SMTP (RFC 5321 section 4.5.2); no line that begins with
"From ", which old mailbox software alters; `=` only before two hex digits or a line's end,
so that `=_` never occurs and may begin a boundary.

What does not survive: CRLF and a lone CR both become the line end; NUL and other control
characters (but tab) become a space each; half of a surrogate pair becomes U+FFFD.
"""

from __future__ import annotations

import re
from binascii import b2a_qp

_SOFT_BREAK = "=\r\n"
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
# A full line that does not cut an escape, or what is left of a line. A full line has 73
# characters, to leave room for its soft break and for an escaped first character: 73 + 1 + 2.
_LINE = re.compile(rb"(?=.{74}).{71,73}(?<!=)(?<!=.)|.*\n|.+")
_plain_text = re.compile(r"(?!\.|From )[ -<>-~]{1,73}").fullmatch
_plain_html = re.compile(r"(?!\.|From )[ !#-%(-;?-~]{1,73}").fullmatch


def normalised(text: str) -> str:
    """Give `text` the one form that a body can carry: `\\n` line ends, no control characters."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if _CONTROL.search(text):
        text = _CONTROL.sub(" ", text)
    return without_surrogates(text)


def without_surrogates(text: str) -> str:
    """Join surrogate pairs and replace halves by U+FFFD: UTF-8 can hold neither."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def encode(text: str) -> str:
    """Encode normalised `text`, from column 0 to column 0."""
    if not text:
        return ""
    # The C encoder breaks lines by its own rules; its breaks are undone and made anew below.
    data = b2a_qp(text.encode(), quotetabs=False, istext=True).replace(b"=\n", b"")
    data = data.replace(b"\t", b"=09").replace(b"  ", b" =20").replace(b" \n", b"=20\n")
    data = b"\n" + b"=\n".join(_LINE.findall(data)) + b"=\n"
    data = data.replace(b"\n=\n", b"\n")
    data = data.replace(b"\n.", b"\n=2E").replace(b"\nFrom ", b"\n=46rom ")
    return data[1:].replace(b"\n", b"\r\n").decode("ascii")


def encode_value(value: str) -> str:
    """Encode the value of one hole in a text part."""
    if _plain_text(value) and "  " not in value:
        return value + _SOFT_BREAK
    return encode(normalised(value))


def is_plain_in_html(value: str) -> bool:
    """Say whether `value` needs neither HTML escaping nor quoted-printable, only a soft break."""
    return _plain_html(value) is not None and "  " not in value


def broken_softly(value: str) -> str:
    """Close a plain value so that what follows begins at column 0."""
    return value + _SOFT_BREAK


def finished(encoded: str) -> str:
    """Take away the soft break at the very end of a part: there is nothing left to join."""
    if not encoded.endswith(_SOFT_BREAK):
        return encoded
    encoded = encoded[: -len(_SOFT_BREAK)]
    if encoded.endswith(" "):
        return f"{encoded[:-1]}{_SOFT_BREAK}=20"
    return encoded


def ended(encoded: str) -> str:
    """Make `encoded` a whole body: without blank lines at its end, and ending in CRLF.

    The relaxed canonical form drops blank lines at the end of a body and ends what is left.
    """
    body = encoded.rstrip("\r\n")
    if not body:
        return ""
    return finished(body + "\r\n").removesuffix("\r\n") + "\r\n"
