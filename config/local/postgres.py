"""A PostgreSQL of our own: makes its data folder, says how to run it, knows when it is ready.

Never two servers on one data folder: what an earlier run left is stopped cleanly first. Never
changes a data folder of another major version. Settings are given on the command line, so that
each start has the ones of this release.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psycopg

from config.local import running_user
from config.local.binaries import Binaries, find_postgres
from config.local.child import Child, Spec, Steps
from config.local.processes import await_true, end, facts_of, identify, working_in
from config.local.running_user import Mode
from config.local.secret import kept_secret

NAME = "postroad"  #: of the role and of the database
BUILTIN_LOCALE_SINCE = 17  #: --locale-provider=builtin

#: SIGINT is the fast shutdown: sessions are ended, everything is written. SIGQUIT drops all and
#: leaves recovery to the next start; only for a server that hangs.
FAST_SHUTDOWN: Steps = ((signal.SIGINT, 60), (signal.SIGQUIT, 10), (signal.SIGKILL, 5))

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a path over 107 characters would stop the start
    "max_connections": "200",
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    # Bulk inserts and updates of messages: fewer checkpoints, and less written in each.
    "wal_buffers": "16MB",
    "min_wal_size": "256MB",
    "max_wal_size": "2GB",
    "wal_compression": "on",
    "checkpoint_timeout": "10min",
    # An outcome that was acknowledged is on disk.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "random_page_cost": "1.1",
    "jit": "off",
    # Message rows are updated once each, all at about the same time.
    "autovacuum_naptime": "15s",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %a ",
    "log_min_duration_statement": "2s",
    "password_encryption": "scram-sha-256",
}
#: For tests: survives the death of any process, not a power cut.
THROWAWAY_SETTINGS = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "128MB"}


class CannotStart(RuntimeError):
    """The message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Record:
    """What is written beside the data folder: who owns it and where it is."""

    mode: Mode
    data: Path

    @classmethod
    def read(cls, home: Path) -> Record | None:
        try:
            found = json.loads((home / "record.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return cls(mode=Mode(found["mode"]), data=Path(found["data"]))

    def write(self, home: Path) -> None:
        text = json.dumps({"mode": self.mode, "data": str(self.data)})
        (home / "record.json").write_text(text + "\n", encoding="utf-8")


def url(port: int, password: str, database: str = NAME) -> str:
    return f"postgres://{NAME}:{password}@127.0.0.1:{port}/{database}"


def password_of(home: Path) -> str:
    return kept_secret(home / "password")


def prepare(home: Path, port: int, *, durable: bool = True, mode: Mode | None = None) -> Spec:
    """Make everything ready to run a server in `home`, and say how to run it.

    `mode` overrides how root gets rid of its rights, for a data folder that is new.
    """
    home.mkdir(parents=True, exist_ok=True)
    record = Record.read(home)
    if record is None or not (record.data / "PG_VERSION").exists():
        installation = find_postgres()
        record = _create(home, installation, mode or running_user.mode_here())
    else:
        installation = find_postgres(wanted_major=data_version(record.data))
        _require_same_user(record)
        stop_leftovers(record.data)
    programs = _programs(installation, record.mode)
    settings = {**SETTINGS, **({} if durable else THROWAWAY_SETTINGS), "port": str(port)}
    flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return Spec(
        name="postgres",
        command=(str(programs / "postgres"), "-D", str(record.data), *flags),
        marker=str(record.data),
        folder=Path("/"),  # the server changes to its data folder by itself
        environment=_clean_environment(),
        stop=FAST_SHUTDOWN,
        identity_options=running_user.launch_options(record.mode),
        # When the supervisor is killed, workers still have outcomes to record: the database
        # stays, and the next start stops it cleanly. Throw-away servers go with their run.
        death_signal=None if durable else signal.SIGINT,
    )


def data_version(data: Path) -> int:
    return int((data / "PG_VERSION").read_text(encoding="ascii").strip())


def _clean_environment() -> dict[str, str]:
    """PGPORT and the like are meant for a client, and LC_ALL may name a locale not installed."""
    return {**{name: "" for name in os.environ if name.startswith("PG")}, "LC_ALL": "C"}


def _require_same_user(record: Record) -> None:
    if record.mode is Mode.USER_NAMESPACE and not running_user.may_unshare():
        raise CannotStart(
            f"The data in {record.data} was made as root in a user namespace, which is refused "
            "here now. Start where it was made, or dump there and restore to another POSTROAD_VAR."
        )
    if record.mode is Mode.DIRECT and record.data.stat().st_uid != os.geteuid():
        raise CannotStart(
            f"The data in {record.data} belongs to user {record.data.stat().st_uid}: start as that "
            "user, or with another POSTROAD_VAR."
        )


def _create(home: Path, installation: Binaries, mode: Mode) -> Record:
    """Run initdb, whole or not at all: the folder gets its name when it is complete."""
    record = Record(mode, _data_folder(home, mode))
    if record.data.exists():
        raise CannotStart(f"{record.data} exists and is not ours. Look at it, and move it away.")
    half = record.data.with_name(f"{record.data.name}.half")
    if half.exists():
        shutil.rmtree(half)
    half.mkdir(mode=0o700)
    programs = _programs(installation, mode)
    password = password_of(home)
    # Inside the new folder's neighbour and not in `home`, where `nobody` could not read it.
    with tempfile.NamedTemporaryFile("w", dir=half.parent, prefix="initdb-", suffix=".tmp") as file:
        file.write(password)
        file.flush()
        if mode is Mode.NOBODY:
            account = running_user.nobody()
            os.chown(half, account.uid, account.gid)
            os.chown(file.name, account.uid, account.gid)
        _initdb(programs, half, Path(file.name), installation.major, mode)
    half.rename(record.data)
    record.write(home)
    return record


def _initdb(programs: Path, data: Path, password_file: Path, major: int, mode: Mode) -> None:
    flags = [f"--username={NAME}", "--auth=scram-sha-256", f"--pwfile={password_file}"]
    flags += ["--encoding=UTF8", "--no-instructions", "--no-sync"]
    if major >= BUILTIN_LOCALE_SINCE:
        locales = [["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]]
    else:
        locales = [["--locale=C.UTF-8"], ["--locale=C"]]  # not every system has the first
    for locale in locales:
        spec = Spec(
            name="initdb",
            command=(str(programs / "initdb"), "-D", str(data), *flags, *locale),
            marker="initdb",
            folder=Path("/"),
            environment=_clean_environment(),
            identity_options=running_user.launch_options(mode),
        )
        done = subprocess.run(
            spec.full_command(),
            cwd=spec.folder,
            env={**os.environ, **spec.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return
    raise CannotStart(f"initdb failed in {data}:\n{done.stdout}{done.stderr}")


def _data_folder(home: Path, mode: Mode) -> Path:
    if mode is not Mode.NOBODY:
        return home / "data"
    if running_user.others_can_reach(home.parent):
        home.chmod(0o711)  # through, but not into: each thing inside is private
        return home / "data"
    return running_user.reachable_folder(f"postroad-{_mark(home)}") / "data"


def _programs(installation: Binaries, mode: Mode) -> Path:
    """Where to run them from: in place, or from a copy that `nobody` can reach."""
    if mode is not Mode.NOBODY or running_user.others_can_reach(installation.folder):
        return installation.folder
    root = installation.folder.parent
    target = running_user.reachable_folder(f"postroad-programs-{_mark(root)}")
    return running_user.copy_programs(root, target / f"wheel-{_build(root)}") / "bin"


def _mark(path: Path) -> str:
    """Short, the same for the same path, different for every other."""
    return hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:12]


def _build(root: Path) -> str:
    """Changes when the programs do, so that an upgrade is copied anew."""
    found = (root / "bin" / "postgres").stat()
    return f"{found.st_size}-{int(found.st_mtime)}"


def stop_leftovers(data: Path) -> None:
    """Stop what an earlier run left on `data`, and forget a lock file whose owner is gone."""
    lock = data / "postmaster.pid"
    with contextlib.suppress(FileNotFoundError, IndexError, ValueError):
        pid = int(lock.read_text(encoding="utf-8").splitlines()[0])
        if _serves(pid, data):
            end(identify(pid, marker=str(data)), FAST_SHUTDOWN)
    left = set(working_in(data.resolve()))
    for pid in left:  # children whose postmaster was killed end by themselves, soon
        end(identify(pid, marker="postgres"), ((signal.SIGTERM, 5), (signal.SIGQUIT, 5)))
    still = [pid for pid in working_in(data.resolve()) if facts_of(pid)]
    if still:
        raise CannotStart(f"Processes {still} still use {data}. End them, then start again.")
    # Its pid may belong to somebody else by now, which PostgreSQL takes for a running server.
    # Where the processes cannot be listed the file stays, and PostgreSQL decides.
    if sys.platform.startswith("linux"):
        lock.unlink(missing_ok=True)


def _serves(pid: int, data: Path) -> bool:
    facts = facts_of(pid)
    return facts is not None and "postgres" in facts.command and str(data) in facts.command


def accepts(server_url: str) -> bool:
    """Say whether the server takes connections."""
    try:
        with psycopg.connect(server_url, connect_timeout=2):
            return True
    except psycopg.OperationalError:
        return False


def ensure_database(server_url: str) -> None:
    """Make our database where there is none. `server_url` leads to another one, `postgres`."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        row = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [NAME]).fetchone()
        if row is None:
            connection.execute(f'CREATE DATABASE "{NAME}"')


def await_ready(child: Child, port: int, password: str, seconds: float = 60) -> None:
    """Wait until the server answers (after a crash it recovers first), and has our database."""
    server = url(port, password, "postgres")
    ready = await_true(lambda: child.poll() is not None or accepts(server), seconds)
    if not ready or child.poll() is not None:
        raise CannotStart(f"PostgreSQL did not start:\n{child.last_lines()}")
    ensure_database(server)
