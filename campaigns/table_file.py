"""Reads a table from a text file of any size in constant memory, row by row.

Decides nothing about recipients: it finds the encoding (one pass over the bytes), the
delimiter and the header, and then yields each row with the line where it begins. A row that
cannot be read (broken quotes, endless line) is yielded as such, and reading goes on at the
next line. What makes the whole file unreadable is `UnreadableFile`, one clear sentence.
RFC 4180, and the ways in which files differ from it.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import errno
import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from campaigns.core import text_format
from campaigns.core.text_format import Encoding

_CHUNK_BYTES = 1 << 20
_MAX_LINE_CHARS = 1 << 18
_MAX_ROW_CHARS = 1 << 18  #: a quote that is never closed may not swallow the file
_SAMPLE_LINES = 50


class UnreadableFile(ValueError):
    """Nothing of the file can be read; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row as cells, or, where `problem` says why, as raw text only."""

    line: int
    cells: list[str]
    raw: str
    end_bytes: int  #: how much of the file had been read, roughly
    problem: str = ""


@dataclass(frozen=True, slots=True)
class TableFile:
    """A file that can be read, and how."""

    path: Path
    size_bytes: int
    encoding: Encoding
    delimiter: str
    header: tuple[str, ...]
    header_end: int  #: number of the header's last line

    def records(self) -> Iterator[Record]:
        """Every row after the header; empty lines are no rows."""
        with _opened(self.path, self.encoding) as stream:
            lines = _Lines(stream)
            lines.skip(self.header_end)
            yield from _records(lines, self.delimiter)


def open_table(path: Path, *, encoding: str = "", delimiter: str = "") -> TableFile:
    """Find out how to read the file; `encoding` and `delimiter` overrule what is found."""
    try:
        size, found = _inspect(path)
        if encoding:
            found = _forced(path, encoding)
        return _with_header(path, size, found, _asked_delimiter(delimiter))
    except OSError as problem:
        raise UnreadableFile(why_unreadable(path, problem)) from problem


def why_unreadable(path: Path, problem: OSError) -> str:
    """The operating system's objection in words that help."""
    match problem.errno:
        case errno.ENOENT:
            return f"There is no file {path}."
        case errno.EISDIR:
            return f"{path} is a folder, not a file."
        case errno.EACCES | errno.EPERM:
            return f"{path} may not be read by this user: check its permissions."
        case _:
            return f"{path} cannot be read: {problem.strerror or problem}."


def _asked_delimiter(written: str) -> str:
    try:
        return text_format.delimiter_from(written) if written else ""
    except ValueError as problem:
        raise UnreadableFile(str(problem)) from problem


def _inspect(path: Path) -> tuple[int, Encoding]:
    """Read all bytes once, keeping none: is it text, and in which encoding?"""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "Is a directory")
    with path.open("rb") as file:
        head = file.read(text_format.SAMPLE_BYTES)
        if not head.strip():
            raise UnreadableFile(f"{path} is empty.")
        what = text_format.why_binary(head)
        if what:
            raise UnreadableFile(f"{path} is not a text file but {what}.")
        marked = text_format.encoding_by_mark(head)
        size = file.seek(0, 2)
        if marked is not None and marked.name != "utf-8-sig":
            _must_decode(path, marked.name)
            return size, marked
        file.seek(0)
        found = _encoding_of(iter(lambda: file.read(_CHUNK_BYTES), b""))
    if marked is not None:  # the mark settles it; bad bytes damage their rows only
        note = found.note if found.name == "utf-8" else _DAMAGED
        return size, Encoding("utf-8-sig", note)
    return size, found


_DAMAGED = "some bytes are not UTF-8, although the file is marked so; their rows were set aside."


def _encoding_of(chunks: Iterator[bytes]) -> Encoding:
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    good = bad = 0
    found: set[int] = set()
    for chunk in itertools.chain(chunks, [b""]):
        text = decoder.decode(chunk, final=not chunk)
        if text.isascii():
            continue
        outside = len(text) - len(text.encode("ascii", "ignore"))
        broken = [ord(char) & 0xFF for char in text if "\udc80" <= char <= "\udcff"]
        good, bad = good + outside - len(broken), bad + len(broken)
        found.update(broken)
    return text_format.encoding_by_bytes(good, bad, frozenset(found))


def _forced(path: Path, encoding: str) -> Encoding:
    """The encoding a person asked for, if it exists and fits."""
    try:
        "a".encode(encoding)  # refuses base64 and the like, which are codecs but no encodings
        b"a".decode(encoding, "replace")  # and idna, which reads no damaged text
        name = codecs.lookup(encoding).name
    except (LookupError, ValueError):
        raise UnreadableFile(f"There is no encoding of text called “{encoding}”.") from None
    # The mark of a file that has one is no part of its first column's name.
    name = {"utf-8": "utf-8-sig"}.get(name, name)
    _must_decode(path, name)
    return Encoding(name)


