"""This machine: its disks, its limits, its secrets, and the journals of its workers."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from config.doctor.finding import Check, Finding, error, ok, warning
from mailer.journal import Missing, claim_dead, journal_ids

JOURNALS_FREE_BYTES = 1_000_000_000
STATE_FREE_RATIO = 0.05
OPEN_FILES_ERROR, OPEN_FILES_WARNING = 512, 4096
#: A living worker on this host rescues a dead one within seconds.
RESCUED_WITHIN_SECONDS = 60
#: Journals there are lost with the power, or prove nothing about a process elsewhere.
UNFIT_FILE_SYSTEMS = {
    "tmpfs": "is kept in memory and lost with the power",
    "nfs": "is on a network, where a lock proves nothing",
    "nfs4": "is on a network, where a lock proves nothing",
    "cifs": "is on a network, where a lock proves nothing",
}
SECRET_CHARACTERS, SECRET_DIFFERENT = 40, 10


def _journals() -> Iterator[Finding]:
    folder = Path(settings.POSTROAD_JOURNALS)
    try:
        place = _existing(folder)  # a worker makes the rest
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"may I write here?")
            file.flush()
        free = shutil.disk_usage(place).free
    except OSError as problem:
        advice = (
            "Let the workers' user write there: without its journal a worker sends nothing, "
            "since a crash could make it send twice."
        )
        yield error("journals", f"{folder} cannot be written: {problem.strerror}", advice)
        return
    told = f"{folder}, {free / 1e9:.1f} GB free"
    unfit = UNFIT_FILE_SYSTEMS.get(_file_system(folder))
    if free < JOURNALS_FREE_BYTES:
        yield error("journals", told, "Make room: a full disk stops sending.")
    elif unfit and not settings.POSTROAD_SANDBOX:
        yield error("journals", f"{folder} {unfit}", "Set POSTROAD_JOURNALS to a local disk.")
    else:
        yield ok("journals", told)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder


def _file_system(folder: Path) -> str:
    """The kind of file system that holds the folder; "" where nobody says (not Linux)."""
    best, kind = "", ""
    real = str(folder.resolve())
    with contextlib.suppress(OSError):
        for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
            _, place, this_kind, *_ = line.split()
            is_above = place == "/" or real == place or real.startswith(place + "/")
            if is_above and len(place) >= len(best):
                best, kind = place, this_kind
    return kind


def _dead_journals() -> Iterator[Finding]:
    folder = Path(settings.POSTROAD_JOURNALS)
    dead, damaged, living = [], [], 0
    for journal_id in journal_ids(folder) if folder.is_dir() else ():
        claim = claim_dead(folder, journal_id)
        if claim is None:
            living += 1
            continue
        with claim:
            if isinstance(found := claim.read(), Missing):
                damaged.append(f"{journal_id}: {found.why}")
            elif _age_seconds(folder, journal_id) > RESCUED_WITHIN_SECONDS:
                dead.append(journal_id)
    if damaged:
        advice = (
            "Restore the file from a backup, or put its messages in doubt with "
            f"`manage.py declare_host_lost {settings.POSTROAD_HOST}` once no worker runs here, "
            "and then delete it."
        )
        yield error("dead journals", "; ".join(damaged[:3]), advice)
    elif dead:
        advice = (
            "They hold outcomes that are not recorded yet. Any worker on this machine settles "
            "them within seconds: start one. Never delete them."
        )
        yield error("dead journals", f"{len(dead)} wait, such as {dead[0]}", advice)
    else:
        yield ok("dead journals", f"none; {living} of living workers")


def _age_seconds(folder: Path, journal_id: str) -> float:
    times = [0.0]
    for path in folder.glob(f"{journal_id}.*"):
        with contextlib.suppress(OSError):
            times.append(path.stat().st_mtime)
    return time.time() - max(times)


def _disk() -> Iterator[Finding]:
    usage = shutil.disk_usage(_existing(Path(settings.POSTROAD_VAR)))
    told = f"{usage.free / 1e9:.1f} of {usage.total / 1e9:.0f} GB free at {settings.POSTROAD_VAR}"
    if usage.free < usage.total * STATE_FREE_RATIO:
        yield warning("disk", told, "Make room, before PostgreSQL has none.")
    else:
        yield ok("disk", told)


def _open_files() -> Iterator[Finding]:
    try:
        import resource
    except ImportError:
        yield ok("open files", "this system has no such limit")
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    told = f"{soft} for each process (up to {hard})"
    advice = (
        f"Raise it (ulimit -n {OPEN_FILES_WARNING}, or LimitNOFILE= in systemd): a delivery "
        "process holds up to 200 connections to mail servers."
    )
    if soft == resource.RLIM_INFINITY or soft >= OPEN_FILES_WARNING:
        yield ok("open files", told)
    elif soft < OPEN_FILES_ERROR:
        yield error("open files", told, advice)
    elif soft < 1024:
        yield warning("open files", told, advice)
    else:
        yield ok("open files", told, "Enough; 4096 leaves room.")


def _secret_key() -> Iterator[Finding]:
    try:
        key = str(settings.SECRET_KEY)
    except ImproperlyConfigured:
        key = ""
    strong = len(key) >= SECRET_CHARACTERS and len(set(key)) >= SECRET_DIFFERENT
    advice = (
        f"Set SECRET_KEY to {SECRET_CHARACTERS} random characters or more and keep them: links "
        "in mails are signed and stored passwords sealed with it. The former one goes into "
        "SECRET_KEY_FALLBACKS."
    )
    if not key:
        yield error("secret key", "empty", advice)
    elif strong:
        yield ok("secret key", f"{len(key)} characters")
    else:
        found = f"{len(key)} characters, {len(set(key))} different ones"
        yield (warning if settings.POSTROAD_SANDBOX else error)("secret key", found, advice)


def _debug() -> Iterator[Finding]:
    if settings.DEBUG:
        found = "on: errors show settings and code to anybody, and memory grows"
        level = warning if settings.POSTROAD_SANDBOX else error
        yield level("debug", found, "Set DEBUG=off.")
    else:
        yield ok("debug", "off")
    is_https = settings.POSTROAD_PUBLIC_URL.startswith("https://")
    if is_https and not settings.SESSION_COOKIE_SECURE:
        advice = "Set COOKIES_NEED_HTTPS=on, since the web is served over HTTPS."
        yield warning("cookies", "are sent over HTTP too", advice)


CHECKS = (
    Check("journals", _journals),
    Check("dead journals", _dead_journals),
    Check("disk", _disk),
    Check("open files", _open_files),
    Check("secret key", _secret_key),
    Check("debug", _debug),
)
