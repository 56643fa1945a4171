from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.core.priority import (
    TURNS_PER_LOWER_PICK,
    Priority,
    pick,
    queue_for,
)

BULK = (Priority.HIGH, Priority.NORMAL, Priority.LOW)
counts = st.integers(min_value=0, max_value=1_000)
turns = st.integers(min_value=0, max_value=10**9)


@pytest.mark.parametrize(
    ("priority", "queue"),
    [
        (Priority.URGENT, "deliver.urgent"),
        (Priority.HIGH, "deliver.high"),
        (Priority.NORMAL, "deliver.normal"),
        (Priority.LOW, "deliver.low"),
    ],
)
def test_each_priority_has_its_queue(priority: Priority, queue: str) -> None:
    assert queue_for(priority) == queue


def test_a_round_of_picks_with_everything_waiting() -> None:
    waiting = dict.fromkeys(BULK, 100)

    picked = [pick(waiting, turn) for turn in range(16)]

    assert picked == [
        *[(Priority.HIGH, "deliver.high")] * 7,
        (Priority.NORMAL, "deliver.high"),
        *[(Priority.HIGH, "deliver.high")] * 7,
        (Priority.LOW, "deliver.high"),
    ]


@given(st.dictionaries(st.sampled_from(BULK), counts), turns)
def test_urgent_never_waits(waiting: dict[Priority, int], turn: int) -> None:
    picked = pick({**waiting, Priority.URGENT: 1}, turn)

    assert picked == (Priority.URGENT, "deliver.urgent")


@given(st.sets(st.sampled_from(BULK), min_size=1), turns)
def test_nothing_starves(waiting: set[Priority], turn: int) -> None:
    """However the turns begin, all that wait are served within so many of them."""
    enough = TURNS_PER_LOWER_PICK * (len(waiting) + 1)

    served = {pick(dict.fromkeys(waiting, 1), turn + n)[0] for n in range(enough)}

    assert served == waiting


@given(turns)
def test_higher_goes_first_most_of_the_time(turn: int) -> None:
    waiting = dict.fromkeys(BULK, 1)

    served = Counter(pick(waiting, turn + n)[0] for n in range(160))

    assert served == {Priority.HIGH: 140, Priority.NORMAL: 10, Priority.LOW: 10}


@given(st.dictionaries(st.sampled_from(Priority), counts), turns)
def test_only_what_waits_is_picked(waiting: dict[Priority, int], turn: int) -> None:
    if not any(waiting.values()):
        with pytest.raises(ValueError, match="nothing is waiting"):
            pick(waiting, turn)
        return

    priority, queue = pick(waiting, turn)

    assert waiting[priority] > 0
    assert queue in (queue_for(priority), "deliver.high")


def test_who_waits_alone_keeps_its_own_queue() -> None:
    assert {pick({Priority.LOW: 3}, turn) for turn in range(20)} == {(Priority.LOW, "deliver.low")}
