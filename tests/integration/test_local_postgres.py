"""A PostgreSQL of our own: real servers, started, killed and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from config.local import ports, postgres
from config.local.binaries import NotFound
from config.local.child import Child
from config.local.processes import await_true, working_in
from config.local.running_user import Mode, UnsafeFolder, own_folder
from config.local.stack import ROOT

is_linux_root = sys.platform.startswith("linux") and os.geteuid() == 0
as_root = pytest.mark.skipif(not is_linux_root, reason="about root on Linux")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "a folder with spaces" / "postgres"


@pytest.fixture
def children() -> Iterator[list[Child]]:
    """Whatever a test starts is stopped after it."""
    started: list[Child] = []
    yield started
    for child in started:
        child.stop()


def started(home: Path, children: list[Child], mode: Mode | None = None) -> tuple[Child, str]:
    port = ports.any_free()
    spec = postgres.prepare(home, port, durable=False, mode=mode)
    child = Child(spec, home.parent / "postgres.log")
    children.append(child)
    password = postgres.password_of(home)
    postgres.await_ready(child, port, password)
    return child, postgres.url(port, password)


def write_row(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")


def read_row(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT answer FROM kept").fetchone()
    assert row is not None
    return int(row[0])


def test_it_wants_its_password_and_listens_on_loopback(home: Path, children: list[Child]) -> None:
    _, url = started(home, children)
    password = postgres.password_of(home)

    with psycopg.connect(url) as connection:
        listens = connection.execute("SHOW listen_addresses").fetchone()
        encoding = connection.execute("SHOW server_encoding").fetchone()
    assert (listens, encoding) == (("127.0.0.1",), ("UTF8",))
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(url.replace(password, "wrong"))
    assert (home / "password").stat().st_mode & 0o077 == 0


def test_what_was_committed_survives_a_kill_and_no_second_server_starts(
    home: Path, children: list[Child]
) -> None:
    child, url = started(home, children)
    write_row(url)
    os.kill(child.pid, signal.SIGKILL)
    assert await_true(lambda: child.poll() is not None, 10)

    again, url = started(home, children)

    assert read_row(url) == 42
    assert again.poll() is None


def test_a_server_left_running_is_stopped_before_the_next_one_starts(
    home: Path, children: list[Child]
) -> None:
    left, url = started(home, children)
    write_row(url)

    _, url = started(home, children)

    assert left.poll() == 0  # by a fast shutdown: nothing to recover
    assert read_row(url) == 42


def test_a_lock_file_whose_pid_belongs_to_somebody_else_does_not_stop_the_start(
    home: Path, children: list[Child]
) -> None:
    child, url = started(home, children)
    write_row(url)
    child.stop()
    data = postgres.Record.read(home)
    assert data is not None
    (data.data / "postmaster.pid").write_text(f"{os.getpid()}\n{data.data}\n")

    _, url = started(home, children)

    assert read_row(url) == 42


def test_data_of_another_major_version_is_refused_and_left_as_it_is(
    home: Path, children: list[Child]
) -> None:
    child, _ = started(home, children)
    child.stop()
    record = postgres.Record.read(home)
    assert record is not None
    (record.data / "PG_VERSION").write_text("14\n")

    with pytest.raises(NotFound, match="made by PostgreSQL 14"):
        postgres.prepare(home, ports.any_free())

    assert (record.data / "PG_VERSION").read_text() == "14\n"


def test_an_initdb_that_was_cut_short_leaves_nothing_that_a_start_would_take_for_data(
    home: Path, children: list[Child]
) -> None:
    (home / "data.half").mkdir(parents=True)
    (home / "data.half" / "PG_VERSION").write_text("18\n")

    _, url = started(home, children)

    write_row(url)
    assert read_row(url) == 42


@as_root
@pytest.mark.parametrize("mode", [Mode.USER_NAMESPACE, Mode.NOBODY])
def test_root_runs_it_either_way(home: Path, children: list[Child], mode: Mode) -> None:
    home.parent.mkdir()
    for folder in (home.parent, *home.parent.parents):
        if folder.is_relative_to("/tmp/") and folder != Path("/tmp"):
            folder.chmod(0o711)

    child, url = started(home, children, mode)

    write_row(url)
    record = postgres.Record.read(home)
    assert record is not None
    assert record.mode is mode
    owner = record.data.stat().st_uid
    assert (owner == 0) is (mode is Mode.USER_NAMESPACE)
    child.stop()
    assert list(working_in(record.data)) == []


@as_root
def test_where_namespaces_are_refused_root_runs_it_as_nobody(tmp_path: Path) -> None:
    # The folder lets nobody through, as /root does; so data and programs go elsewhere.
    (tmp_path / "private").mkdir(mode=0o700)
    script = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from config.local import running_user\n"
        "from config.local.ephemeral import running_postgres\n"
        "from config.local.postgres import Record\n"
        "running_user.REACHABLE_ROOTS = (Path(sys.argv[2]),)\n"
        "folder = Path(sys.argv[1])\n"
        "with running_postgres(folder) as (child, url):\n"
        "    record = Record.read(folder / 'postgres')\n"
        "    print(json.dumps([str(record.mode), str(record.data), record.data.stat().st_uid]))\n"
    )
    open_folder = tmp_path / "open"
    open_folder.mkdir()
    for folder in (open_folder, *open_folder.parents):
        if folder.is_relative_to("/tmp/") and folder != Path("/tmp"):
            folder.chmod(0o711)

    done = subprocess.run(
        [
            *(sys.executable, str(Path(__file__).with_name("refusing_unshare.py"))),
            *(sys.executable, "-c", script, str(tmp_path / "private"), str(open_folder)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    mode, data, owner = json.loads(done.stdout)
    assert mode == "nobody"
    assert Path(data).is_relative_to(open_folder)
    assert owner != 0


def test_a_link_that_somebody_put_in_our_way_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "ours").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(UnsafeFolder):
        own_folder(tmp_path / "ours")


def test_a_folder_that_others_may_write_is_not_taken_for_ours(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours").chmod(0o777)

    with pytest.raises(UnsafeFolder):
        own_folder(tmp_path / "ours")
