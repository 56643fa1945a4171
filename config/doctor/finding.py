"""What a check says, and what it stands on."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any


class Level(enum.StrEnum):
    OK = "ok"
    WARNING = "warning"  #: mail goes out, but somebody should look
    ERROR = "error"  #: mail does not go out, or something may be lost


class Needs(enum.Enum):
    NOTHING = enum.auto()
    DATABASE = enum.auto()
    REDIS = enum.auto()


@dataclass(frozen=True, slots=True)
class Finding:
    """`found` says how it is; `advice` what to do about it, empty where nothing is."""

    name: str
    level: Level
    found: str
    advice: str = ""
    is_looked_at: bool = True  #: False: what it needs does not answer

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Check:
    """`look` yields one finding or several; the first is called `name`."""

    name: str
    look: Callable[[], Iterable[Finding]]
    needs: Needs = Needs.NOTHING
    is_root: bool = False  #: others need what it looks at


def ok(name: str, found: str, advice: str = "") -> Finding:
    return Finding(name, Level.OK, found, advice)


def warning(name: str, found: str, advice: str) -> Finding:
    return Finding(name, Level.WARNING, found, advice)


def error(name: str, found: str, advice: str) -> Finding:
    return Finding(name, Level.ERROR, found, advice)
