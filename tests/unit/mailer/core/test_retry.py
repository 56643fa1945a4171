from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deliverability.core.outcome import OutcomeKind
from mailer.core.retry import (
    POLICIES,
    Exponential,
    Failure,
    FailureKind,
    GiveUp,
    GiveUpReason,
    InvalidRetryPolicy,
    Ladder,
    NotRetryable,
    RetryAt,
    RetryPolicy,
    failure_kind,
    policy_from,
)

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
NO_JITTER = 0.0

draws = st.floats(min_value=0, max_value=1, exclude_max=True)
failure_counts = st.integers(min_value=1, max_value=10_000)
retryable_kinds = st.sampled_from([FailureKind.TRANSIENT, FailureKind.THROTTLED])
seconds = st.integers(min_value=1, max_value=400_000)
exponentials = st.builds(
    lambda a, b, growth: Exponential(
        timedelta(seconds=min(a, b)), growth, timedelta(seconds=max(a, b))
    ),
    seconds,
    seconds,
    st.floats(min_value=1, max_value=10),
)
ladders = st.builds(
    lambda steps, repeats: Ladder(tuple(timedelta(seconds=s) for s in sorted(steps)), repeats),
    st.lists(seconds, min_size=1, max_size=8),
    st.booleans(),
)
policies = st.builds(
    RetryPolicy,
    schedule=exponentials | ladders,
    max_age=seconds.map(lambda s: timedelta(seconds=s)),
    jitter=st.floats(min_value=0, max_value=1),
)


def failed(
    kind: FailureKind = FailureKind.TRANSIENT,
    *,
    failures: int = 1,
    queued_at: datetime = NOW,
    not_before: datetime | None = None,
) -> Failure:
    return Failure(kind, failures, queued_at, not_before)


def whole_schedule(policy: RetryPolicy) -> tuple[list[int], GiveUpReason]:
    """Every delay, in minutes, that a message which never gets through would see; and the end."""
    now, delays = NOW, list[int]()
    while True:
        failure = failed(failures=len(delays) + 1)
        decision = policy.decide(failure, now=now, draw=NO_JITTER)
        if isinstance(decision, GiveUp):
            return delays, decision.reason
        delays.append((decision.at - now) // timedelta(minutes=1))
        now = decision.at


@pytest.mark.parametrize(
    ("name", "delays", "end"),
    [
        ("exponential", [5, 10, 20, 40, 80, 160, *[240] * 10], GiveUpReason.EXPIRED),
        ("ladder-3", [5, 30, 120], GiveUpReason.EXHAUSTED),
        ("ladder-24h", [1, 5, 15, *[60] * 23], GiveUpReason.EXPIRED),
    ],
)
def test_the_whole_schedule_of_each_named_policy(
    name: str, delays: list[int], end: GiveUpReason
) -> None:
    assert whole_schedule(policy_from(name)) == (delays, end)


def test_a_schedule_without_growth_is_a_fixed_interval() -> None:
    six_hours = timedelta(hours=6)
    policy = RetryPolicy(Exponential(first_delay=six_hours, max_delay=six_hours, growth=1))

    assert whole_schedule(policy) == ([360] * 8, GiveUpReason.EXPIRED)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_a_permanent_failure_is_never_retried(policy: RetryPolicy) -> None:
    decision = policy.decide(failed(FailureKind.PERMANENT), now=NOW, draw=NO_JITTER)

    assert decision == GiveUp(GiveUpReason.REJECTED)


@pytest.mark.parametrize(("name", "minutes"), [("exponential", 5), ("ladder-3", 5)])
def test_throttling_waits_the_first_delay_and_does_not_count(name: str, minutes: int) -> None:
    failure = failed(FailureKind.THROTTLED, failures=9)

    decision = policy_from(name).decide(failure, now=NOW, draw=NO_JITTER)

    assert decision == RetryAt(NOW + timedelta(minutes=minutes), counts=False)


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (timedelta(hours=1), timedelta(hours=1)),
        (timedelta(seconds=1), timedelta(minutes=5)),
    ],
)
def test_a_hint_moves_the_retry_later_but_never_earlier(
    hint: timedelta, expected: timedelta
) -> None:
    decision = RetryPolicy().decide(failed(not_before=NOW + hint), now=NOW, draw=NO_JITTER)

    assert decision == RetryAt(NOW + expected, counts=True)


def test_a_message_too_old_for_another_attempt_expires_at_once() -> None:
    failure = failed(queued_at=NOW - timedelta(days=2))

    decision = RetryPolicy().decide(failure, now=NOW, draw=NO_JITTER)

    assert decision == GiveUp(GiveUpReason.EXPIRED)


@given(draw=draws)
def test_chance_moves_a_last_retry_but_never_turns_it_into_giving_up(draw: float) -> None:
    policy = RetryPolicy(max_age=timedelta(minutes=5), jitter=0.5)

    decision = policy.decide(failed(), now=NOW, draw=draw)

    assert decision == RetryAt(NOW + timedelta(minutes=5), counts=True)


