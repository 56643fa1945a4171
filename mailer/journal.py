"""The journal's files: what this worker process intends and learns, kept until it is recorded.

One journal for each worker process, in a folder that outlives the process: a lock file
`<id>.lock`, held by flock(2) for as long as the process lives, and segments
`<id>.000001.log`, … that are only ever appended to. What a killed process wrote is read again
from there (`read`), by whoever gets its lock (`claim_dead`). The kernel frees the lock when the
process is gone, and only then: a stopped or hanging process keeps it.

Never decides what becomes of a message; never deletes what a living process may still need.

The folder has to be on a local disk: flock over a network file system proves nothing about a
process on another host. A written record survives the death of the process at once; it survives
the loss of power only with `Sync.CONTENT`, which costs one fdatasync for each intent (about
0.2 ms on an SSD, several ms on a rotating disk).
"""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import os
import socket
import threading
import uuid
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from mailer.core.journal import (
    MAGIC,
    BatchTrace,
    RecordKind,
    SettledRecord,
    Settlement,
    encode_intent,
    encode_mark,
    encode_settled,
)
from mailer.journal_reader import (
    Claim,
    Missing,
    claim_dead,
    journal_ids,
    lock_path,
    read,
    segment_path,
)

__all__ = [
    "BatchTrace",
    "Claim",
    "Journal",
    "JournalClosed",
    "JournalFull",
    "Missing",
    "SettledRecord",
    "Settlement",
    "Sync",
    "claim_dead",
    "journal_ids",
    "read",
]

SEGMENT_BYTES = 16 * 1024 * 1024

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG}


class JournalFull(OSError):
    """The disk took nothing more. Nothing may be sent that could not be noted first."""


class JournalClosed(ValueError):
    """The journal was closed, or belongs to the process that this one was forked from."""


class Sync(enum.StrEnum):
    NONE = "none"  #: survives kill -9 at once; power loss after the kernel's write-back
    CONTENT = "content"  #: an intent is on the disk before content goes out


@dataclass(slots=True)
class _Segment:
    path: Path
    fd: int
    size: int
    open_batches: set[int] = field(default_factory=set)
    is_torn: bool = False  #: ends in a half record that could not be cut off


