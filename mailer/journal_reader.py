"""Reading journals: what a process left behind, and the proof that it is dead.

The counterpart of `mailer.journal`, which writes. A journal is read by whoever holds its lock,
and the lock is had only after its owner's death. Decides nothing about messages.
"""

from __future__ import annotations

import fcntl
import os
import re
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from mailer.core.journal import BatchTrace, Tail, UnknownFormat, decode, replay

_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Missing:
    """The journal, or a part of it, is not there: what it would have told is unknown.

    Never the same as a journal that says nothing. Unrecorded messages of its batches may have
    gone out; `known` is what could still be read.
    """

    journal_id: str
    why: str
    known: dict[int, BatchTrace] = field(default_factory=dict)


class Claim:
    """The lock of a dead process's journal: as long as it is held, no other rescuer has it."""

    def __init__(self, folder: Path, journal_id: str, lock_fd: int) -> None:
        self.folder = folder
        self.journal_id = journal_id
        self._lock_fd = lock_fd

    def read(self) -> dict[int, BatchTrace] | Missing:
        return read(self.folder, self.journal_id)

    def discard(self) -> None:
        """Delete the journal. Only when every batch of it is settled in the database."""
        for path in _segment_paths(self.folder, self.journal_id):
            path.unlink(missing_ok=True)
        lock_path(self.folder, self.journal_id).unlink(missing_ok=True)

    def release(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def claim_dead(folder: Path, journal_id: str | uuid.UUID) -> Claim | None:
    """Take the journal's lock if its owner is proved dead and no other rescuer was quicker.

    None means "not proved": the owner lives (or is stopped), somebody else rescues it, or there
    is no lock file to ask; `read` tells the last case apart.
    """
    journal_id = _plain_id(journal_id)
    path = lock_path(folder, journal_id)
    try:
        lock_fd = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another rescuer may have deleted the file between our opening and our locking it.
        is_current = os.path.samestat(os.fstat(lock_fd), path.stat())
    except (BlockingIOError, FileNotFoundError):
        is_current = False
    if not is_current:
        os.close(lock_fd)
        return None
    return Claim(folder, journal_id, lock_fd)


def read(folder: Path, journal_id: str | uuid.UUID) -> dict[int, BatchTrace] | Missing:
    """Say what the journal knows of the batches that it did not see recorded.

    A half record at the end of a segment is left out: its writer was stopped in the write, so
    nothing that it announces has happened. A damaged one makes the journal `Missing`.
    """
    journal_id = _plain_id(journal_id)
    try:
        segments = [decode(path.read_bytes()) for path in _segment_paths(folder, journal_id)]
    except FileNotFoundError as error:
        return Missing(journal_id, f"{error.filename} vanished while it was read")
    except UnknownFormat as error:
        return Missing(journal_id, str(error))
    if not segments:
        return Missing(journal_id, f"no segment of it in {folder}")
    traces = replay(segment.records for segment in segments)
    for segment in segments:
        if segment.tail is Tail.DAMAGED:
            why = f"a segment is damaged after {segment.readable_bytes} bytes"
            return Missing(journal_id, why, traces)
    return traces


def journal_ids(folder: Path) -> tuple[str, ...]:
    """All journals that have a file in the folder, of the living and of the dead."""
    paths = [*folder.glob("*.lock"), *folder.glob("*.log")]
    names = {path.name.partition(".")[0] for path in paths}
    return tuple(sorted(name for name in names if _ID.fullmatch(name)))


def _plain_id(journal_id: str | uuid.UUID) -> str:
    """As in the file names, whether a database or a file name told it."""
    return str(journal_id).replace("-", "")


def lock_path(folder: Path, journal_id: str) -> Path:
    return folder / f"{journal_id}.lock"


def segment_path(folder: Path, journal_id: str, number: int) -> Path:
    return folder / f"{journal_id}.{number:06d}.log"


def _segment_paths(folder: Path, journal_id: str) -> list[Path]:
    found = folder.glob(f"{journal_id}.*.log")
    return sorted(found, key=lambda path: int(path.name.split(".")[1]))
