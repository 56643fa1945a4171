"""What one supervisor leaves to the next: a lock, a list of processes, and how to end them.

The lock says whether a supervisor lives; the system lets go of it however its holder ends. The
state file says what it started. Nothing is signalled that the file does not name and that does
not still have the start time and the command line written there.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from config.local.child import Steps
from config.local.postgres import FAST_SHUTDOWN
from config.local.processes import Identity, end, is_running
from config.local.secret import write_private

_PATIENT: Steps = ((signal.SIGTERM, 30), (signal.SIGKILL, 5))


class AlreadyRuns(RuntimeError):
    """Another supervisor holds the state folder."""


class WillNotEnd(RuntimeError):
    """A process of an earlier run survives even SIGKILL."""


#: Who stops before whom: first what takes in work, then who does it, then what they stand on.
_STOP_ORDER = (
    ("web", "beat", "flower"),
    ("deliver-", "urgent", "upkeep"),
    ("sandbox",),
    ("valkey",),
)


def stop_groups(names: list[str]) -> list[list[str]]:
    """The order of stopping; the processes of one group stop side by side."""
    groups = [[name for name in names if name.startswith(start)] for start in _STOP_ORDER]
    grouped = {name for group in groups for name in group}
    return [group for group in (*groups, [name for name in names if name not in grouped]) if group]


def read_state(var: Path) -> Mapping[str, Any]:
    """What the last supervisor wrote down; empty when there was none."""
    try:
        state = json.loads((var / "run" / "state.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


@contextlib.contextmanager
def lock(var: Path) -> Iterator[None]:
    """Hold the state folder; the system lets go of it however we end."""
    folder = var / "run"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "a", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRuns(f"{var} is in use by another process.") from None
        yield


def supervisor_of(state: Mapping[str, Any]) -> Identity | None:
    """Who wrote the state file; None when nobody did."""
    return _identity(state["supervisor"]) if state.get("supervisor") else None


def _identity(entry: Mapping[str, Any]) -> Identity:
    return Identity(int(entry["pid"]), str(entry["started"]), str(entry["marker"]))


def recorded(state: Mapping[str, Any]) -> dict[str, Identity]:
    """The processes of a state file."""
    return {name: _identity(entry) for name, entry in state.get("processes", {}).items()}


def end_orphans(var: Path, say: Callable[[str], None]) -> list[str]:
    """End what a killed supervisor left, in order. Call it only while holding the lock."""
    processes = recorded(read_state(var))
    ended = []
    for group in stop_groups(list(processes)):
        for name in group:
            if not is_running(processes[name]):
                continue
            say(f"{name} of an earlier run is still there (pid {processes[name].pid}); ending it")
            if not end(processes[name], FAST_SHUTDOWN if name == "postgres" else _PATIENT):
                raise WillNotEnd(f"{name} (pid {processes[name].pid}) does not end.")
            ended.append(name)
    return ended


def write_state(var: Path, state: Mapping[str, Any]) -> None:
    write_private(var / "run" / "state.json", json.dumps(state, indent=2) + "\n")
