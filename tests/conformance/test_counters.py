"""One suite for both implementations of `Counters`: Redis, and its twin in memory."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.local.ephemeral import running_valkey
from config.local.ports import any_free
from deliverability.core.limits import DailyCap, Limit, RateLimit
from deliverability.counters import CountersUnavailable, RedisCounters, Stale
from tests.conformance.counters_peers import MemoryPeer, Peer, RedisPeer

CAP = DailyCap("7:2026-03-01", 7, date(2026, 3, 1), 1_000, "a test")
OTHER_CAP = DailyCap("8:2026-03-01", 8, date(2026, 3, 1), 1_000, "a test")
SLOW = RateLimit("7:gmail", 60, "a test")  # one at a time, one a minute
BRISK = RateLimit("7:outlook", 600, "a test")  # 10 at a time, then one in 6.1 seconds
HOUR_US = 3_600_000_000
THREADS = 16


@pytest.fixture(scope="module")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that nobody else counts on: these tests empty it."""
    with running_valkey(tmp_path_factory.mktemp("counters")) as (_, url):
        yield url


@pytest.fixture(params=["memory", "redis"])
def unbound(request: pytest.FixtureRequest) -> Peer:
    """Counters on which no limits were built yet."""
    if request.param == "memory":
        return MemoryPeer()
    peer = RedisPeer(request.getfixturevalue("valkey_url"))
    peer.lose()
    return peer


@pytest.fixture
def peer(unbound: Peer) -> Peer:
    """Counters with limits built on them, long ago."""
    unbound.counters.rebuild()
    unbound.let_pass(7_200)
    return unbound


def taken(peer: Peer, limits: list[Limit], wanted: int) -> tuple[int, Limit | None]:
    found = peer.counters.take(limits, wanted)
    return found.count, found.binding


# -- a server that the limits were not built on


def test_nothing_passes_until_the_limits_are_built(unbound: Peer) -> None:
    unbound.counters.grant(CAP, 100)

    for ask in (unbound.counters.take, unbound.counters.peek):
        for limits in ([CAP], [BRISK], []):
            with pytest.raises(Stale):
                ask(limits, 1)


def test_limits_are_built_once_whoever_comes_second(unbound: Peer) -> None:
    assert unbound.counters.rebuild() is True
    assert unbound.counters.rebuild() is False


def test_what_was_granted_before_the_limits_were_built_is_forfeited(unbound: Peer) -> None:
    unbound.counters.grant(CAP, 100)
    unbound.counters.rebuild()

    assert taken(unbound, [CAP], 1) == (0, CAP)


def test_a_loss_forfeits_allowances_and_empties_rates(peer: Peer) -> None:
    peer.counters.grant(CAP, 100)
    peer.lose()
    with pytest.raises(Stale):
        peer.counters.take([CAP], 1)
    peer.counters.rebuild()

    assert taken(peer, [CAP], 1) == (0, CAP)
    assert taken(peer, [SLOW], 1) == (0, SLOW)
    peer.let_pass(60)
    assert taken(peer, [SLOW], 5) == (1, SLOW)


def test_giving_back_to_a_server_that_forgot_does_nothing(unbound: Peer) -> None:
    unbound.counters.give_back([CAP, SLOW], 50)
    unbound.counters.rebuild()

    assert taken(unbound, [CAP], 1) == (0, CAP)


def test_a_loss_of_the_broker_is_reported_once(unbound: Peer) -> None:
    assert unbound.counters.broker_was_lost() is True
    assert unbound.counters.broker_was_lost() is False
    unbound.lose()
    assert unbound.counters.broker_was_lost() is True
    assert unbound.counters.broker_was_lost() is False


# -- taking


def test_without_limits_everything_passes(peer: Peer) -> None:
    assert taken(peer, [], 12_345) == (12_345, None)


def test_a_daily_cap_gives_what_was_granted_and_no_more(peer: Peer) -> None:
    peer.counters.grant(CAP, 10)

    assert taken(peer, [CAP], 7) == (7, None)
    assert taken(peer, [CAP], 7) == (3, CAP)
    assert taken(peer, [CAP], 7) == (0, CAP)
    peer.let_pass(86_400)
    assert taken(peer, [CAP], 7) == (0, CAP)
    peer.counters.grant(CAP, 5)
    assert taken(peer, [CAP], 7) == (5, CAP)


def test_each_cap_has_an_allowance_of_its_own(peer: Peer) -> None:
    peer.counters.grant(OTHER_CAP, 10)

    assert taken(peer, [CAP], 1) == (0, CAP)


def test_a_rate_gives_its_burst_and_then_one_for_each_interval(peer: Peer) -> None:
    assert taken(peer, [BRISK], 100) == (10, BRISK)
    assert taken(peer, [BRISK], 100) == (0, BRISK)
    peer.let_pass(3 * 6.1)
    assert taken(peer, [BRISK], 100) == (3, BRISK)


def test_a_long_rest_earns_no_more_than_the_burst(peer: Peer) -> None:
    peer.let_pass(30 * 86_400)

    assert taken(peer, [BRISK], 1_000) == (10, BRISK)


