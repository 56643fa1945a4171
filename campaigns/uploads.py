"""Keeps uploaded files until their import is done.

Decides the name on disk (never the visitor's), and says in one sentence what is wrong with
the disk. Never looks into a file.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
from collections.abc import Iterable
from pathlib import Path

from campaigns import conf


class UploadFailed(Exception):
    """The file could not be kept; the text is for the person who sent it."""


def keep(chunks: Iterable[bytes]) -> Path:
    """Write the upload to disk and return its path, or leave nothing behind."""
    path = conf.folders().uploads / f"{secrets.token_hex(12)}.csv"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with path.open("xb") as file:
            for chunk in chunks:
                file.write(chunk)
    except OSError as problem:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise UploadFailed(_words_for(problem)) from problem
    return path


def discard(path: Path) -> None:
    """Remove an upload; other files are never touched."""
    if path.parent == conf.folders().uploads:
        path.unlink(missing_ok=True)


def _words_for(problem: OSError) -> str:
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"The disk that holds {conf.folders().uploads} is full: the file was not kept. "
            "Make room and upload it again."
        )
    return f"The file could not be kept in {conf.folders().uploads}: {problem.strerror or problem}."
