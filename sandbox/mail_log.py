"""The append-only log of what the servers took and refused: the truth about received mail.

One write per call, finished before it returns, so that a killed process loses nothing it has
answered for. Each record is a line with two lengths, a JSON object, the content, and a LF.
A record torn by a kill was never answered for; it is cut off when the log is opened.

The disk of a machine that loses power is not waited for (no fsync).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.headers import header_block
from sandbox.records import Accepted, Record, Refused

_HEAD = re.compile(rb"([AR]) ([0-9]{1,9}) ([0-9]{1,12})\n")
_HEAD_AT_MOST_BYTES = 32
_HEADER_GUESS_BYTES = 4096
_BUFFERS_AT_MOST = 512  #: below IOV_MAX of every system


class LogDamaged(ValueError):
    """There is no record where one should begin."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A record as it lies in the log."""

    offset: int
    kind: str  #: "A" for accepted, "R" for refused
    facts: dict[str, Any]
    content_offset: int
    content_bytes: int

    @property
    def end(self) -> int:
        return self.content_offset + self.content_bytes + 1


class MailLog:
    """One file, written at its end by one process, read anywhere by any thread."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self.end = os.fstat(self._file).st_size

    def append(self, records: Sequence[Record]) -> None:
        """Hand all records to the operating system. Raises OSError and keeps none if it fails."""
        buffers: list[bytes] = []
        for record in records:
            buffers += _laid_out(record)
        try:
            written = sum(
                self._write(buffers[i : i + _BUFFERS_AT_MOST])
                for i in range(0, len(buffers), _BUFFERS_AT_MOST)
            )
        except OSError:
            os.ftruncate(self._file, self.end)
            raise
        self.end += written

    def _write(self, buffers: list[bytes]) -> int:
        total = sum(map(len, buffers))
        written = os.writev(self._file, buffers)
        if written < total:
            rest = memoryview(b"".join(buffers))[written:]
            while rest:
                rest = rest[os.write(self._file, rest) :]
        return total

    def entry_at(self, offset: int) -> Entry:
        """Read the record that begins at `offset`, without its content."""
        start = os.pread(self._file, 2048, offset)
        match = _HEAD.match(start[:_HEAD_AT_MOST_BYTES])
        if match is None:
            raise LogDamaged(f"no record at {offset}")
        facts_bytes, content_bytes = int(match[2]), int(match[3])
        raw = start[match.end() : match.end() + facts_bytes]
        if len(raw) < facts_bytes:
            raw = os.pread(self._file, facts_bytes, offset + match.end())
        content_offset = offset + match.end() + facts_bytes
        end = content_offset + content_bytes
        if len(raw) < facts_bytes or os.pread(self._file, 1, end) != b"\n":
            raise LogDamaged(f"the record at {offset} is torn")
        return Entry(offset, match[1].decode(), json.loads(raw), content_offset, content_bytes)

    def entries(self, start: int, end: int) -> Iterator[Entry]:
        """All records from one offset up to another."""
        while start < end:
            entry = self.entry_at(start)
            yield entry
            start = entry.end

    def content(self, entry: Entry) -> bytes:
        return os.pread(self._file, entry.content_bytes, entry.content_offset)

    def header(self, entry: Entry) -> bytes:
        """The header block of the content; reads no more than is needed."""
        size = min(_HEADER_GUESS_BYTES, entry.content_bytes)
        while True:
            beginning = os.pread(self._file, size, entry.content_offset)
            if b"\r\n\r\n" in beginning or size >= entry.content_bytes:
                return header_block(beginning)
            size = min(size * 4, entry.content_bytes)

    def cut(self, end: int) -> None:
        """Forget everything from `end` on."""
        os.ftruncate(self._file, end)
        self.end = end

    def close(self) -> None:
        os.close(self._file)


def _laid_out(record: Record) -> tuple[bytes, bytes, bytes, bytes]:
    if isinstance(record, Refused):
        kind, content = b"R", b""
        facts: dict[str, Any] = {
            "provider": record.provider,
            "recipients": record.recipients,
            "code": record.code,
            "text": record.text,
            "at": record.refused_at,
        }
    else:
        kind, content = b"A", record.content
        facts = _facts(record)
    raw = json.dumps(facts).encode()
    return b"%s %d %d\n" % (kind, len(raw), len(content)), raw, content, b"\n"


def _facts(record: Accepted) -> dict[str, Any]:
    return {
        "provider": record.provider,
        "host": record.host,
        "peer": record.peer,
        "helo": record.helo,
        "tls": record.tls,
        "return_path": record.return_path,
        "recipients": record.recipients,
        "at": record.received_at,
    }
