"""Which process is which: a pid alone does not say, because the system gives it out again.

A process is recognised by pid, start time and a word from its command line, so that nothing is
ever signalled that we did not start. Reads /proc on Linux, asks `ps` elsewhere.
Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Facts:
    """What the system says of a pid now."""

    started: str  #: opaque; equal for the same process, different for the pid's next owner
    command: str


@dataclass(frozen=True, slots=True)
class Identity:
    """What we wrote down of a process when we started it."""

    pid: int
    started: str
    marker: str  #: a word of its command line

    def is_still(self, facts: Facts | None) -> bool:
        """Say whether the pid's present owner is the process we started."""
        if facts is None or not self.started:
            return False
        return facts.started == self.started and self.marker in facts.command


def facts_of(pid: int) -> Facts | None:
    """What runs as `pid`; None when nothing does, or only a zombie."""
    return _facts_from_proc(pid) if sys.platform.startswith("linux") else _facts_from_ps(pid)


def _facts_from_proc(pid: int) -> Facts | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
    # The second field is the name in brackets and may hold anything (proc(5)).
    fields = stat[stat.rindex(")") + 2 :].split()
    if fields[0] in "ZX":
        return None
    command = raw.replace(b"\0", b" ").decode("utf-8", "replace")
    return Facts(started=f"{boot}:{fields[19]}", command=command)


def _facts_from_ps(pid: int) -> Facts | None:
    shown = subprocess.run(
        ["ps", "-o", "stat=,lstart=,command=", "-p", str(pid)],
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
        check=False,
    ).stdout.strip()
    fields = shown.split(None, 6)
    if len(fields) < 7 or fields[0].startswith("Z"):
        return None
    return Facts(started=" ".join(fields[1:6]), command=fields[6])


def identify(pid: int, marker: str) -> Identity:
    """Write down who `pid` is. A process that ended already gets an identity nobody has."""
    facts = facts_of(pid)
    return Identity(pid=pid, started=facts.started if facts else "", marker=marker)


def is_running(identity: Identity) -> bool:
    return identity.is_still(facts_of(identity.pid))


def await_true(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until `condition` holds, `seconds` at most; say whether it does."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def end(identity: Identity, steps: tuple[tuple[signal.Signals, float], ...]) -> bool:
    """Send each signal in turn, with its seconds of patience, until the process is gone."""
    for number, seconds in steps:
        if not is_running(identity):
            return True
        with contextlib.suppress(ProcessLookupError):
            os.kill(identity.pid, number)
        if await_true(lambda: not is_running(identity), seconds):
            return True
    return not is_running(identity)


def working_in(folder: Path) -> Iterator[int]:
    """The pids whose working directory is `folder`. Linux only; elsewhere none are known."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if Path(os.readlink(entry / "cwd")) == folder:
                yield int(entry.name)
