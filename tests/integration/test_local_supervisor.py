"""The supervisor with real processes: restarts, the ordered stop, and its own death."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from config.local import ports, start
from config.local.child import Child, Spec
from config.local.leftovers import WillNotDelete, remove_data, stop_running
from config.local.postgres import accepts
from config.local.processes import await_true, is_running
from config.local.stack import ROOT, WrongWorld, choose_world
from config.local.state import AlreadyRuns, end_orphans, lock, read_state, recorded
from config.local.supervisor import DidNotStart, Stopped, Supervisor

#: Notes its start and its end in a shared file, and takes as long to end as it is told.
SCRIPT = """
import signal, sys, time
name, seconds, notes = sys.argv[1], float(sys.argv[2]), sys.argv[3]
def note(text):
    with open(notes, "a") as file:
        file.write(f"{text} {name}\\n")
def end(*_):
    note("asked")
    time.sleep(seconds)
    note("ended")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, end)
note("began")
print("ready", flush=True)
while True:
    signal.pause()
"""


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def supervisor(tmp_path: Path, said: list[str]) -> Iterator[Supervisor]:
    with lock(tmp_path):
        found = Supervisor(tmp_path, said.append)
        yield found
        found.stop_all()


def spec(name: str, tmp_path: Path, *, seconds: float = 0, patience: float = 10) -> Spec:
    return Spec(
        name=name,
        command=(sys.executable, "-c", SCRIPT, name, str(seconds), str(tmp_path / "notes")),
        marker="signal.pause",
        folder=tmp_path,
        stop=((signal.SIGTERM, patience), (signal.SIGKILL, 5)),
    )


def notes(tmp_path: Path) -> list[str]:
    return (tmp_path / "notes").read_text().splitlines()


def begin(supervisor: Supervisor, wanted: Spec) -> Child:
    child = supervisor.start(lambda: wanted)
    supervisor.await_ready(child, lambda: "ready" in child.log_text(), 20)
    return child


def test_what_dies_is_started_again_and_its_restart_is_written_down(
    supervisor: Supervisor, tmp_path: Path, said: list[str]
) -> None:
    child = begin(supervisor, spec("upkeep", tmp_path))
    os.kill(child.pid, signal.SIGKILL)

    assert supervisor.until(lambda: notes(tmp_path) == ["began upkeep"] * 2, 20)

    assert read_state(tmp_path)["processes"]["upkeep"]["restarts"] == 1
    assert "upkeep ended (SIGKILL); again in 0.5 s" in said[0]


def test_everything_stops_in_order_and_workers_side_by_side(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    for name in ("valkey", "sandbox", "deliver-1", "urgent", "web"):
        begin(supervisor, spec(name, tmp_path, seconds=0.2))
    supervisor.stop_all()

    ends = [line for line in notes(tmp_path) if not line.startswith("began")]

    assert ends[:2] == ["asked web", "ended web"]
    assert sorted(ends[2:4]) == ["asked deliver-1", "asked urgent"]
    assert sorted(ends[4:6]) == ["ended deliver-1", "ended urgent"]
    assert ends[6:] == ["asked sandbox", "ended sandbox", "asked valkey", "ended valkey"]


def test_a_second_ctrl_c_hastens_the_stop(supervisor: Supervisor, tmp_path: Path) -> None:
    child = begin(supervisor, spec("deliver-1", tmp_path, seconds=600, patience=600))
    with supervisor.signals():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Stopped):
            supervisor.until(lambda: False, 20)
        os.kill(os.getpid(), signal.SIGINT)
        supervisor.stop_all()

    assert child.poll() == -signal.SIGKILL


def test_the_terminals_ctrl_c_reaches_no_child(supervisor: Supervisor, tmp_path: Path) -> None:
    child = begin(supervisor, spec("web", tmp_path))

    assert os.getpgid(child.pid) != os.getpgid(0)
    assert os.getsid(child.pid) == child.pid


def test_a_process_that_cannot_start_is_told_with_its_last_lines(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    broken = Spec(
        name="web",
        command=(sys.executable, "-c", "raise SystemExit('no such setting')"),
        marker="SystemExit",
        folder=tmp_path,
    )
    child = supervisor.start(lambda: broken)

    with pytest.raises(DidNotStart, match="no such setting"):
        supervisor.await_ready(child, lambda: False, 20)


def test_a_niced_child_runs_nicely(supervisor: Supervisor, tmp_path: Path) -> None:
    wanted = spec("deliver-1", tmp_path)
    nice = Spec(wanted.name, wanted.command, wanted.marker, wanted.folder, nice=5)

    child = begin(supervisor, nice)

    assert os.getpriority(os.PRIO_PROCESS, child.pid) == os.getpriority(os.PRIO_PROCESS, 0) + 5


def test_a_second_start_says_that_it_runs_and_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POSTROAD_VAR", str(tmp_path))
    with lock(tmp_path):
        first = Supervisor(tmp_path, print)
        first.addresses = {"admin": "http://127.0.0.1:8123/admin/"}
        first.write_state()

        code = start.main(["--no-demo"])

    assert code == 1
    shown = capsys.readouterr()
    assert "already runs" in shown.err
    assert "http://127.0.0.1:8123/admin/" in shown.err
    assert shown.out == ""


#: Starts what bin/start starts first, says so, and waits to be killed.
RUN_BELOW = """
import json, os, sys
from pathlib import Path
from config.local.stack import Stack
from config.local.state import end_orphans, lock
from config.local.supervisor import Stopped, Supervisor
var = Path(sys.argv[1])
say = lambda text: print(text, file=sys.stderr, flush=True)
with lock(var):
    end_orphans(var, say)
    supervisor = Supervisor(var, say)
    with supervisor.signals():
        try:
            urls = Stack(supervisor, {}).start_both()
            print(json.dumps(urls), flush=True)
            supervisor.until(lambda: False, 600)
        except Stopped:
            pass
        finally:
            supervisor.stop_all()
