"""What a person sees of a start: lines, and a bar while mail goes out. Writes to stderr only,
so that stdout stays for the account.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TextIO

BAR_WIDTH = 32
PLAIN_SECONDS = 5.0  #: how often a line is printed where there is no terminal


def bar(done: int, total: int, width: int = BAR_WIDTH) -> str:
    """A bar of `width` characters; full only when all is done."""
    filled = width * done // total if total else 0
    return "█" * filled + "·" * (width - filled)


class Screen:
    """A terminal, or a log without cursor movements."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._open_line = False
        self._printed_at = 0.0
        self._started = time.monotonic()

    def say(self, text: str) -> None:
        """Print a line of its own."""
        self._close_line()
        self._write(f"{text}\n")

    def step(self, text: str) -> None:
        """Print a line with the seconds since the start."""
        self.say(f"{time.monotonic() - self._started:6.1f} s  {text}")

    def progress(self, done: int, total: int, text: str) -> None:
        """Show how far it is: redrawn in a terminal, a line now and then elsewhere."""
        now = time.monotonic()
        if self._is_terminal:
            line = f"{bar(done, total)} {done:,}/{total:,}  {text}"
            self._write(f"\r\x1b[2K{line}")
            self._open_line = True
        elif now - self._printed_at >= PLAIN_SECONDS:
            self._printed_at = now
            self.step(f"{done:,} of {total:,}  {text}")

    def _close_line(self) -> None:
        if self._open_line:
            self._write("\n")
            self._open_line = False

    def _write(self, text: str) -> None:
        # The terminal may be closed while we stop what runs: that must go on, unseen.
        with contextlib.suppress(OSError):
            self._stream.write(text)
            self._stream.flush()
