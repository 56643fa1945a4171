from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deliverability.core.outcome import Action, OutcomeKind, Scope, Verdict
from mailer.core.lifecycle import IllegalMove, MessageEvent, MessageState
from mailer.core.retry import Exponential, Ladder, RetryPolicy
from mailer.core.settlement import (
    NOT_RENDERED,
    REPLY_LOST,
    Move,
    Standing,
    after_attempt,
    without_attempt,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND_TRY = Standing(5, attempts=1, failures=1, queued_at=NOW - timedelta(hours=1))
POLICY = RetryPolicy(Exponential(timedelta(minutes=5)), jitter=0.0)


def verdict(kind: OutcomeKind, scope: Scope = Scope.UNKNOWN) -> Verdict:
    return Verdict(kind, "a_reason", scope, Action.NONE, "a.rule")


def decided(
    kind: OutcomeKind, standing: Standing = SECOND_TRY, policy: RetryPolicy = POLICY
) -> Move:
    return after_attempt(standing, verdict(kind), policy, now=NOW, draw=0.0)


@pytest.mark.parametrize(
    ("kind", "state", "failures", "wait_minutes"),
    [
        (OutcomeKind.ACCEPTED, MessageState.DELIVERED, 1, None),
        (OutcomeKind.REJECTED, MessageState.BOUNCED, 2, None),
        (OutcomeKind.IN_DOUBT, MessageState.IN_DOUBT, 2, None),
        (OutcomeKind.BROKEN, MessageState.DEAD, 2, None),
        (OutcomeKind.DEFERRED, MessageState.WAITING, 2, 10),
        (OutcomeKind.UNREACHED, MessageState.WAITING, 2, 10),
        (OutcomeKind.THROTTLED, MessageState.WAITING, 1, 5),
    ],
)
def test_what_each_outcome_makes_of_a_waiting_message(
    kind: OutcomeKind, state: MessageState, failures: int, wait_minutes: int | None
) -> None:
    due_at = NOW + timedelta(minutes=wait_minutes) if wait_minutes else None

    assert decided(kind) == Move(5, state, due_at, 2, failures, "a_reason")


def test_every_outcome_kind_is_settled() -> None:
    for kind in OutcomeKind:
        assert decided(kind).attempts == 2


@pytest.mark.parametrize("kind", [OutcomeKind.DEFERRED, OutcomeKind.UNREACHED])
def test_a_message_that_grew_too_old_expires_instead_of_waiting(kind: OutcomeKind) -> None:
    old = Standing(5, attempts=9, failures=9, queued_at=NOW - POLICY.max_age)

    assert decided(kind, old) == Move(5, MessageState.EXPIRED, None, 10, 10, "a_reason")


def test_a_message_that_used_up_its_ladder_expires() -> None:
    ladder = RetryPolicy(Ladder((timedelta(minutes=5),)), jitter=0.0)

    assert decided(OutcomeKind.DEFERRED, SECOND_TRY, ladder).state is MessageState.EXPIRED


def test_being_throttled_for_ever_never_uses_up_the_ladder() -> None:
    ladder = RetryPolicy(Ladder((timedelta(minutes=5),)), jitter=0.0)
    standing = Standing(5, attempts=900, failures=0, queued_at=NOW)

    assert decided(OutcomeKind.THROTTLED, standing, ladder).state is MessageState.WAITING


def test_what_is_in_doubt_is_never_due_again() -> None:
    move = after_attempt(SECOND_TRY, REPLY_LOST, POLICY, now=NOW, draw=0.0)

    assert (move.state, move.due_at) == (MessageState.IN_DOUBT, None)


def test_our_own_faults_speak_of_nobodys_mailbox() -> None:
    for own in (REPLY_LOST, NOT_RENDERED):
        assert own.scope is not Scope.RECIPIENT
        assert own.action is not Action.SUPPRESS


@given(
    kind=st.sampled_from(OutcomeKind),
    scope=st.sampled_from(Scope),
    attempts=st.integers(0, 30_000),
    age=st.timedeltas(timedelta(0), timedelta(days=70)),
    draw=st.floats(0, 1, exclude_max=True),
)
def test_only_a_waiting_message_is_due_and_always_in_the_future(
    kind: OutcomeKind, scope: Scope, attempts: int, age: timedelta, draw: float
) -> None:
    standing = Standing(5, attempts, attempts, NOW - age)

    move = after_attempt(standing, verdict(kind, scope), RetryPolicy(), now=NOW, draw=draw)

    assert (move.due_at is not None) == (move.state is MessageState.WAITING)
    assert move.due_at is None or NOW < move.due_at <= standing.queued_at + RetryPolicy().max_age
    assert move.attempts == attempts + 1
    assert move.failures - attempts in (0, 1)


@pytest.mark.parametrize(
    ("event", "state"),
    [
        (MessageEvent.SUPPRESSED, MessageState.SUPPRESSED),
        (MessageEvent.CANCELLED, MessageState.CANCELLED),
        (MessageEvent.EXPIRED, MessageState.EXPIRED),
    ],
)
def test_a_move_that_no_server_was_asked_about_is_no_attempt(
    event: MessageEvent, state: MessageState
) -> None:
    assert without_attempt(SECOND_TRY, event, "a_reason") == Move(5, state, None, 1, 1, "a_reason")


def test_a_waiting_message_cannot_be_requeued() -> None:
    with pytest.raises(IllegalMove):
        without_attempt(SECOND_TRY, MessageEvent.REQUEUED, "a_reason")
