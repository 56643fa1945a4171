"""Secrets that are made once and kept: one file each, readable by its owner alone."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

_BYTES = 36  #: 48 characters of base64


def kept_secret(path: Path) -> str:
    """Read the secret at `path`; make it the first time."""
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    value = secrets.token_urlsafe(_BYTES)
    write_private(path, value + "\n")
    return value


def write_private(path: Path, text: str) -> None:
    """Write a file that was never readable by others, whole or not at all."""
    half = path.with_name(f"{path.name}.half")
    half.unlink(missing_ok=True)
    handle = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)
