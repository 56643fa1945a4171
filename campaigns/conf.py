"""The campaigns' settings, as objects. The only file of the app that reads Django's settings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from django.conf import settings


@dataclass(frozen=True, slots=True)
class Folders:
    uploads: Path  #: files waiting for their import
    demo: Path


@cache
def folders() -> Folders:
    var = Path(settings.POSTROAD_VAR)
    return Folders(uploads=var / "imports", demo=var / "demo")
