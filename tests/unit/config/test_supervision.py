from __future__ import annotations

import signal

import pytest

from config.local.postgres import FAST_SHUTDOWN
from config.local.running_user import Mode, choose_mode
from config.local.state import recorded, stop_groups, supervisor_of
from config.local.supervisor import failures_after, patience_after, reason, restart_delay


def test_whole_schedule_of_restarts() -> None:
    assert [restart_delay(n) for n in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_a_process_that_fails_for_ever_is_tried_twice_a_minute() -> None:
    assert restart_delay(10_000) == 30


def test_a_process_that_ran_steadily_begins_its_failures_anew() -> None:
    assert failures_after(7, lived_seconds=59) == 8
    assert failures_after(7, lived_seconds=60) == 1


def test_intake_stops_before_workers_and_the_database_stops_last() -> None:
    started = [*("sandbox", "valkey", "postgres", "deliver-1", "deliver-2"), "urgent", "upkeep"]
    started += ["flower", "beat", "web"]

    assert stop_groups(started) == [
        ["flower", "beat", "web"],
        ["deliver-1", "deliver-2", "urgent", "upkeep"],
        ["sandbox"],
        ["valkey"],
        ["postgres"],
    ]


def test_what_never_started_is_not_stopped() -> None:
    assert stop_groups(["postgres", "valkey"]) == [["valkey"], ["postgres"]]


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "exit code 0"), (3, "exit code 3"), (-9, "SIGKILL"), (-15, "SIGTERM"), (-99, "signal 99")],
)
def test_an_exit_is_told_in_words(code: int, words: str) -> None:
    assert reason(code) == words


@pytest.mark.parametrize(
    ("is_root", "is_linux", "allowed", "mode"),
    [
        (False, True, True, Mode.DIRECT),
        (False, False, False, Mode.DIRECT),
        (True, True, True, Mode.USER_NAMESPACE),
        (True, True, False, Mode.NOBODY),
        (True, False, True, Mode.NOBODY),
    ],
)
def test_root_gives_up_its_rights_in_the_gentlest_way_that_works(
    is_root: bool, is_linux: bool, allowed: bool, mode: Mode
) -> None:
    assert choose_mode(is_root=is_root, is_linux=is_linux, may_unshare=lambda: allowed) is mode


def test_the_state_file_names_the_processes_to_end() -> None:
    entry = {"pid": 7, "started": "boot:1", "marker": "celery", "restarts": 2, "log": "/x"}
    state = {"supervisor": {**entry, "pid": 6}, "processes": {"urgent": entry}}

    assert recorded(state)["urgent"].pid == 7
    assert (found := supervisor_of(state)) is not None
    assert found.pid == 6


def test_an_empty_state_names_nobody() -> None:
    assert recorded({}) == {}
    assert supervisor_of({}) is None


def test_the_database_is_asked_for_a_fast_shutdown_before_anything_ruder() -> None:
    assert [number for number, _ in FAST_SHUTDOWN] == [
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGKILL,
    ]


def test_each_further_ctrl_c_shortens_the_patience_but_never_to_nothing() -> None:
    assert [patience_after(signals, 30.0) for signals in range(5)] == [30, 30, 3, 0.5, 0.5]
    assert patience_after(2, 1.0) == 1
