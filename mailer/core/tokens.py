"""Tokens: short signed texts in links and addresses that say which message they came from.

Decides what a token holds and whether one is ours: HMAC-SHA256 (RFC 2104), cut to 96 bits,
over the purpose and every field, so that a token made for one purpose is refused for any
other. Never decides whether a token is too old (it carries the mailing's day, the caller
judges) and holds no address or name. Only lower-case letters, digits and dots: mail servers
that lower-case a local part leave it intact, and no reader cuts it at the end of a link.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

_MAC_BYTES = 12
_MIN_KEY_BYTES = 16
_CONTEXT = b"postroad.token.1:"
_form = re.compile(
    r"([a-z])([0-9a-f]{1,6})\.([0-9a-f]{1,16})\.([0-9a-f]{1,16})\.([0-9a-f]{1,16})\.([0-9a-f]{24})"
).fullmatch


class InvalidToken(ValueError):
    """Not a token that any of the keys has signed for this purpose."""


class Purpose(StrEnum):
    """What a token lets its bearer do. The letter is part of what is signed."""

    UNSUBSCRIBE = "u"
    CLICK = "c"
    OPEN = "o"
    VIEW = "v"
    CONFIRM = "n"


@dataclass(frozen=True, slots=True)
class Token:
    """What a genuine token says. `recipient_id` is 0 where the message has no recipient row."""

    purpose: Purpose
    mailing_day: date
    mailing_id: int
    message_id: int
    recipient_id: int = 0


def sign(
    key: bytes,
    purpose: Purpose,
    mailing_day: date,
    mailing_id: int,
    message_id: int,
    recipient_id: int = 0,
) -> str:
    """Make a token, about 50 characters. Ids are at least 0, keys at least 16 bytes."""
    if len(key) < _MIN_KEY_BYTES:
        raise ValueError(f"a signing key needs at least {_MIN_KEY_BYTES} bytes")
    if min(mailing_id, message_id, recipient_id) < 0:
        raise ValueError("ids in a token are not negative")
    claim = (
        f"{purpose.value}{mailing_day.toordinal():x}.{mailing_id:x}.{message_id:x}.{recipient_id:x}"
    )
    return f"{claim}.{_mac(key, claim)}"


def read(keys: Sequence[bytes], token: str, *, purpose: Purpose) -> Token:
    """Read a token that any of `keys` has signed for `purpose`, or raise `InvalidToken`.

    Give the newest key first and keep old ones as long as their links should work.
    """
    parts = _form(token)
    if parts is None or parts[1] != purpose.value:
        raise InvalidToken("the link is damaged or was made for something else")
    claim, _, mac = token.rpartition(".")
    if not any(hmac.compare_digest(_mac(key, claim), mac) for key in keys):
        raise InvalidToken("the link was not signed by this installation")
    ordinal, mailing_id, message_id, recipient_id = (int(parts[n], 16) for n in range(2, 6))
    if not 1 <= ordinal <= date.max.toordinal():
        raise InvalidToken("the link names a day that does not exist")
    return Token(purpose, date.fromordinal(ordinal), mailing_id, message_id, recipient_id)


def _mac(key: bytes, claim: str) -> str:
    return hmac.digest(key, _CONTEXT + claim.encode("ascii"), "sha256")[:_MAC_BYTES].hex()
