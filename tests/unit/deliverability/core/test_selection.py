from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from deliverability.core.selection import Candidate, choose

candidate_lists = st.lists(
    st.builds(Candidate, st.integers(1, 50), st.integers(0, 500)),
    max_size=8,
    unique_by=lambda candidate: candidate.source_id,
)


def test_a_source_without_room_is_never_chosen() -> None:
    assert choose([Candidate(1, 0), Candidate(2, 0)], size=10, turn=0) is None
    assert choose([], size=10, turn=0) is None


def test_the_source_that_takes_the_most_of_the_batch_wins() -> None:
    candidates = [Candidate(1, 3), Candidate(2, 8), Candidate(3, 5)]

    assert {choose(candidates, size=10, turn=turn) for turn in range(5)} == {Candidate(2, 8)}


def test_room_beyond_the_batch_is_no_advantage() -> None:
    candidates = [Candidate(1, 10), Candidate(2, 10_000), Candidate(3, 9)]

    chosen = Counter(choose(candidates, size=10, turn=turn) for turn in range(100))

    assert chosen == {Candidate(1, 10): 50, Candidate(2, 10_000): 50}


@given(candidates=candidate_lists, size=st.integers(1, 200), turn=st.integers(0, 10**9))
def test_whoever_is_chosen_has_room_and_nobody_could_take_more(
    candidates: list[Candidate], size: int, turn: int
) -> None:
    chosen = choose(candidates, size=size, turn=turn)

    rooms = [min(candidate.room, size) for candidate in candidates]
    if chosen is None:
        assert not any(rooms)
    else:
        assert chosen in candidates
        assert min(chosen.room, size) == max(rooms) > 0


@given(candidates=candidate_lists, size=st.integers(1, 200), turn=st.integers(0, 10**9))
def test_the_order_of_the_question_does_not_matter(
    candidates: list[Candidate], size: int, turn: int
) -> None:
    assert choose(candidates, size=size, turn=turn) == choose(
        candidates[::-1], size=size, turn=turn
    )