def _must_decode(path: Path, name: str) -> None:
    position = 0
    try:
        decoder = codecs.getincrementaldecoder(name)("strict")
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                decoder.decode(chunk)
                position += len(chunk)
            decoder.decode(b"", final=True)
    except UnicodeError as problem:
        start = position + getattr(problem, "start", 0)
        raise UnreadableFile(
            f"{path} is not {name.removesuffix('-sig')} text: it cannot be decoded near byte "
            f"{start:,}. Leave the encoding out to have it found, or save the file as UTF-8."
        ) from problem


def _opened(path: Path, encoding: Encoding) -> TextIO:
    # Line ends inside quotes are content: csv wants them untranslated.
    errors = "surrogateescape" if encoding.name in ("utf-8", "utf-8-sig") else "replace"
    return path.open("r", encoding=encoding.name, errors=errors, newline="")


def _with_header(path: Path, size: int, encoding: Encoding, delimiter: str) -> TableFile:
    with _opened(path, encoding) as stream:
        sample = _first_lines(_Lines(stream))
    start = next((index for index, line in enumerate(sample) if line.strip()), None)
    if start is None:
        raise UnreadableFile(f"{path} is empty.")
    declared = _declared_delimiter(sample[start])
    if declared:
        start += 1
    delimiter = delimiter or declared or text_format.sniff_delimiter(sample[start:])
    with _opened(path, encoding) as stream:
        lines = _Lines(stream)
        lines.skip(start)
        header = next(_records(lines, delimiter), None)
        end = lines.number
    if header is None:
        raise UnreadableFile(f"{path} has no line with the names of its columns.")
    if header.problem:
        raise UnreadableFile(f"The first line of {path} cannot be read: {header.problem}")
    return TableFile(path, size, encoding, delimiter, tuple(header.cells), end)


def _first_lines(lines: _Lines) -> list[str]:
    sample: list[str] = []
    with contextlib.suppress(StopIteration, _EndlessRow):
        while len(sample) < _SAMPLE_LINES:
            next(lines)
            sample.append(lines.forget())
    return sample


def _declared_delimiter(line: str) -> str:
    """Excel writes `sep=;` above a table whose delimiter is unusual."""
    line = line.rstrip("\r\n")
    return line[4] if len(line) == 5 and line.lower().startswith("sep=") else ""


class _EndlessRow(Exception):
    """The row is longer than any real row."""


class _Lines:
    """Lines of the stream, numbered; remembers those of the row that is being read."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._again: deque[str] = deque()
        self.number = 0  #: of the line handed out last
        self.taken: list[str] = []
        self._taken_chars = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._read()
        if not line:
            raise StopIteration
        self.number += 1
        self.taken.append(line)
        self._taken_chars += len(line)
        if self._taken_chars > _MAX_ROW_CHARS:
            raise _EndlessRow
        return line

    @property
    def read_bytes(self) -> int:
        return self._stream.buffer.tell()

    def skip(self, count: int) -> None:
        for _ in itertools.islice(self, count):
            self.forget()

    def forget(self) -> str:
        """Begin a new row; return the text of the one that ended."""
        raw = self.taken[0] if len(self.taken) == 1 else "".join(self.taken)
        self.taken, self._taken_chars = [], 0
        return raw

    def rewind_to_second(self) -> str:
        """Give back all lines of the row but its first, which is returned."""
        first, *rest = self.taken
        self._again.extendleft(reversed(rest))
        self.number -= len(rest)
        self.taken, self._taken_chars = [], 0
        return first

    def _read(self) -> str:
        line = self._stream.readline(_MAX_LINE_CHARS)
        if len(line) == _MAX_LINE_CHARS and not line.endswith(("\n", "\r")):
            while rest := self._stream.readline(_MAX_LINE_CHARS):
                if rest.endswith(("\n", "\r")):
                    break
            return line + "\n"  # longer than a row may be: it is set aside
        return line


def _records(lines: _Lines, delimiter: str) -> Iterator[Record]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        start = lines.number + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except (csv.Error, _EndlessRow) as problem:
            several = len(lines.taken) > 1
            # A quote that is never closed costs its own line, not those that follow.
            raw = lines.rewind_to_second()
            yield Record(start, [], raw, lines.read_bytes, _why_broken(problem, several=several))
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            continue
        raw = lines.forget()
        if cells and not (len(cells) == 1 and not cells[0].strip()):
            yield Record(start, cells, raw, lines.read_bytes)


def _why_broken(problem: Exception, *, several: bool) -> str:
    text = str(problem)
    if several or "unexpected end of data" in text:
        return "A quoted field that begins on this line is never closed."
    if isinstance(problem, _EndlessRow) or "field larger than" in text:
        return "The line is too long for a row of a table."
    return "Its quotes are broken: a quote inside a quoted field has to be doubled."
