"""Cutting what a client sends into command lines, contents and chunks.

Pure. Only CRLF ends a line and only CRLF "." CRLF ends a content (RFC 5321 sections 2.3.8 and
4.1.1.4), so that a bare CR or LF can neither end a message early nor smuggle in a second one.
What is read is dropped when `compact` is called, once per read from the network.
"""

from __future__ import annotations

import enum
import re

LINE_AT_MOST_BYTES = 2048  #: RFC 5321 section 4.5.3.1.4 asks for 512 and what the extensions add

# Patterns, since they are twice as fast here as `find` and `in`.
_TERMINATOR = re.compile(rb"\r\n\.\r\n")
_TERMINATOR_BYTES = 5
_STUFFED_DOT = re.compile(rb"\r\n\.")


class Flaw(enum.Enum):
    """Why there is no line or content, though its end, or enough of it, came."""

    LINE_TOO_LONG = enum.auto()
    BARE_LF = enum.auto()
    TOO_BIG = enum.auto()


class Wire:
    """The bytes of one client, in order."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._position = 0
        self._searched = 0  #: up to here there is no terminator; valid after `compact`
        self._is_skipping_line = False
        self._is_too_big = False

    def __len__(self) -> int:
        """How many bytes wait to be read."""
        return len(self._buffer) - self._position

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def compact(self) -> None:
        """Free what was read."""
        del self._buffer[: self._position]
        self._position = 0

    def drop(self) -> None:
        """Forget all that waits."""
        self._position = len(self._buffer)

    def read_line(self) -> bytes | Flaw | None:
        """A command line without its CRLF; None until it is complete."""
        buffer, start = self._buffer, self._position
        end = buffer.find(b"\r\n", start)
        if self._is_skipping_line:
            # A CR at the end may be half of the CRLF.
            self._position = end + 2 if end >= 0 else max(start, len(buffer) - 1)
            self._is_skipping_line = end < 0
            return None if end < 0 else self.read_line()
        line = bytes(buffer[start : end if end >= 0 else start + LINE_AT_MOST_BYTES + 1])
        if len(line) > LINE_AT_MOST_BYTES:
            self._is_skipping_line = True
            return Flaw.LINE_TOO_LONG
        if b"\n" in line:
            return Flaw.BARE_LF
        if end < 0:
            return None
        self._position = end + 2
        return line

    def begin_content(self) -> None:
        """Content follows the line just read; that line's CRLF may be part of its end."""
        self._position -= 2
        self._searched = 0
        self._is_too_big = False

    @property
    def has_content(self) -> bool:
        """Some content has come since `begin_content`."""
        return len(self) > 2

    def read_content(self, at_most_bytes: int) -> bytes | Flaw | None:
        """The content of DATA with its dots unstuffed; None until it is complete."""
        buffer, start = self._buffer, self._position
        terminator = _TERMINATOR.search(buffer, max(start, self._searched))
        if terminator is None:
            if len(buffer) - start > at_most_bytes + _TERMINATOR_BYTES:
                self._is_too_big = True
                self._position = len(buffer) - _TERMINATOR_BYTES + 1
            self._searched = max(0, len(self) - _TERMINATOR_BYTES + 1)
            return None
        end = terminator.start()
        self._position = terminator.end()
        if self._is_too_big or end - start > at_most_bytes:
            return Flaw.TOO_BIG
        content = bytes(buffer[start : end + 2])
        if _STUFFED_DOT.search(content) is not None:
            content = content.replace(b"\r\n.", b"\r\n")
        return content[2:]

    def read_bytes(self, at_most: int) -> bytes:
        """The next bytes of a chunk, as many as there are."""
        start = self._position
        taken = bytes(self._buffer[start : start + at_most])
        self._position += len(taken)
        return taken
