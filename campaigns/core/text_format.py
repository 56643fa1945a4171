"""What kind of text a file is: its encoding, and what separates its columns.

Pure: decides from bytes, counts and a few lines that the caller has read. Byte order marks
and UTF-8 are certain; a file that is not UTF-8 is taken for Windows-1252 (or Latin-1, where
it uses the five bytes that Windows-1252 leaves open), and `Encoding.note` says so. A file
that is UTF-8 but for a few bytes stays UTF-8: only the rows with those bytes are damaged.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Sequence
from dataclasses import dataclass

SAMPLE_BYTES = 65_536
DELIMITERS = (",", ";", "\t", "|")
DELIMITER_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}

_MARKS = (
    # UTF-32's mark begins with UTF-16's: it must be looked at first.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_KNOWN_FILES = (
    (b"PK\x03\x04", "a workbook or a zip archive: save the sheet as CSV first"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook: save the sheet as CSV first"),
    (b"\x1f\x8b", "compressed: unpack it first"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"\x7fELF", "a program"),
    (b"SQLite format 3\x00", "a database file"),
)
_TEXT_CONTROLS = b"\t\n\r\x0b\x0c\x1a"
_CONTROLS = bytes(code for code in range(32) if code not in _TEXT_CONTROLS) + b"\x7f"
_MAX_CONTROL_RATIO = 0.1
_OPEN_IN_CP1252 = frozenset(b"\x81\x8d\x8f\x90\x9d")


@dataclass(frozen=True, slots=True)
class Encoding:
    """How to decode the file. `note` is for people; "" where there is nothing to say."""

    name: str
    note: str = ""


def encoding_by_mark(head: bytes) -> Encoding | None:
    """The encoding that the first bytes prove, if they do."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return Encoding(name)
    return _utf_16_without_mark(head)


def why_binary(head: bytes) -> str:
    """Say what the file is if it is no text at all, else ""."""
    for mark, what in _KNOWN_FILES:
        if head.startswith(mark):
            return what
    controls = len(head) - len(head.translate(None, _CONTROLS))
    if encoding_by_mark(head) is None and controls > _MAX_CONTROL_RATIO * len(head):
        return "binary data"
    return ""


def encoding_by_bytes(good: int, bad: int, found: frozenset[int]) -> Encoding:
    """Decide for a file without a mark.

    `good` counts its characters outside ASCII that are valid UTF-8, `bad` the bytes that are
    not, `found` holds the values of those bytes.
    """
    if bad == 0:
        return Encoding("utf-8")
    if good >= bad:
        bytes_ = "one byte is" if bad == 1 else f"{bad:,} bytes are"
        return Encoding("utf-8", f"{bytes_} not UTF-8; the rows with such bytes were set aside.")
    if found & _OPEN_IN_CP1252:
        return Encoding("latin-1", "The file is not UTF-8; it was read as Latin-1.")
    return Encoding("cp1252", "The file is not UTF-8; it was read as Windows-1252.")


def sniff_delimiter(lines: Sequence[str]) -> str:
    """The delimiter that makes the most even table of the first lines; a comma in doubt."""
    return max(DELIMITERS, key=lambda delimiter: _evenness(lines, delimiter))


def delimiter_from(written: str) -> str:
    """The delimiter a person asked for: the character itself, or its name."""
    names = {name: char for char, name in DELIMITER_NAMES.items()} | {"\\t": "\t", "pipe": "|"}
    delimiter = names.get(written.lower(), written)
    if len(delimiter) != 1 or delimiter in '\r\n"' or delimiter.isalnum():
        raise ValueError(f"“{written}” cannot separate columns; use , ; | or tab.")
    return delimiter


def _evenness(lines: Sequence[str], delimiter: str) -> tuple[int, float, int]:
    """How good a table `delimiter` makes: more than one column, evenly, then many."""
    try:
        rows = [row for row in csv.reader(lines, delimiter=delimiter, strict=False) if row]
    except csv.Error:
        return (0, 0.0, 0)
    width = len(rows[0]) if rows else 0
    if width < 2:
        return (0, 0.0, 0)
    same = sum(len(row) == width for row in rows) / len(rows)
    return (1, round(same, 1), width)


def _utf_16_without_mark(head: bytes) -> Encoding | None:
    """Text in Latin letters as UTF-16 has a NUL in every other byte."""
    half = len(head) // 2
    if half < 8:
        return None
    even, odd = head[0::2].count(0), head[1::2].count(0)
    for name, many, few in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        if many > 0.6 * half and few < 0.05 * half:
            return Encoding(name, "The file has no byte order mark; it was read as UTF-16.")
    return None