def test_the_wait_that_is_told_is_the_wait_that_helps(peer: Peer) -> None:
    first = peer.counters.take([SLOW], 5)
    assert (first.count, first.binding) == (1, SLOW)
    assert 55 < first.wait_seconds <= 60

    peer.let_pass(first.wait_seconds - 5)
    refused = peer.counters.take([SLOW], 5)
    assert (refused.count, refused.binding) == (0, SLOW)
    assert 0 < refused.wait_seconds <= 5

    peer.let_pass(refused.wait_seconds)
    assert taken(peer, [SLOW], 1) == (1, None)


def test_all_limits_are_taken_from_at_once_by_what_the_tightest_allows(peer: Peer) -> None:
    peer.counters.grant(CAP, 4)
    peer.counters.grant(OTHER_CAP, 100)

    assert taken(peer, [OTHER_CAP, CAP, BRISK], 50) == (4, CAP)
    assert taken(peer, [OTHER_CAP], 200) == (96, OTHER_CAP)
    assert taken(peer, [BRISK], 50) == (6, BRISK)


def test_a_limit_without_room_costs_the_others_nothing(peer: Peer) -> None:
    peer.counters.grant(CAP, 4)

    assert taken(peer, [CAP, OTHER_CAP, BRISK], 3) == (0, OTHER_CAP)
    assert taken(peer, [CAP, BRISK], 3) == (3, None)


def test_looking_takes_nothing(peer: Peer) -> None:
    peer.counters.grant(CAP, 4)

    for _ in range(3):
        found = peer.counters.peek([CAP, BRISK], 50)
        assert (found.count, found.binding) == (4, CAP)
        assert peer.counters.peek([BRISK], 50).count == 10


# -- giving back


def test_unused_admissions_of_a_daily_cap_can_be_taken_again(peer: Peer) -> None:
    peer.counters.grant(CAP, 10)
    peer.counters.take([CAP], 10)
    peer.counters.give_back([CAP], 4)

    assert taken(peer, [CAP], 10) == (4, CAP)


def test_a_rate_is_not_given_back_or_an_hour_could_hold_too_many(peer: Peer) -> None:
    """What was not used has been made up for by time when it comes back."""
    peer.counters.take([BRISK], 10)
    peer.let_pass(61)
    assert taken(peer, [BRISK], 10) == (10, None)

    peer.counters.give_back([BRISK], 10)

    assert taken(peer, [BRISK], 10) == (0, BRISK)


# -- many at once


def hammer(work: Callable[[int], int]) -> int:
    """Run `work` in many threads that start together; the sum of what they got."""
    start = threading.Barrier(THREADS)
    results: list[int] = []

    def run(number: int) -> None:
        start.wait()
        results.append(work(number))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads get in each other's way wherever they can
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(usual)
    assert len(results) == THREADS
    return sum(results)


def test_a_cap_is_met_exactly_however_many_take(peer: Peer) -> None:
    peer.counters.grant(CAP, 500)

    got = hammer(
        lambda number: sum(peer.counters.take([CAP], 1 + number % 7).count for _ in range(40))
    )

    assert got == 500
    assert taken(peer, [CAP], 1) == (0, CAP)


def test_several_limits_stay_in_step_however_many_take(peer: Peer) -> None:
    peer.counters.grant(CAP, 200)
    peer.counters.grant(OTHER_CAP, 300)

    got = hammer(lambda _: sum(peer.counters.take([OTHER_CAP, CAP], 3).count for _ in range(20)))

    assert got == 200
    assert taken(peer, [OTHER_CAP], 500) == (100, OTHER_CAP)


def test_a_burst_is_met_exactly_however_many_take(peer: Peer) -> None:
    rate = RateLimit("7:yahoo", 3_000, "a test")  # 50 at a time, then one in 1.2 seconds

    got = hammer(lambda _: peer.counters.take([rate], 10).count)

    # Whoever is slow may find one or two more that time has earned.
    assert 50 <= got <= 55


def test_losses_under_load_never_let_more_through_than_was_granted(peer: Peer) -> None:
    granted: list[int] = []

    def work(number: int) -> int:
        got = 0
        for turn in range(30):
            if number == 0 and turn % 5 == 0:
                peer.lose()
            try:
                got += peer.counters.take([CAP], 4).count
            except Stale:
                peer.counters.rebuild()
                granted.append(10)
                peer.counters.grant(CAP, 10)
        return got

    got = hammer(work)

    assert 0 < got <= sum(granted)


def test_one_of_many_builds_the_limits(unbound: Peer) -> None:
    assert hammer(lambda _: int(unbound.counters.rebuild())) == 1


# -- both alike

Steps = list[tuple[str, int]]
steps = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(1, 15)),
        st.tuples(st.just("take both"), st.integers(1, 15)),
        st.tuples(st.just("peek"), st.integers(1, 15)),
        st.tuples(st.just("give back"), st.integers(1, 5)),
        st.tuples(st.just("grant"), st.integers(1, 15)),
        st.tuples(st.just("pass"), st.integers(0, 40).map(lambda tens: tens * 10)),
        st.tuples(st.just("lose"), st.just(0)),
        st.tuples(st.just("rebuild"), st.just(0)),
    ),
    max_size=25,
)
#: One in 36 seconds: no moment of the steps comes within seconds of a boundary from below.
STEADY = RateLimit("7:apple", 100, "a test")


