"""Recipient addresses: what a person typed, made into an address, a key and a domain; or why not.

Pure: no DNS. Whether the domain takes mail is found out by routing.

Addresses come by the million, and nearly all are plain ASCII. Those take the short way: one
regular expression for what RFC 5321 section 4.1.2 calls a dot-string at a domain. International
domains go through the email-validator library (IDNA, RFC 5891). Refused is what the standards
allow and no mailbox of a list needs: quoted local parts, address literals, and local parts
outside ASCII, which every server on the way would have to support (RFC 6531).

`address` keeps the local part as written, since only the receiving server may say that letter
case means nothing (RFC 5321 section 2.4). `key`, which tells recipients apart, is in lower case
altogether: in practice `Ann@example.com` and `ann@example.com` are one person, and writing to
both would be writing twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from email_validator import EmailNotValidError, validate_email

#: RFC 5321 section 4.5.3.1: octets of a local part, and of a path without its brackets.
LOCAL_PART_BYTES = 64
ADDRESS_BYTES = 254

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_LOCAL_PART = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_PLAIN = re.compile(
    rf"({_ATOM}(?:\.{_ATOM})*)@((?:{_LABEL}\.)+[A-Za-z](?:[A-Za-z0-9-]{{0,61}}[A-Za-z0-9]))"
)

#: No mail ever gets there. `test` and `example` are reserved too, and are where sandboxes live.
_DEAD_ENDS = frozenset({"arpa", "invalid", "local", "localhost", "onion"})

#: What spreadsheets and web pages leave around an address, beside what `str.strip` knows.
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"


class InvalidAddress(ValueError):
    """Mail cannot be sent to this text; the message says why, in words for a marketer."""


@dataclass(frozen=True, slots=True)
class Address:
    address: str  #: as mail is sent to it: the local part as written, the domain in ASCII
    key: str  #: in lower case; two addresses with one key are one recipient
    domain: str  #: ASCII, in lower case


def parse_address(text: str) -> Address:
    """Read one address. Raises `InvalidAddress`."""
    trimmed = text.strip().strip(_INVISIBLE).strip()
    plain = _PLAIN.fullmatch(trimmed)
    if plain is not None:
        local_part, domain = plain[1], plain[2].lower()
    else:
        local_part, domain = _dissected(trimmed)
    if len(local_part) > LOCAL_PART_BYTES:
        raise InvalidAddress(
            f"the part before the @ is longer than the {LOCAL_PART_BYTES} characters allowed"
        )
    address = f"{local_part}@{domain}"
    if len(address) > ADDRESS_BYTES:
        raise InvalidAddress(f"the address is longer than the {ADDRESS_BYTES} characters allowed")
    if domain.rpartition(".")[2] in _DEAD_ENDS:
        raise InvalidAddress(f"{domain} is a name for internal use that no mail can reach")
    return Address(address, address.lower(), domain)


def _dissected(text: str) -> tuple[str, str]:
    """The slow way: find an international domain, or the reason to give."""
    _refuse_what_is_no_address(text)
    local_part, _, domain = text.rpartition("@")
    _refuse_what_is_no_local_part(local_part)
    if len(domain) > ADDRESS_BYTES:  # before the library sees it: its work grows with the length
        raise InvalidAddress(f"the address is longer than the {ADDRESS_BYTES} characters allowed")
    try:
        found = validate_email(f"a@{domain}", check_deliverability=False, test_environment=True)
    except EmailNotValidError as problem:
        raise InvalidAddress(_in_our_words(problem)) from None
    ascii_domain = found.ascii_domain.lower()
    if not _PLAIN.fullmatch(f"a@{ascii_domain}"):
        raise InvalidAddress(f"{domain[:60]} is not the name of a mail domain")
    return local_part, ascii_domain


def _refuse_what_is_no_address(text: str) -> None:
    if not text:
        raise InvalidAddress("there is no address")
    if not text.isprintable():
        raise InvalidAddress("the address holds an invisible control character")
    if "<" in text or ">" in text:
        raise InvalidAddress("give the address alone, without a name and angle brackets")
    if '"' in text:
        raise InvalidAddress("addresses with quotation marks are not supported")
    if "@" not in text:
        raise InvalidAddress("the address has no @")
    if "," in text or ";" in text:
        raise InvalidAddress("there is a comma or semicolon: one address at a time")
    if any(char.isspace() for char in text):
        raise InvalidAddress("the address holds a space")
    if text.count("@") > 1:
        raise InvalidAddress("the address has more than one @")


def _refuse_what_is_no_local_part(local_part: str) -> None:
    if not local_part:
        raise InvalidAddress("nothing stands before the @")
    if not local_part.isascii():
        raise InvalidAddress(
            "the part before the @ holds letters outside a to z, which mail servers rarely accept"
        )
    if local_part.startswith(".") or local_part.endswith(".") or ".." in local_part:
        raise InvalidAddress("the part before the @ begins or ends with a dot, or has two in a row")
    if not _LOCAL_PART.fullmatch(local_part):
        strange = sorted({char for char in local_part if not _LOCAL_PART.fullmatch(char)} - {"."})
        raise InvalidAddress(
            f"the part before the @ holds {' '.join(strange)}, which no mail takes"
        )


def _in_our_words(problem: EmailNotValidError) -> str:
    text = str(problem).replace("@-sign", "@").replace("An email address", "the address")
    return (text[:1].lower() + text[1:]).rstrip(".")
