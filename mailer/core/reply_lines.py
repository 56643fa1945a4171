"""Replies: the server's bytes become whole replies, or a named error.

Decides where a line and a reply end, and what of a line is code, status and text. Tolerant
where servers in the wild are careless (bare LF, lines longer than 512 octets, codes that change
within one reply), strict where tolerance would shift replies onto the wrong command. It never
decides which command a reply answers: `smtp` does.

RFC 5321 section 4.2.1 (multi-line replies) and 4.5.3.1.5 (lengths), RFC 2034 (enhanced codes).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from deliverability.core.outcome import Phase, Reply

LINE_LIMIT_BYTES = 8_192  #: RFC 5321 says 512; servers with long explanations exist
LINES_LIMIT = 128  #: lines in one reply; more is a server that never ends it
_OVERLONG = f"a reply line of more than {LINE_LIMIT_BYTES} octets"
TEXT_LIMIT = 2_000  #: characters of a reply that are kept

_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:[ \t]+|$)", re.MULTILINE)
# PostgreSQL refuses NUL, logs and pages suffer from the others; "\n" joins the lines of a reply.
_CONTROLS = {code: " " for code in (*range(32), *range(127, 160)) if code != ord("\n")}


class ReplyError(Exception):
    """What the server sent is not SMTP. Its fault; another connection may do better."""


class OverlongReply(ReplyError):
    """A line, or a reply of many lines, passed the limit."""


class MalformedReply(ReplyError):
    """A line does not begin with a reply code."""


class UnexpectedReply(ReplyError):
    """A reply that no command asked for, or that does not fit the command it answers."""


class RawReply(NamedTuple):
    """One whole reply, its text not looked at yet: most replies are only asked for their code.

    A tuple, because four of them are made for each message.
    """

    code: int
    lines: tuple[bytes, ...]  #: without reply codes and line ends

    def told(self, phase: Phase) -> Reply:
        """Return the reply in the words of the house."""
        return reply_of(self.code, b"\n".join(self.lines).decode("utf-8", "replace"), phase)


def reply_of(code: int, text: str, phase: Phase) -> Reply:
    """Build a `Reply` from a code and its text, whose lines may repeat the enhanced code."""
    match = _ENHANCED.match(text)
    enhanced = match[1] if match else ""
    if match:
        lines = text.split("\n")
        text = "\n".join(_ENHANCED.sub("", line, count=1) for line in lines)
    if not text.isprintable():
        text = text.translate(_CONTROLS)
    return Reply(code, enhanced, text.strip()[:TEXT_LIMIT], phase)


class ReplyReader:
    """Cuts the server's byte stream into replies, however the network cut it into pieces."""

    def __init__(self) -> None:
        self.fault: ReplyError | None = None  #: set once; nothing is read after it
        self._rest = b""
        self._lines: list[bytes] = []

    def read(self, data: bytes) -> list[RawReply]:
        """Return the replies that `data` completes; those before a fault are still good."""
        if self.fault is not None:
            return []
        *lines, self._rest = (self._rest + data).split(b"\n")
        replies: list[RawReply] = []
        try:
            for line in lines:
                self._take(line.removesuffix(b"\r"), replies)
            if len(self._rest) > LINE_LIMIT_BYTES:
                raise OverlongReply(_OVERLONG)
        except ReplyError as fault:
            self.fault = fault
            self._rest = b""
        return replies

    def _take(self, line: bytes, replies: list[RawReply]) -> None:
        if len(line) > LINE_LIMIT_BYTES:
            raise OverlongReply(_OVERLONG)
        code, separator = line[:3], line[3:4]
        is_code = len(code) == 3 and code.isdigit() and 50 <= code[0] <= 53
        if not is_code or separator not in (b"", b" ", b"-"):
            raise MalformedReply(f"not a reply line: {line[:80]!r}")
        if separator != b"-" and not self._lines:
            replies.append(RawReply(int(code), (line[4:],)))
            return
        self._lines.append(line[4:])
        if len(self._lines) > LINES_LIMIT:
            raise OverlongReply(f"a reply of more than {LINES_LIMIT} lines")
        if separator != b"-":
            # Where codes differ within a reply, the line that ends it counts, as in Postfix.
            replies.append(RawReply(int(code), tuple(self._lines)))
            self._lines = []
