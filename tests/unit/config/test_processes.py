from __future__ import annotations

import pytest

from config.local.processes import Facts, Identity

OURS = Identity(pid=4711, started="boot-1:1000", marker="celery")


def test_the_same_start_and_command_is_the_process_we_started() -> None:
    assert OURS.is_still(Facts("boot-1:1000", "/venv/bin/python -m celery -A config worker"))


@pytest.mark.parametrize(
    "facts",
    [
        None,  # nobody has the pid
        Facts("boot-1:2000", "/venv/bin/python -m celery"),  # the pid's next owner
        Facts("boot-2:1000", "/venv/bin/python -m celery"),  # after a reboot
        Facts("boot-1:1000", "/usr/bin/vim"),
    ],
)
def test_anybody_else_with_the_pid_is_left_alone(facts: Facts | None) -> None:
    assert not OURS.is_still(facts)


def test_a_process_that_ended_before_it_was_noted_matches_nobody() -> None:
    unseen = Identity(pid=4711, started="", marker="celery")

    assert not unseen.is_still(Facts("", "celery"))