"""


def run_below(var: Path) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", RUN_BELOW, str(var)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "it ended before its servers answered"
    return process, json.loads(line)[0]


def test_after_the_supervisor_was_killed_the_next_one_ends_what_it_left(
    tmp_path: Path, said: list[str]
) -> None:
    killed, url = run_below(tmp_path)
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    killed.kill()
    killed.wait()
    left = recorded(read_state(tmp_path))
    assert sorted(left) == ["postgres", "valkey"]
    assert all(is_running(identity) for identity in left.values())

    next_one, url = run_below(tmp_path)

    assert not any(is_running(identity) for identity in left.values())
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
    next_one.terminate()
    assert next_one.wait(60) == 0
    assert not accepts(url)


def test_stop_ends_a_running_supervisor_and_all_it_started(tmp_path: Path, said: list[str]) -> None:
    process, url = run_below(tmp_path)

    stop_running(tmp_path, said.append)

    assert process.wait(60) == 0
    assert not accepts(url)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a signal of Linux's")
def test_a_worker_is_asked_to_end_when_its_supervisor_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from config.local.child import Child, Spec\n"
        "command = (sys.executable, '-c', sys.argv[1], 'deliver-1', '0', sys.argv[2])\n"
        "spec = Spec('deliver-1', command, 'signal.pause', Path('/'))\n"
        "child = Child(spec, Path(sys.argv[3]))\n"
        "while 'ready' not in child.log_text(): time.sleep(0.05)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    arguments = [SCRIPT, str(tmp_path / "notes"), str(tmp_path / "log")]
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    process.kill()
    process.wait()

    assert await_true(lambda: "ended deliver-1" in notes(tmp_path), 20)


def test_a_pid_that_somebody_else_has_by_now_is_not_touched(
    tmp_path: Path, supervisor: Supervisor, said: list[str]
) -> None:
    bystander = begin(supervisor, spec("web", tmp_path))
    state = dict(read_state(tmp_path))
    state["processes"]["web"]["started"] = "another boot:1"
    (tmp_path / "run" / "state.json").write_text(json.dumps(state))

    assert end_orphans(tmp_path, said.append) == []

    assert bystander.poll() is None


def test_two_supervisors_never_hold_one_state_folder(tmp_path: Path) -> None:
    with lock(tmp_path), pytest.raises(AlreadyRuns), lock(tmp_path):
        pass


def test_a_taken_port_is_answered_with_another_one() -> None:
    with socket.socket() as taken:
        taken.bind((ports.LOOPBACK, 0))
        taken.listen()
        usual = taken.getsockname()[1]

        choice = ports.choose(usual)

    assert choice.taken == usual
    assert choice.port != usual


def test_a_long_log_is_put_aside_when_its_process_starts(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    log = tmp_path / "log" / "web.log"
    log.parent.mkdir()
    log.write_bytes(b"x" * 10_000_001)

    child = begin(supervisor, spec("web", tmp_path))

    assert (tmp_path / "log" / "web.log.1").stat().st_size == 10_000_001
    assert child.log_text() == "ready\n"


def test_sandbox_and_real_mail_never_share_a_state_folder(tmp_path: Path) -> None:
    choose_world(tmp_path / "one", in_sandbox=True)
    choose_world(tmp_path / "two", in_sandbox=False)

    choose_world(tmp_path / "one", in_sandbox=True)
    with pytest.raises(WrongWorld, match="made for the sandbox"):
        choose_world(tmp_path / "one", in_sandbox=False)
    with pytest.raises(WrongWorld, match="made for real mail"):
        choose_world(tmp_path / "two", in_sandbox=True)


def test_fresh_never_deletes_real_mail_nor_somebodys_database(tmp_path: Path) -> None:
    choose_world(tmp_path / "real", in_sandbox=False)
    with pytest.raises(WillNotDelete, match="real mail"):
        remove_data(tmp_path / "real", {}, print)
    with pytest.raises(WillNotDelete, match="DATABASE_URL"):
        remove_data(tmp_path, {"DATABASE_URL": "postgres://u:p@db/x"}, print)


@pytest.mark.parametrize(
    "arguments", [["--recipients", "-5"], ["--web-port", "0"], ["--web-port", "65536"]]
)
def test_numbers_that_make_no_sense_are_refused_before_anything_starts(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        start.parse(arguments)

    assert f"{arguments[0]} lies between 1 and" in capsys.readouterr().err


def test_fresh_deletes_nothing_in_a_folder_that_bin_start_did_not_make(tmp_path: Path) -> None:
    journal = tmp_path / "journals" / "1.journal"
    journal.parent.mkdir()
    journal.write_text("what a server's worker has on the wire")

    with pytest.raises(WillNotDelete, match="holds journals"):
        remove_data(tmp_path, {}, print)

    assert journal.exists()
    remove_data(tmp_path / "nothing yet", {}, print)


def test_fresh_deletes_the_sandboxs_data_and_keeps_the_secrets(tmp_path: Path) -> None:
    choose_world(tmp_path, in_sandbox=True)
    data = tmp_path / "postgres" / "data"
    data.mkdir(parents=True)
    (tmp_path / "secrets").mkdir()

    remove_data(tmp_path, {}, print)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["secrets"]
