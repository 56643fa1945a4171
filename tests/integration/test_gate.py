"""The gate on real PostgreSQL and Redis: no limit is passed, whoever asks, whatever is lost."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import redis

from config.local.ports import any_free
from deliverability import conf, gate
from deliverability.counters import Counters, RedisCounters
from deliverability.models import ConnectionSlot, DailyGrant, Hold, Pool, Source, SourceState
from tests.integration.world import a_pool, a_source, a_workspace, in_threads

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

pytestmark = pytest.mark.usefixtures("empty_redis")


@pytest.fixture
def pool(db: None) -> Pool:
    return a_pool()


def path_of(source: Source, provider: str = "gmail") -> gate.Path:
    return gate.Path(source.pk, provider)


def granted(source: Source) -> int:
    return sum(DailyGrant.objects.filter(source=source).values_list("granted", flat=True))


def rest_a_while(client: redis.Redis) -> None:
    """Let the rates of limits that were just built fill up: they restart empty."""
    conf.counters().rebuild()
    client.decrby("postroad:rebuilt", 3_600_000_000)


@contextlib.contextmanager
def redis_gone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    absent: Counters = RedisCounters(f"redis://127.0.0.1:{any_free()}/0")
    with monkeypatch.context() as patch:
        patch.setattr(conf, "counters", lambda: absent)
        yield


def test_a_source_without_limits_admits_everything(pool: Pool) -> None:
    assert gate.admit(path_of(a_source(pool)), 500, now=NOON) == gate.Admission(500, None, "")


def test_a_daily_cap_is_granted_in_blocks_and_used_up_exactly(pool: Pool) -> None:
    source = a_source(pool, daily_cap=100)
    path = path_of(source)

    first = gate.admit(path, 5, now=NOON)
    assert (first.admitted, first.why) == (5, "")
    assert granted(source) == 20

    assert gate.admit(path, 60, now=NOON).admitted == 60
    last = gate.admit(path, 60, now=NOON)
    assert last.admitted == 35
    assert last.why == f"100 messages on 2026-03-01 (daily cap of source {source.name})"
    assert last.ready_at == datetime(2026, 3, 2, tzinfo=UTC)
    assert gate.admit(path, 1, now=NOON).admitted == 0
    assert granted(source) == 100


def test_the_next_day_has_a_cap_of_its_own(pool: Pool) -> None:
    path = path_of(a_source(pool, daily_cap=10))
    assert gate.admit(path, 50, now=NOON).admitted == 10

    assert gate.admit(path, 50, now=NOON + timedelta(days=1)).admitted == 10


def test_a_cap_covers_all_providers_of_a_source(pool: Pool) -> None:
    source = a_source(pool, daily_cap=10)
    assert gate.admit(path_of(source, "gmail"), 7, now=NOON).admitted == 7

    assert gate.admit(path_of(source, "outlook"), 7, now=NOON).admitted == 3


def test_a_lost_redis_forfeits_what_was_granted_and_not_spent(
    pool: Pool, empty_redis: redis.Redis
) -> None:
    source = a_source(pool, daily_cap=100)
    assert gate.admit(path_of(source), 5, now=NOON).admitted == 5

    empty_redis.delete("postroad:generation", "postroad:allowances")

    admitted = [gate.admit(path_of(source), 30, now=NOON).admitted for _ in range(6)]
    assert sum(admitted) == 80  # 100 less the first block of 20
    assert granted(source) == 100


def test_unused_admissions_can_be_asked_for_again(pool: Pool) -> None:
    path = path_of(a_source(pool, daily_cap=10))
    admission = gate.admit(path, 10, now=NOON)

    gate.give_back(admission, 4)

    assert gate.admit(path, 10, now=NOON).admitted == 4


def test_giving_back_nothing_does_nothing(pool: Pool) -> None:
    path = path_of(a_source(pool, daily_cap=10))
    admission = gate.admit(path, 10, now=NOON)

    gate.give_back(admission, 0)
    gate.give_back(admission, -3)

    assert gate.admit(path, 10, now=NOON).admitted == 0


def test_a_rate_says_until_when(pool: Pool, empty_redis: redis.Redis) -> None:
    source = a_source(pool, per_hour=60)
    rest_a_while(empty_redis)

    first = gate.admit(path_of(source), 5, now=NOON)

    assert first.admitted == 1
    assert first.why == f"60 messages per hour (rate of source {source.name} at gmail)"
    assert first.ready_at is not None
    assert timedelta(seconds=50) < first.ready_at - NOON <= timedelta(seconds=60)


def test_a_cap_and_a_rate_admit_what_both_allow(pool: Pool, empty_redis: redis.Redis) -> None:
    source = a_source(pool, per_hour=600, daily_cap=13)
    rest_a_while(empty_redis)

    assert gate.admit(path_of(source, "gmail"), 50, now=NOON).admitted == 10
    assert gate.admit(path_of(source, "outlook"), 50, now=NOON).admitted == 3
    assert gate.admit(path_of(source, "yahoo"), 50, now=NOON).admitted == 0


@pytest.mark.parametrize("state", [SourceState.QUARANTINED, SourceState.COOLING])
def test_a_source_that_a_rule_stopped_admits_nothing_and_says_why(
    pool: Pool, state: SourceState
) -> None:
    source = a_source(pool, state=state, state_reason="listed at zen")
    path = path_of(source)

    admission = gate.admit(path, 5, now=NOON)
    room = gate.room([path], 5, now=NOON)[path]

    for answer, count in ((admission, admission.admitted), (room, room.count)):
        assert count == 0
        assert answer.why == f"source {source.name} is {state}: listed at zen"
        assert answer.ready_at == NOON + gate.REFUSED_ASK_AGAIN


def test_a_source_that_is_gone_admits_nothing(db: None) -> None:
    path = gate.Path(999_999, "gmail")

    assert gate.admit(path, 5, now=NOON).admitted == 0
    assert gate.room([path], 5, now=NOON)[path].why == "source 999999 no longer exists"
    assert gate.take_slots(path, uuid.uuid4(), 5, priority=2) == 0


def test_without_redis_nothing_passes_that_has_a_limit(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited, free = a_source(pool, daily_cap=10), a_source(pool)
    with redis_gone(monkeypatch):
        refused = gate.admit(path_of(limited), 5, now=NOON)
        room = gate.room([path_of(limited), path_of(free)], 5, now=NOON)
        gate.give_back(gate.Admission(5, None, "", (gate.DailyCap("k", 1, NOON.date(), 5, ""),)), 1)

    assert (refused.admitted, refused.ready_at) == (0, NOON + gate.ASK_AGAIN)
    assert refused.why.startswith("Redis does not answer: ")
    assert room[path_of(limited)].count == 0
    assert room[path_of(free)].count == 5
    assert gate.admit(path_of(limited), 50, now=NOON).admitted == 10


def test_room_promises_what_admit_then_gives(pool: Pool) -> None:
    capped, free = a_source(pool, daily_cap=30), a_source(pool)
    paths = [path_of(capped), path_of(free)]

    for _ in range(2):
        rooms = gate.room(paths, 100, now=NOON)
        assert [rooms[path].count for path in paths] == [30, 100]
    assert gate.admit(paths[0], 10, now=NOON).admitted == 10
    room = gate.room(paths, 100, now=NOON)[paths[0]]
    assert room.count == 20
    assert room.ready_at == datetime(2026, 3, 2, tzinfo=UTC)
    assert granted(capped) == 20  # looking grants nothing


@pytest.mark.django_db(transaction=True)
def test_no_cap_is_passed_by_many_workers_while_redis_is_emptied(
    empty_redis: redis.Redis,
) -> None:
    source = a_source(a_pool(), daily_cap=1_000)
    path = path_of(source)

    def work(number: int) -> int:
        got = 0
        for turn in range(40):
            if number == 0 and turn % 10 == 5:
                empty_redis.delete("postroad:generation", "postroad:allowances", "postroad:rates")
            got += gate.admit(path, 3 + number, now=NOON).admitted
        return got

    got = sum(in_threads(8, work))

    assert granted(source) <= 1_000
    assert got <= granted(source)
    assert got >= 500  # at most a block or two is forfeited by each of the four losses


@pytest.mark.django_db(transaction=True)
def test_a_cap_is_met_exactly_by_many_workers() -> None:
    source = a_source(a_pool(), daily_cap=500)
    path = path_of(source)

    def work(number: int) -> int:
        return sum(gate.admit(path, 2 + number, now=NOON).admitted for _ in range(30))

    assert sum(in_threads(8, work)) == 500


# -- holds


def test_a_hold_stops_its_workspace_and_the_global_stop_all(db: None) -> None:
    first, second = a_workspace(), a_workspace()
    assert gate.held([first.pk, second.pk]) == {}

    one = Hold.objects.create(workspace=first, reason="complaints", held_by="a rule")
    assert gate.held([first.pk, second.pk]) == {first.pk: "complaints"}

    one.released_at = NOON
    one.save()
    Hold.objects.create(reason="fire drill", held_by="ann")
    assert gate.held([first.pk, second.pk]) == {first.pk: "fire drill", second.pk: "fire drill"}


# -- connections


def test_workers_share_the_connections_of_a_path(pool: Pool) -> None:
    path = path_of(a_source(pool, max_connections=10))  # 8 for bulk
    first, second, third = (uuid.uuid4() for _ in range(3))

    assert gate.take_slots(path, first, 10, priority=2) == 4  # half of what is free
    assert gate.take_slots(path, second, 10, priority=2) == 2
    assert gate.take_slots(path, third, 10, priority=2) == 1
    assert gate.take_slots(path, first, 10, priority=2) == 5  # its four, and the last one
    assert gate.take_slots(path, third, 10, priority=2) == 1
    assert sum(ConnectionSlot.objects.values_list("count", flat=True)) == 8


def test_urgent_mail_finds_a_connection_that_bulk_left_free(pool: Pool) -> None:
    path = path_of(a_source(pool, max_connections=10))
    for _ in range(12):
        gate.take_slots(path, uuid.uuid4(), 10, priority=3)
    assert gate.take_slots(path, uuid.uuid4(), 1, priority=3) == 0

    assert gate.take_slots(path, uuid.uuid4(), 1, priority=4) == 1


def test_slots_are_given_back_by_path_and_by_worker(pool: Pool) -> None:
    source = a_source(pool, max_connections=1)
    gmail, outlook = path_of(source), path_of(source, "outlook")
    first, second = uuid.uuid4(), uuid.uuid4()
    assert gate.take_slots(gmail, first, 1, priority=2) == 1
    assert gate.take_slots(outlook, first, 1, priority=2) == 1
    assert gate.take_slots(gmail, second, 1, priority=2) == 0

    gate.release_slots(gmail, first)
    assert gate.take_slots(gmail, second, 1, priority=2) == 1
    assert gate.take_slots(outlook, second, 1, priority=2) == 0

    gate.release_worker(first)
    assert gate.take_slots(outlook, second, 1, priority=2) == 1


def test_a_worker_is_never_told_more_than_it_asked_for(pool: Pool) -> None:
    path, worker = path_of(a_source(pool, max_connections=100)), uuid.uuid4()
    assert gate.take_slots(path, worker, 8, priority=2) == 8

    assert gate.take_slots(path, worker, 3, priority=2) == 3
    assert ConnectionSlot.objects.get().count == 8


@pytest.mark.django_db(transaction=True)
def test_no_more_connections_than_allowed_however_many_workers_ask() -> None:
    path = path_of(a_source(a_pool(), max_connections=20))  # 16 for bulk
    workers = [uuid.uuid4() for _ in range(8)]

    def work(number: int) -> int:
        most = 0
        for _ in range(20):
            most = max(most, gate.take_slots(path, workers[number], 20, priority=2))
            held = sum(ConnectionSlot.objects.values_list("count", flat=True))
            assert held <= 16
            if number % 3 == 0:
                gate.release_slots(path, workers[number])
        return most

    assert max(in_threads(8, work)) >= 1
    assert sum(ConnectionSlot.objects.values_list("count", flat=True)) <= 16
