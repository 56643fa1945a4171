"""Ending and removing what an installation on one machine has left: --stop and --fresh."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

from config.local.postgres import Record, stop_leftovers
from config.local.processes import await_true, is_running
from config.local.state import AlreadyRuns, end_orphans, lock, read_state, supervisor_of

STOP_SECONDS = 180.0  #: workers 30, database 60, and room

#: What holds mail and people's data. Secrets and logs stay.
DATA = ("postgres", "valkey", "sandbox", "journals", "demo-done", "world")


class WillNotDelete(RuntimeError):
    """The data is not the sandbox's, so it is not ours to delete."""


def stop_running(var: Path, say: Callable[[str], None]) -> None:
    """Ask the supervisor of `var` to stop, wait for it, and end what a killed one left."""
    supervisor = supervisor_of(read_state(var))
    if supervisor is not None and is_running(supervisor):
        say(f"Stopping (pid {supervisor.pid}) …")
        with contextlib.suppress(ProcessLookupError):
            os.kill(supervisor.pid, signal.SIGTERM)
        if not await_true(lambda: not is_running(supervisor), STOP_SECONDS):
            raise AlreadyRuns(f"pid {supervisor.pid} is still stopping after {STOP_SECONDS:g} s.")
    with lock(var):
        end_orphans(var, say)
    say("Nothing runs here.")


def remove_data(var: Path, given: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Delete what the sandbox kept. Refuses real mail's data and other people's databases."""
    mark = var / "world"
    if not mark.exists():
        # Without the mark nothing says whose it is: a server's journals, a folder of projects.
        if strange := [name for name in DATA if (var / name).exists()]:
            raise WillNotDelete(
                f"{var} was not made by bin/start, and holds {', '.join(strange)}: "
                "--fresh leaves it alone. Set POSTROAD_VAR to another folder."
            )
    elif mark.read_text(encoding="ascii").strip() != "sandbox":
        raise WillNotDelete(f"{var} holds real mail; --fresh only deletes the sandbox's data.")
    if given.get("DATABASE_URL"):
        raise WillNotDelete("--fresh does not touch the database behind DATABASE_URL.")
    record = Record.read(var / "postgres")
    if record is not None and record.data.exists():
        stop_leftovers(record.data)
        shutil.rmtree(record.data)
    for name in DATA:
        path = var / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    say(f"Deleted the sandbox's data in {var}.")
