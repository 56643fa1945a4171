"""Rows of an imported table: which column is the address, and what a row says.

Pure. A header becomes `Columns`; a row becomes a `RecipientRow` or a `RejectedRow` with the
reason in words for the person who sent the file. Never repairs an address or guesses at a
shifted row: what is not sure is set aside, and one bad row never harms another.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from campaigns.core.addresses import Address, InvalidAddress, parse_address

MAX_FIELD_CHARS = 5_000  #: longer values are a broken row, not a merge field
MAX_COLUMNS = 500
MAX_NAME_CHARS = 100
MAX_RAW_CHARS = 2_000  #: how much of a row that was set aside is kept

# The surest names first: "address" alone may well be a street.
_ADDRESS_NAMES = (
    "email",
    "e_mail",
    "email_address",
    "e_mail_address",
    "mail",
    "mail_address",
    "emailaddress",
    "e_mailaddress",
    "correo",
    "correo_electronico",
    "direccion_de_correo",
    "courriel",
    "adresse_mail",
    "adresse_email",
    "adresse_e_mail",
    "adresse_electronique",
    "mail_adresse",
    "e_mail_adresse",
    "email_adresse",
    "mailadresse",
    "emailadresse",
    "e_mailadresse",
    "posta_elettronica",
    "indirizzo_email",
    "indirizzo_e_mail",
    "endereco_de_email",
    "e_mailadres",
    "e_posta",
    "eposta",
    "epost",
    "adres_e_mail",
    "adres_email",
    "recipient",
    "subscriber",
    "address",
)
_RANK = {name: rank for rank, name in enumerate(_ADDRESS_NAMES)}


class NoAddressColumn(ValueError):
    """No column of the header holds addresses; the text says which columns there are."""


@dataclass(frozen=True, slots=True)
class Columns:
    """What the header says: a merge field name for each column, and where the address is."""

    names: tuple[str, ...]
    address: int


@dataclass(frozen=True, slots=True)
class RecipientRow:
    """A good row. `attributes` holds the cells that are not empty."""

    line: int
    address: Address
    attributes: dict[str, str]


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that is set aside: where it begins, why, and what it said."""

    line: int
    reason: str
    raw: str


def field_name(header: str) -> str:
    """The merge field name that a column's header becomes: "First Name" is `first_name`.

    A name that would begin with a digit gets `field_` before it, since templates could not
    speak of it otherwise.
    """
    text = unicodedata.normalize("NFKC", header).lower()
    spoken = "".join(char if f"a{char}".isidentifier() else "_" for char in text)
    name = re.sub("__+", "_", spoken).strip("_")[:MAX_NAME_CHARS].rstrip("_")
    return name if not name or name.isidentifier() else f"field_{name}"


def columns_from(header: Sequence[str]) -> Columns:
    """Read the header; raise `NoAddressColumn` where no column can be the addresses."""
    if len(header) > MAX_COLUMNS:
        raise NoAddressColumn(
            f"The first line has {len(header):,} columns, more than {MAX_COLUMNS}: "
            "this does not look like a table of recipients."
        )
    found = [(rank, index) for index, cell in enumerate(header) if (rank := _rank(cell)) >= 0]
    if not found:
        raise NoAddressColumn(_no_address(header))
    _, address = min(found)
    return Columns(_distinct(header), address)


def row_from(columns: Columns, cells: Sequence[str], *, line: int, raw: str) -> Row:
    """Read one row of cells."""
    reason = _damage(columns, cells)
    if reason:
        return rejected(line, reason, raw)
    try:
        address = parse_address(cells[columns.address].strip())
    except InvalidAddress as problem:
        return rejected(line, _sentence(str(problem)), raw)
    attributes = {
        name: value
        for index, (name, cell) in enumerate(zip(columns.names, cells, strict=True))
        if index != columns.address and (value := cell.strip())
    }
    return RecipientRow(line, address, attributes)


def rejected(line: int, reason: str, raw: str) -> RejectedRow:
    """Set a row aside; its text is cut and made storable (no NUL, no undecodable bytes)."""
    text = raw[:MAX_RAW_CHARS].rstrip("\r\n").replace("\x00", "\N{SYMBOL FOR NULL}")
    return RejectedRow(line, reason[:300], _UNDECODED.sub("\N{REPLACEMENT CHARACTER}", text))


Row = RecipientRow | RejectedRow

_UNDECODED = re.compile("[\ud800-\udfff]")


def _damage(columns: Columns, cells: Sequence[str]) -> str:
    """What is wrong with the row as such, or ""."""
    if len(cells) != len(columns.names):
        return (
            f"It has {len(cells)} {'column' if len(cells) == 1 else 'columns'}, "
            f"the first line of the file has {len(columns.names)}."
        )
    whole = "".join(cells)
    if "\x00" in whole:
        return "It holds a NUL byte."
    if not whole.isascii() and _UNDECODED.search(whole):
        return "It holds bytes that are not text in the file's encoding."
    if len(whole) > MAX_FIELD_CHARS:
        for name, cell in zip(columns.names, cells, strict=True):
            if len(cell) > MAX_FIELD_CHARS:
                return f"{name} is {len(cell):,} characters long; {MAX_FIELD_CHARS:,} are allowed."
    if not cells[columns.address].strip():
        return "The address is empty."
    return ""


def _rank(header: str) -> int:
    """How surely a column of that name holds addresses: 0 is surest, -1 is not at all."""
    name = _folded(field_name(header))
    if name in _RANK:
        return _RANK[name]
    # "Subscriber email", "email 1": after every plain name, but before nothing at all.
    parts = set(name.split("_"))
    return len(_RANK) if "email" in parts or {"e", "mail"} <= parts else -1


def _folded(name: str) -> str:
    """`name` without accents, for comparing only."""
    split = unicodedata.normalize("NFKD", name)
    return "".join(char for char in split if not unicodedata.combining(char))


def _distinct(header: Sequence[str]) -> tuple[str, ...]:
    """One name per column: unnamed and repeated ones are numbered by their place."""
    names: list[str] = []
    for place, cell in enumerate(header, start=1):
        name = field_name(cell) or f"column_{place}"
        names.append(f"{name}_{place}" if name in names else name)
    return tuple(names)


def _no_address(header: Sequence[str]) -> str:
    if any(_is_address(cell) for cell in header):
        return (
            "The first line holds an address instead of column names: put a line such as "
            "“email,first_name” above it."
        )
    shown = ", ".join(f"“{cell.strip()[:40]}”" for cell in header[:20] if cell.strip())
    more = f" and {len(header) - 20} more" if len(header) > 20 else ""
    return (
        f"No column holds addresses. The columns found are {shown or 'all without a name'}{more}; "
        "name the one with the addresses “email”."
    )


def _is_address(cell: str) -> bool:
    try:
        parse_address(cell.strip())
    except InvalidAddress:
        return False
    return True


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."
