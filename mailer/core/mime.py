"""The MIME structure of a message: which parts, in which order, between which boundaries.

Decides between one text part and multipart/alternative (RFC 2046 section 5.1.4: plainest
first). Bodies are quoted-printable, where `=` stands only before hex digits or a line's
end, so a boundary that begins with `=_` cannot occur in one. Never encodes: parts come in
as `mailer.core.quoted` makes them.
"""

from __future__ import annotations

from hashlib import sha256

from mailer.core import quoted

VERSION = "MIME-Version: 1.0\r\n"
_ENCODING = "Content-Transfer-Encoding: quoted-printable\r\n"
_TEXT = f"Content-Type: text/plain; charset=utf-8\r\n{_ENCODING}"
_HTML = f"Content-Type: text/html; charset=utf-8\r\n{_ENCODING}"

#: The content fields of a message that is one text part.
SINGLE_TEXT_FIELDS = f"{VERSION}{_TEXT}"


def boundary_for(seed: str) -> str:
    """Derive a boundary; the same seed gives the same one."""
    return f"=_{sha256(seed.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"


def alternative_fields(boundary: str) -> str:
    """The content fields of a message with a text part and an HTML part."""
    return f'{VERSION}Content-Type: multipart/alternative;\r\n boundary="{boundary}"\r\n'


def alternative_body(boundary: str, text: str, html: str) -> str:
    """Join two encoded parts into a body."""
    return (
        f"--{boundary}\r\n{_TEXT}\r\n{text}\r\n"
        f"--{boundary}\r\n{_HTML}\r\n{html}\r\n"
        f"--{boundary}--\r\n"
    )


def single_body(text: str) -> str:
    """Make one encoded part a body. Blank lines at its end are dropped."""
    return quoted.ended(text)