def told(peer: Peer, programme: Steps) -> list[object]:
    peer.lose()
    peer.counters.rebuild()
    answers: list[object] = []
    for step, number in programme:
        with contextlib.suppress(Stale):
            answers.append(_answer(peer, step, number))
            continue
        answers.append("stale")
    return answers


def _answer(peer: Peer, step: str, number: int) -> object:
    match step:
        case "take":
            return taken(peer, [STEADY], number)
        case "take both":
            return taken(peer, [CAP, STEADY], number)
        case "peek":
            return peer.counters.peek([STEADY, CAP], number).count
        case "give back":
            return peer.counters.give_back([CAP, STEADY], number)
        case "grant":
            return peer.counters.grant(CAP, number)
        case "pass":
            return peer.let_pass(number)
        case "rebuild":
            return peer.counters.rebuild()
        case _:
            return peer.lose()


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(programme=steps)
def test_redis_and_its_twin_give_the_same_answers(valkey_url: str, programme: Steps) -> None:
    redis_peer = RedisPeer(valkey_url)
    with contextlib.suppress(Stale):
        redis_peer.counters.peek([], 1)

    assert told(redis_peer, programme) == told(MemoryPeer(), programme)


# -- what no hour may hold

moves = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "take", "return", "lose"]),
        st.integers(0, 200),  # messages
        st.sampled_from([0, 0, 1, 500_000, 6_100_000, 36_000_000, 61_000_000]),  # us until then
        st.sampled_from([0.0, 0.5, 1.0]),  # how many of them are used
    ),
    min_size=20,
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(per_hour=st.sampled_from([1, 7, 60, 100, 119, 120, 600, 1_234, 50_000]), moves=moves)
def test_no_hour_holds_more_than_the_rate(
    per_hour: int, moves: list[tuple[str, int, int, float]]
) -> None:
    """Whatever is taken, used late or never, given back or lost meanwhile."""
    peer, rate = MemoryPeer(), RateLimit("7:gmail", per_hour, "a test")
    peer.counters.rebuild()
    sent: list[tuple[int, int]] = []
    unused = 0
    for move, number, wait_us, used in moves:
        peer.now_us += wait_us
        if move == "lose":
            peer.lose()
            peer.counters.rebuild()
        elif move == "return":
            peer.counters.give_back([rate], unused)
            unused = 0
        else:
            count = peer.counters.take([rate], number).count
            sent.append((peer.now_us, int(count * used)))
            unused += count - int(count * used)
    for number, (begin, _) in enumerate(sent):
        within = 0
        for at, count in sent[number:]:
            within += count
            # The hour's bound, and its like for each shorter or longer window.
            assert within <= rate.burst - 1 + -(-(at - begin + 1) // rate.interval_us)
        assert sum(count for at, count in sent if begin <= at < begin + HOUR_US) <= per_hour


@settings(max_examples=50, deadline=None)
@given(per_hour=st.integers(1, 3_000))
def test_a_busy_path_gets_its_whole_rate(per_hour: int) -> None:
    """A limit that lets too little through would be kept, too, and be wrong."""
    peer, rate = MemoryPeer(), RateLimit("7:gmail", per_hour, "a test")
    peer.counters.rebuild()
    peer.now_us += HOUR_US
    end, total = peer.now_us + HOUR_US, 0
    while peer.now_us < end:
        found = peer.counters.take([rate], 10_000)
        total += found.count
        peer.now_us += round(found.wait_seconds * 1_000_000)
    assert per_hour - 1 <= total <= per_hour


# -- a real server's ways to be away


def test_a_restarted_server_is_another_one_even_with_its_data(tmp_path: Path) -> None:
    with running_valkey(tmp_path) as (_, url):
        before = RedisCounters(url)
        before.rebuild()
        before.grant(CAP, 100)
        assert before.take([CAP], 10).count == 10
        before.broker_was_lost()
    with running_valkey(tmp_path) as (_, url):
        after = RedisCounters(url)
        with pytest.raises(Stale):
            after.take([CAP], 10)
        assert after.rebuild() is True
        assert after.take([CAP], 10).count == 0
        assert after.broker_was_lost() is True


def test_a_server_that_does_not_answer_is_never_guessed_for() -> None:
    counters = RedisCounters(f"redis://127.0.0.1:{any_free()}/0")
    asks: list[Callable[[], object]] = [
        lambda: counters.take([CAP], 1),
        lambda: counters.peek([CAP], 1),
        lambda: counters.give_back([CAP], 1),
        lambda: counters.grant(CAP, 1),
        lambda: counters.rebuild(),
        lambda: counters.broker_was_lost(),
    ]
    for ask in asks:
        with pytest.raises(CountersUnavailable):
            ask()
