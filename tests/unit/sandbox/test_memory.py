from __future__ import annotations

from sandbox.memory import AttemptMemory, GreylistMemory


def test_the_first_attempts_are_told_from_the_later_ones() -> None:
    memory = AttemptMemory()

    assert [memory.is_among_first("a", 2) for _ in range(4)] == [True, True, False, False]


def test_attempts_are_counted_for_each_key_alone() -> None:
    memory = AttemptMemory()

    assert memory.is_among_first("a", 1)
    assert memory.is_among_first("b", 1)


def test_a_forgotten_key_starts_anew() -> None:
    memory = AttemptMemory()
    memory.is_among_first("a", 1)

    memory.forget("a")

    assert memory.is_among_first("a", 1)


def test_attempts_of_keys_unused_for_longest_are_forgotten_first() -> None:
    memory = AttemptMemory(entries_at_most=2)
    for key in ("a", "b", "a", "c"):
        memory.is_among_first(key, 5)

    assert not memory.is_among_first("a", 2)
    assert memory.is_among_first("b", 1)


def test_a_triplet_passes_once_the_delay_is_over() -> None:
    greylist = GreylistMemory(delay_seconds=4)
    tries = [
        greylist.may_pass("127.0.0.1", "a@x", "b@y", now=now) for now in (100, 103.9, 104, 200)
    ]

    assert tries == [False, False, True, True]


def test_another_client_sender_or_recipient_waits_on_its_own() -> None:
    greylist = GreylistMemory(delay_seconds=4)
    greylist.may_pass("127.0.0.1", "a@x", "b@y", now=0)

    assert not greylist.may_pass("127.0.0.2", "a@x", "b@y", now=9)
    assert not greylist.may_pass("127.0.0.1", "c@x", "b@y", now=9)
    assert not greylist.may_pass("127.0.0.1", "a@x", "d@y", now=9)
    assert greylist.may_pass("127.0.0.1", "A@x", "B@y", now=9)


def test_numbers_and_extensions_of_a_verp_sender_make_no_new_triplet() -> None:
    greylist = GreylistMemory(delay_seconds=4)
    greylist.may_pass("127.0.0.1", "bounce-17+b=y@x", "b@y", now=0)

    assert greylist.may_pass("127.0.0.1", "bounce-18+c=z@x", "b@y", now=9)


def test_the_oldest_triplets_are_forgotten_first() -> None:
    greylist = GreylistMemory(delay_seconds=4, entries_at_most=1)
    greylist.may_pass("127.0.0.1", "a@x", "b@y", now=0)
    greylist.may_pass("127.0.0.1", "a@x", "c@y", now=0)

    assert not greylist.may_pass("127.0.0.1", "a@x", "b@y", now=9)


def test_without_a_delay_everything_passes_at_once() -> None:
    assert GreylistMemory(delay_seconds=0).may_pass("127.0.0.1", "a@x", "b@y", now=0)
