"""Journal files with real processes: what death frees, what a stop or a full disk does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailer.journal import (
    BatchTrace,
    Journal,
    JournalClosed,
    JournalFull,
    Missing,
    SettledRecord,
    Settlement,
    claim_dead,
    journal_ids,
    read,
)

REPOSITORY = Path(__file__).parents[2]
DELIVERED = SettledRecord(1.5, "accepted", 250, "2.0.0", "OK", "content", "mx.test", 3)

OWNER = """
    import sys, time
    from pathlib import Path
    from mailer.journal import Journal, SettledRecord
    journal = Journal.open(Path(sys.argv[1]))
    journal.took(1)
    journal.intend(1, 10, 1)
    journal.intend(1, 11, 1)
    journal.settle(1, 10, 1, SettledRecord(1.5, "accepted", 250, "2.0.0", "OK", "content",
                                           "mx.test", 3))
    {then}
    print(journal.id, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal.open(tmp_path)
    yield journal
    journal.close()


def run_python(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, "the condition did not come true in 20 s"
        time.sleep(0.01)


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = run_python(OWNER.format(then=""), str(tmp_path))
    yield process
    process.kill()
    process.wait()
    if process.stdout:
        process.stdout.close()


def test_a_killed_owner_loses_the_lock_and_leaves_its_notes(
    tmp_path: Path, owner: subprocess.Popen[str]
) -> None:
    journal_id = first_line(owner)
    assert claim_dead(tmp_path, journal_id) is None

    owner.send_signal(signal.SIGKILL)
    owner.wait()

    claim = claim_dead(tmp_path, journal_id)
    assert claim is not None
    with claim:
        expected = BatchTrace({10: 1, 11: 1}, {10: Settlement(1, DELIVERED)})
        assert claim.read() == {1: expected}
        assert expected.unanswered == {11: 1}


def test_a_stopped_owner_keeps_the_lock(tmp_path: Path, owner: subprocess.Popen[str]) -> None:
    journal_id = first_line(owner)

    owner.send_signal(signal.SIGSTOP)
    eventually(lambda: _state_of(owner.pid) == "T")

    assert claim_dead(tmp_path, journal_id) is None


def _state_of(pid: int) -> str:
    listed = subprocess.run(
        ["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True, check=True
    )
    return listed.stdout.strip()[:1]


def test_a_program_started_by_the_owner_does_not_keep_the_lock(tmp_path: Path) -> None:
    then = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid)"
    owner = run_python(OWNER.format(then=then), str(tmp_path))
    child, journal_id = int(first_line(owner)), first_line(owner)
    try:
        owner.kill()
        owner.wait()
        claim = claim_dead(tmp_path, journal_id)
        assert claim is not None
        claim.release()
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_process_forked_from_the_owner_neither_keeps_the_lock_nor_writes(
    tmp_path: Path,
) -> None:
    then = """
    import os
    child = os.fork()
    if child == 0:
        try:
            journal.intend(1, 99, 1)
        except ValueError as error:
            os.write(1, (type(error).__name__ + chr(10)).encode())
        time.sleep(600)
    os.write(1, f"{child}{chr(10)}".encode())"""
    owner = run_python(OWNER.format(then=then), str(tmp_path))
    try:
        printed = {first_line(owner), first_line(owner), first_line(owner)}
    finally:
        owner.kill()
        owner.wait()
    child = next(int(line) for line in printed if line.isdigit())
    try:
        assert "JournalClosed" in printed
        claim = claim_dead(tmp_path, next(iter(journal_ids(tmp_path))))
        assert claim is not None
        with claim:
            traces = claim.read()
        assert not isinstance(traces, Missing)
        assert 99 not in traces[1].intents
    finally:
        os.kill(child, signal.SIGKILL)


def test_only_one_rescuer_gets_a_dead_journal(tmp_path: Path, owner: subprocess.Popen[str]) -> None:
    journal_id = first_line(owner)
    owner.kill()
    owner.wait()

    first = claim_dead(tmp_path, journal_id)
    assert first is not None
    assert claim_dead(tmp_path, journal_id) is None

    first.release()
    second = claim_dead(tmp_path, journal_id)
    assert second is not None
    second.discard()
    second.release()
    assert journal_ids(tmp_path) == ()
    assert claim_dead(tmp_path, journal_id) is None


def test_a_disk_without_room_refuses_the_intent_and_loses_nothing_before_it(
    tmp_path: Path,
) -> None:
    """The kernel writes as much of the record as its limit lets it: a real half record."""
    program = """
        import resource, sys
        from pathlib import Path
        from mailer.journal import Journal, JournalFull, read
        folder = Path(sys.argv[1])
        journal = Journal.open(folder)
        journal.took(1)
        journal.intend(1, 1, 1)
        size = next(folder.glob("*.log")).stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5, resource.RLIM_INFINITY))
        try:
            journal.intend(1, 2, 1)
        except JournalFull as error:
            print("refused:", error.strerror)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        journal.intend(1, 3, 1)
        print(sorted(read(folder, journal.id)[1].intents))
    """
    process = run_python(program, str(tmp_path))
    output, _ = process.communicate(timeout=60)

    refusal, intents = output.splitlines()
    assert refusal.startswith("refused: the journal cannot be written (")
    assert intents == "[1, 3]"


def test_notes_go_to_a_new_segment_when_half_a_record_cannot_be_cut_off(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, size: int) -> None:
        raise OSError(5, "Input/output error")

    def write_half(fd: int, data: bytes) -> int:
        return really_write(fd, data[: len(data) // 2])

    really_write = os.write
    journal.intend(1, 1, 1)
    monkeypatch.setattr(os, "ftruncate", refuse)
    monkeypatch.setattr(os, "write", write_half)
    with pytest.raises(JournalFull):
        journal.intend(1, 2, 1)
    monkeypatch.undo()

    journal.intend(1, 3, 1)

    assert _segment_count(journal) == 2
    assert read(journal.folder, journal.id) == {1: BatchTrace({1: 1, 3: 1})}
    journal.recorded(1)
    assert read(journal.folder, journal.id) == {}


def test_a_missing_journal_is_not_an_empty_one(tmp_path: Path, journal: Journal) -> None:
    assert read(tmp_path, journal.id) == {}

    assert isinstance(read(tmp_path, "0" * 32), Missing)
    assert isinstance(read(tmp_path / "lost", journal.id), Missing)
    assert claim_dead(tmp_path, "0" * 32) is None


def test_a_journal_is_found_by_its_id_however_the_id_is_written(journal: Journal) -> None:
    journal.took(1)

    for written in (journal.id, uuid.UUID(journal.id), str(uuid.UUID(journal.id))):
        assert read(journal.folder, written) == {1: BatchTrace()}
    journal.recorded(1)


def test_strange_files_in_the_folder_are_no_journals(journal: Journal) -> None:
    (journal.folder / "notes.lock").touch()
    (journal.folder / "syslog.log").touch()

    assert journal_ids(journal.folder) == (journal.id,)


steps = st.lists(
    st.tuples(
        st.sampled_from(["took", "intend", "settle", "recorded"]),
        st.integers(1, 4),  # batch
        st.integers(1, 5),  # message
    ),
    max_size=80,
)


@given(steps)
@settings(max_examples=60)
def test_whatever_happens_the_journal_tells_of_the_open_batches_and_of_no_others(
    happened: list[tuple[str, int, int]],
) -> None:
    """Segments of a few records, so that they are begun, marked and deleted all the time."""
    expected: dict[int, BatchTrace] = {}
    with tempfile.TemporaryDirectory() as name:
        journal = Journal.open(Path(name), segment_bytes=150)
        for step, batch_id, message_id in happened:
            if step == "took":
                journal.recorded(batch_id)  # a batch is only taken when it is not in work
                journal.took(batch_id)
                expected[batch_id] = BatchTrace()
            elif step == "recorded":
                journal.recorded(batch_id)
                expected.pop(batch_id, None)
            elif batch_id in expected and step == "intend":
                journal.intend(batch_id, message_id, 1)
                expected[batch_id].intents[message_id] = 1
            elif batch_id in expected:
                journal.settle(batch_id, message_id, 1, DELIVERED)
                expected[batch_id].settled[message_id] = Settlement(1, DELIVERED)
        assert read(Path(name), journal.id) == expected
        assert journal.open_batches == set(expected)
        journal.close()
        assert bool(list(Path(name).iterdir())) == bool(expected)


def test_a_journal_damaged_in_the_middle_is_missing_but_tells_what_is_readable(
    journal: Journal,
) -> None:
    journal.intend(1, 1, 1)
    journal.intend(1, 2, 1)
    path = next(journal.folder.glob("*.log"))
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)

    found = read(journal.folder, journal.id)

    assert isinstance(found, Missing)
    assert found.known == {1: BatchTrace({1: 1})}


def _segment_count(journal: Journal) -> int:
    return len(list(journal.folder.glob(f"{journal.id}.*.log")))


def test_files_do_not_grow_without_bound_while_batches_overlap(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, segment_bytes=2_000)
    for batch_id in range(1, 200):
        journal.took(batch_id)
        for message_id in range(10):
            journal.intend(batch_id, message_id, 1)
        if batch_id > 3:
            journal.recorded(batch_id - 3)
        assert _segment_count(journal) <= 4

    assert set(read(tmp_path, journal.id)) == {197, 198, 199}  # type: ignore[arg-type]
    journal.close()


def test_one_stuck_batch_keeps_its_own_segment_only(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, segment_bytes=2_000)
    journal.took(1)
    journal.intend(1, 1, 1)
    for batch_id in range(2, 100):
        journal.took(batch_id)
        for message_id in range(10):
            journal.intend(batch_id, message_id, 1)
            journal.settle(batch_id, message_id, 1, DELIVERED)
        journal.recorded(batch_id)

    assert _segment_count(journal) <= 3
    assert read(tmp_path, journal.id) == {1: BatchTrace({1: 1})}
    journal.close()


def test_closing_an_idle_journal_removes_its_files(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path)
    journal.took(1)
    journal.recorded(1)

    journal.close()

    assert list(tmp_path.iterdir()) == []
    with pytest.raises(JournalClosed):
        journal.took(2)


def test_closing_a_journal_with_an_open_batch_leaves_it_to_a_rescuer(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path)
    journal.intend(1, 1, 1)

    journal.close()

    claim = claim_dead(tmp_path, journal.id)
    assert claim is not None
    with claim:
        assert claim.read() == {1: BatchTrace({1: 1})}


def test_many_threads_write_whole_records(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, segment_bytes=20_000)

    def work(batch_id: int) -> None:
        journal.took(batch_id)
        for message_id in range(300):
            journal.intend_all(batch_id, [(message_id, 1)])
            journal.settle(batch_id, message_id, 1, DELIVERED)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    traces = read(tmp_path, journal.id)
    assert not isinstance(traces, Missing)
    assert {n: len(trace.settled) for n, trace in traces.items()} == dict.fromkeys(range(6), 300)
    for batch_id in range(6):
        journal.recorded(batch_id)
    assert _segment_count(journal) == 1
    journal.close()


def test_with_content_sync_each_intent_is_on_the_disk_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    really_sync = os.fdatasync

    def sync(fd: int) -> None:
        really_sync(fd)
        synced.append(fd)

    monkeypatch.setattr(os, "fdatasync", sync)
    journal = Journal.open(tmp_path, sync="content")
    journal.took(1)
    assert synced == []
    journal.intend_all(1, [(1, 1), (2, 1)])
    journal.settle(1, 1, 1, DELIVERED)
    journal.close()

    assert len(synced) == 1


def test_no_intent_that_was_returned_from_is_lost_by_a_kill_at_any_instant(tmp_path: Path) -> None:
    program = """
        import sys
        from pathlib import Path
        from mailer.journal import Journal
        journal = Journal.open(Path(sys.argv[1]), segment_bytes=3_000)
        print(journal.id, flush=True)
        journal.took(1)
        number = 0
        while True:
            number += 1
            journal.intend(1, number, 1)
            sys.stdout.write(f"{number}\\n")
            sys.stdout.flush()
    """
    owner = run_python(program, str(tmp_path))
    journal_id = first_line(owner)
    assert owner.stdout is not None
    for _ in range(500):
        owner.stdout.readline()
    owner.kill()
    rest = owner.stdout.read().splitlines()
    owner.wait()
    # The last line may be torn by the kill, like the record behind it.
    returned_from = max([500, *(int(line) for line in rest[:-1])])

    traces = read(tmp_path, journal_id)

    assert not isinstance(traces, Missing)
    assert set(range(1, returned_from + 1)) <= set(traces[1].intents)
