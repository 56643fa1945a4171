from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deliverability.core.limits import (
    DailyCap,
    RateLimit,
    Refusal,
    SourceFacts,
    connections_for,
    limits_for,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LOW, NORMAL, HIGH, URGENT = 1, 2, 3, 4


def source(
    state: str = "active",
    *,
    reason: str = "",
    daily_cap: int | None = None,
    per_hour: int | None = None,
    max_connections: int | None = None,
) -> SourceFacts:
    return SourceFacts(7, "out-1", state, reason, daily_cap, per_hour, max_connections)


def cap_of(amount: int) -> DailyCap:
    return DailyCap("7:2026-03-01", 7, date(2026, 3, 1), amount, "a test")


def test_a_source_without_settings_has_no_limit() -> None:
    assert limits_for(source(), "gmail", now=NOON) == []


@pytest.mark.parametrize("state", ["new", "warming", "active"])
def test_a_source_that_sends_has_all_limits_that_were_set(state: str) -> None:
    limits = limits_for(source(state, daily_cap=500, per_hour=60), "gmail", now=NOON)

    assert limits == [
        DailyCap("7:2026-03-01", 7, date(2026, 3, 1), 500, "daily cap of source out-1"),
        RateLimit("7:gmail", 60, "rate of source out-1 at gmail"),
    ]


@pytest.mark.parametrize("state", ["cooling", "quarantined", "a state of tomorrow"])
def test_any_other_state_refuses_and_says_why(state: str) -> None:
    refusal = limits_for(source(state, reason="listed at zen"), "gmail", now=NOON)

    assert refusal == Refusal(f"source out-1 is {state}: listed at zen")


def test_the_daily_cap_covers_all_providers_and_the_rate_only_one() -> None:
    facts = source(daily_cap=500, per_hour=60)
    keys = {
        provider: [limit.key for limit in limits_for(facts, provider, now=NOON)]  # type: ignore[union-attr]
        for provider in ("gmail", "outlook")
    }

    assert keys == {"gmail": ["7:2026-03-01", "7:gmail"], "outlook": ["7:2026-03-01", "7:outlook"]}


def test_a_cap_of_zero_is_a_limit_and_not_its_absence() -> None:
    limits = limits_for(source(daily_cap=0), "gmail", now=NOON)

    assert [limit.cap for limit in limits if isinstance(limit, DailyCap)] == [0]  # type: ignore[union-attr]


def test_the_sending_day_is_that_of_utc_wherever_the_clock_stands() -> None:
    tokyo = datetime(
        2026, 3, 2, 3, tzinfo=timezone(timedelta(hours=9))
    )  # 18:00 UTC, the day before

    (cap,) = limits_for(source(daily_cap=5), "gmail", now=tokyo)  # type: ignore[misc]

    assert isinstance(cap, DailyCap)
    assert (cap.day, cap.renews_at) == (date(2026, 3, 1), datetime(2026, 3, 2, tzinfo=UTC))


def test_a_rate_must_allow_something() -> None:
    with pytest.raises(ValueError, match="at least 1 message per hour"):
        RateLimit("7:gmail", 0, "a test")


@pytest.mark.parametrize(
    ("per_hour", "burst", "interval_us"),
    [
        (1, 1, 3_600_000_000),
        (60, 1, 60_000_000),
        (100, 1, 36_000_000),
        (120, 2, 30_252_101),  # 3,600 s / 119
        (3600, 60, 1_016_662),
        (1_000_000, 16_666, 3_662),
    ],
)
def test_the_schedule_of_a_rate(per_hour: int, burst: int, interval_us: int) -> None:
    rate = RateLimit("k", per_hour, "a test")

    assert (rate.burst, rate.interval_us) == (burst, interval_us)


@given(per_hour=st.integers(min_value=1, max_value=10_000_000))
def test_a_burst_and_an_hour_of_intervals_stay_within_the_rate(per_hour: int) -> None:
    rate = RateLimit("k", per_hour, "a test")

    most_in_an_hour = rate.burst - 1 + -(-3_600_000_000 // rate.interval_us)

    assert most_in_an_hour <= per_hour
    # And it is not needlessly slow: a message loses less than a microsecond to rounding.
    assert most_in_an_hour >= per_hour - per_hour // rate.interval_us - 1


@pytest.mark.parametrize(
    ("cap", "wanted", "granted", "block"),
    [
        (10_000, 1, 0, 200),  # 2 % of the cap
        (10_000, 350, 0, 350),  # what is wanted, where that is more
        (100, 1, 0, 20),  # never tiny
        (100, 1, 90, 10),  # never above the cap
        (100, 500, 0, 100),
        (100, 1, 100, 0),
        (100, 1, 130, 0),  # the cap was lowered during the day
        (0, 5, 0, 0),
    ],
)
def test_blocks_of_a_daily_cap(cap: int, wanted: int, granted: int, block: int) -> None:
    assert cap_of(cap).block(wanted, granted) == block


@given(
    cap=st.integers(min_value=0, max_value=5_000),
    asks=st.lists(st.integers(min_value=1, max_value=900), max_size=60),
)
def test_blocks_never_add_up_to_more_than_the_cap(cap: int, asks: list[int]) -> None:
    granted = 0
    for wanted in asks:
        block = cap_of(cap).block(wanted, granted)
        assert block >= min(wanted, cap - granted)
        granted += block
    assert granted <= cap


def test_limits_say_their_value_their_unit_and_their_origin() -> None:
    assert RateLimit("k", 60, "rate of source out-1 at gmail").describe() == (
        "60 messages per hour (rate of source out-1 at gmail)"
    )
    assert cap_of(500).describe() == "500 messages on 2026-03-01 (a test)"


@pytest.mark.parametrize(
    ("max_connections", "by_priority"),
    [
        (None, [10, 20, 30, 40]),
        (1, [1, 1, 1, 1]),
        (2, [1, 1, 1, 2]),
        (5, [4, 4, 4, 5]),
        (20, [16, 16, 16, 20]),
    ],
)
def test_bulk_leaves_urgent_mail_a_connection(
    max_connections: int | None, by_priority: list[int]
) -> None:
    facts = source(max_connections=max_connections)

    found = [connections_for(facts, priority) for priority in (LOW, NORMAL, HIGH, URGENT)]

    assert found == by_priority