class Journal:
    """Append-only notes of this process. Every method may be called from any thread."""

    def __init__(
        self, folder: Path, journal_id: str, lock_fd: int, *, sync: Sync, segment_bytes: int
    ) -> None:
        self.id = journal_id
        self.folder = folder
        self._lock_fd = lock_fd
        self._sync = sync
        self._segment_bytes = segment_bytes
        self._mutex = threading.Lock()
        self._segments: list[_Segment] = []
        self._last_number = 0
        self._is_closed = False

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        sync: Sync | str = Sync.NONE,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> Self:
        """Start a journal with a fresh id. It shows up in the folder only once it is locked."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        journal_id = uuid.uuid4().hex
        unnamed = folder / f"{journal_id}.new"
        try:
            lock_fd = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(lock_fd, f"pid {os.getpid()} on {socket.gethostname()}\n".encode())
            journal = cls(folder, journal_id, lock_fd, sync=Sync(sync), segment_bytes=segment_bytes)
            unnamed.rename(lock_path(folder, journal_id))
            journal._begin_segment()
        except OSError as error:
            unnamed.unlink(missing_ok=True)
            lock_path(folder, journal_id).unlink(missing_ok=True)
            raise _explained(error, folder) from error
        _of_this_process.add(journal)
        return journal

    def took(self, batch_id: int) -> None:
        """Note that the batch is ours. Call it after the database said so."""
        self._append(batch_id, encode_mark(RecordKind.TOOK, batch_id))

    def intend(self, batch_id: int, message_id: int, attempt_no: int) -> None:
        """Note that this message's content is about to go out; returns once it is noted.

        Raises `JournalFull` when it could not be: then the content must not go out.
        """
        self._append(batch_id, encode_intent(batch_id, message_id, attempt_no), is_intent=True)

    def intend_all(self, batch_id: int, attempts: Iterable[tuple[int, int]]) -> None:
        """`intend` for a window of (message_id, attempt_no) at the cost of one write."""
        records = [encode_intent(batch_id, *attempt) for attempt in attempts]
        self._append(batch_id, b"".join(records), is_intent=True)

    def settle(
        self, batch_id: int, message_id: int, attempt_no: int, result: SettledRecord
    ) -> None:
        """Note an outcome. It holds until the batch is recorded in the database."""
        self._append(batch_id, encode_settled(batch_id, message_id, attempt_no, result))

    def recorded(self, batch_id: int) -> None:
        """Forget the batch: all its outcomes are committed in PostgreSQL.

        The mark goes into each segment that has records of the batch, so that a segment can be
        deleted by itself, without making an older one look unfinished.
        """
        mark = encode_mark(RecordKind.RECORDED, batch_id)
        with self._mutex:
            self._require_open()
            for segment in self._segments:
                if batch_id not in segment.open_batches:
                    continue
                # A lost mark costs nothing: the database knows that the batch is done.
                if not segment.is_torn:
                    with contextlib.suppress(JournalFull):
                        self._write(segment, mark)
                segment.open_batches.discard(batch_id)
            self._drop_finished_segments()

    @property
    def open_batches(self) -> frozenset[int]:
        with self._mutex:
            return frozenset().union(*(segment.open_batches for segment in self._segments))

    def close(self) -> None:
        """Give the lock back. Files stay if a batch is still open, for a rescuer to read."""
        with self._mutex:
            if self._is_closed:
                return
            if not any(segment.open_batches for segment in self._segments):
                for segment in self._segments:
                    segment.path.unlink(missing_ok=True)
                lock_path(self.folder, self.id).unlink(missing_ok=True)
            self._close_files()

    def _append(self, batch_id: int, data: bytes, *, is_intent: bool = False) -> None:
        with self._mutex:
            self._require_open()
            segment = self._segments[-1]
            if segment.is_torn or segment.size >= self._segment_bytes:
                segment = self._begin_segment()
            self._write(segment, data)
            segment.open_batches.add(batch_id)
        if is_intent and self._sync is Sync.CONTENT:
            # Outside the mutex: others may write meanwhile. The batch is open, so nobody
            # deletes the segment or closes its file under us.
            self._flush(segment)

    def _write(self, segment: _Segment, data: bytes) -> None:
        try:
            written = os.write(segment.fd, data)
            if written < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._cut_back(segment)
            raise _explained(error, segment.path) from error
        segment.size += written

    def _cut_back(self, segment: _Segment) -> None:
        """Remove half a record, or else never append behind it: a reader stops there."""
        try:
            os.ftruncate(segment.fd, segment.size)
        except OSError:
            segment.is_torn = True

    def _flush(self, segment: _Segment) -> None:
        try:
            os.fdatasync(segment.fd)
        except OSError as error:
            segment.is_torn = True  # after a failed sync the kernel may have dropped pages
            raise _explained(error, segment.path) from error

    def _begin_segment(self) -> _Segment:
        path = segment_path(self.folder, self.id, self._last_number + 1)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        except OSError as error:
            raise _explained(error, path) from error
        segment = _Segment(path, fd, 0)
        try:
            self._write(segment, MAGIC)
            if self._sync is Sync.CONTENT:
                _sync_folder(self.folder)
        except OSError:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise
        self._last_number += 1
        self._segments.append(segment)
        self._drop_finished_segments()
        return segment

    def _drop_finished_segments(self) -> None:
        *older, current = self._segments
        finished = [segment for segment in older if not segment.open_batches]
        for segment in finished:
            os.close(segment.fd)
            segment.path.unlink(missing_ok=True)
        if finished:
            self._segments = [s for s in older if s.open_batches] + [current]

    def _require_open(self) -> None:
        if self._is_closed:
            raise JournalClosed(f"journal {self.id} is closed")

    def _close_files(self) -> None:
        self._is_closed = True
        for segment in self._segments:
            os.close(segment.fd)
        os.close(self._lock_fd)
        _of_this_process.discard(self)

    def _let_go_after_fork(self) -> None:
        """Close our copies of the files: a child that kept them would keep the lock alive."""
        self._mutex = threading.Lock()  # its owner may be a thread that this child has not
        self._close_files()


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _explained(error: OSError, path: Path) -> OSError:
    """The same error in words an operator can act on; other errors stay as they are."""
    if error.errno not in _DISK_ERRORS or isinstance(error, JournalFull):
        return error
    return JournalFull(
        error.errno,
        f"the journal cannot be written ({error.strerror}); sending stops until its disk "
        "has room and works",
        str(path),
    )


_of_this_process: weakref.WeakSet[Journal] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for journal in list(_of_this_process):
        journal._let_go_after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
