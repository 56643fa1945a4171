"""One child process: how it is started, told to stop, and recognised later.

Every child has a session of its own, so that the terminal's Ctrl-C reaches only the supervisor,
which then stops the children in order. Its output goes to a log file of its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from config.local.processes import Identity, await_true, identify

LAUNCH = Path(__file__).with_name("launch.py")
ROTATE_BYTES = 10_000_000  #: a log longer than this is put aside when its process starts
KEPT_LOGS = 3

Steps = tuple[tuple[signal.Signals, float], ...]
TERMINATE: Steps = ((signal.SIGTERM, 10), (signal.SIGKILL, 5))


@dataclass(frozen=True, slots=True)
class Spec:
    """Everything needed to start one process."""

    name: str
    command: tuple[str, ...]  #: the first is a path, not a name to be looked up
    marker: str  #: a word that its command line always holds
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    nice: int = 0
    stop: Steps = TERMINATE  #: signals in turn, each with its seconds of patience
    identity_options: tuple[str, ...] = ()  #: for launch.py: --user-namespace, --set-user
    #: What Linux sends it when we die. None: it outlives us, and the next start ends it.
    death_signal: signal.Signals | None = signal.SIGTERM

    def full_command(self) -> list[str]:
        options = [f"--nice={self.nice}", *self.identity_options]
        if self.death_signal is not None:
            options += [f"--parent={os.getpid()}", f"--death-signal={int(self.death_signal)}"]
        return [sys.executable, "-I", "-S", str(LAUNCH), *options, "--", *self.command]


class Child:
    """A started process. Its exit is seen by `poll`, never by a signal handler."""

    def __init__(self, spec: Spec, log: Path) -> None:
        self.spec = spec
        self.log = log
        rotate(log)
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as output:
            self.log_offset = output.tell()  #: where this run's lines begin
            self._process = subprocess.Popen(
                spec.full_command(),
                cwd=spec.folder,
                env={**os.environ, **spec.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        # Marked by the launcher until the exec; the marker is in its arguments already.
        self.identity: Identity = identify(self._process.pid, spec.marker)

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        """The exit code once it ended (negative: the signal that ended it), else None."""
        return self._process.poll()

    def signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            self._process.send_signal(number)

    def kill_group(self) -> None:
        """End what the process may have left behind in its session."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def stop(self) -> int | None:
        """Stop it as its spec says; return the exit code."""
        for number, seconds in self.spec.stop:
            self.signal(number)
            if await_true(lambda: self.poll() is not None, seconds):
                break
        self.kill_group()
        return self.poll()

    def log_text(self) -> str:
        """What this run wrote so far."""
        with contextlib.suppress(OSError), open(self.log, "rb") as file:
            file.seek(self.log_offset)
            return file.read().decode("utf-8", "replace")
        return ""

    def last_lines(self, count: int = 15) -> str:
        return "\n".join(self.log_text().splitlines()[-count:])


def rotate(log: Path) -> None:
    """Put a long log aside as NAME.log.1, and so on; the oldest goes."""
    if not log.exists() or log.stat().st_size < ROTATE_BYTES:
        return
    for number in range(KEPT_LOGS, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        newer = log if number == 1 else log.with_name(f"{log.name}.{number - 1}")
        if newer.exists():
            newer.replace(older)