@given(policy=policies, kind=retryable_kinds, failures=failure_counts, draw=draws)
def test_a_retry_falls_between_now_and_max_age(
    policy: RetryPolicy, kind: FailureKind, failures: int, draw: float
) -> None:
    decision = policy.decide(failed(kind, failures=failures), now=NOW, draw=draw)

    if isinstance(decision, RetryAt):
        assert NOW < decision.at <= NOW + policy.max_age
    else:
        assert decision.reason in (GiveUpReason.EXPIRED, GiveUpReason.EXHAUSTED)


@given(schedule=exponentials, failures=failure_counts)
def test_exponential_delays_never_shrink_and_never_pass_the_cap(
    schedule: Exponential, failures: int
) -> None:
    first, second = schedule.delay_after(failures), schedule.delay_after(failures + 1)

    assert first <= second <= schedule.max_delay


@given(draw=draws)
def test_jitter_only_adds_and_stays_within_its_ratio(draw: float) -> None:
    decision = RetryPolicy(jitter=0.1).decide(failed(), now=NOW, draw=draw)

    assert isinstance(decision, RetryAt)
    assert timedelta(minutes=5) <= decision.at - NOW <= timedelta(minutes=5.5)


@given(policies)
def test_a_stored_policy_is_read_back_the_same(policy: RetryPolicy) -> None:
    assert policy_from(json.loads(json.dumps(policy.spec()))) == policy


def test_a_stored_policy_may_leave_out_what_is_usual() -> None:
    assert policy_from({"kind": "exponential"}) == RetryPolicy()
    assert policy_from({"kind": "ladder", "delays_seconds": [300, 1800, 7200]}) == policy_from(
        "ladder-3"
    )


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("ladder-4", "no policy 'ladder-4'"),
        ({}, "kind is 'exponential' or 'ladder'"),
        ({"kind": "linear"}, "not 'linear'"),
        ({"kind": "exponential", "first_delay_seconds": 0}, "first_delay_seconds lies in"),
        ({"kind": "exponential", "first_delay_seconds": "5m"}, "first_delay_seconds is a number"),
        ({"kind": "exponential", "first_delay_seconds": True}, "first_delay_seconds is a number"),
        ({"kind": "exponential", "first_delay_seconds": float("nan")}, "is a number"),
        ({"kind": "exponential", "max_delay_seconds": 1e30}, "max_delay_seconds lies in"),
        ({"kind": "exponential", "first_delay_seconds": 20_000}, "first_delay <= max_delay"),
        ({"kind": "exponential", "growth_ratio": 0.5}, "1 <= growth <= 10"),
        ({"kind": "exponential", "max_age_seconds": -1}, "max_age_seconds lies in"),
        ({"kind": "exponential", "jitter_ratio": 1.1}, "0 <= jitter <= 1"),
        ({"kind": "exponential", "first_delay": 300}, "unknown fields: first_delay"),
        ({"kind": "ladder"}, "delays_seconds is a list"),
        ({"kind": "ladder", "delays_seconds": []}, "at least one delay"),
        ({"kind": "ladder", "delays_seconds": [60, 30]}, "never get shorter"),
        ({"kind": "ladder", "delays_seconds": [60], "repeats_last": 1}, "true or false"),
    ],
)
def test_nonsense_is_refused_with_the_field_that_is_wrong(spec: Any, complaint: str) -> None:
    with pytest.raises(InvalidRetryPolicy) as refusal:
        policy_from(spec)

    assert complaint in str(refusal.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RetryPolicy(max_age=timedelta(0)),
        lambda: RetryPolicy(max_age=timedelta(days=61)),
        lambda: RetryPolicy(jitter=-0.1),
        lambda: Exponential(first_delay=timedelta(0)),
        lambda: Ladder((timedelta(0),)),
    ],
)
def test_nonsense_is_refused_at_start_up(make: Any) -> None:
    with pytest.raises(InvalidRetryPolicy):
        make()


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (OutcomeKind.DEFERRED, FailureKind.TRANSIENT),
        (OutcomeKind.UNREACHED, FailureKind.TRANSIENT),
        (OutcomeKind.THROTTLED, FailureKind.THROTTLED),
        (OutcomeKind.REJECTED, FailureKind.PERMANENT),
    ],
)
def test_what_an_outcome_means_for_the_retry(outcome: OutcomeKind, kind: FailureKind) -> None:
    assert failure_kind(outcome) is kind


@pytest.mark.parametrize(
    "outcome", [OutcomeKind.ACCEPTED, OutcomeKind.IN_DOUBT, OutcomeKind.BROKEN]
)
def test_what_no_schedule_answers_is_refused(outcome: OutcomeKind) -> None:
    with pytest.raises(NotRetryable):
        failure_kind(outcome)
