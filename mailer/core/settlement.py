"""What becomes of a message after an attempt: its next state, and when it is due again.

Pure. `classify` has said what the reply means and the mailing's retry policy how long to wait;
this joins both into one move along the table of `lifecycle`. Scope decides, not the digit of
the reply: what speaks of our address or our connection is tried again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from deliverability.core.outcome import Action, OutcomeKind, Scope, Verdict
from mailer.core.lifecycle import MessageEvent, MessageState, move
from mailer.core.retry import Failure, GiveUp, GiveUpReason, RetryAt, RetryPolicy, failure_kind

#: The content went out and the reply was lost (RFC 1047): never blindly sent again.
REPLY_LOST = Verdict(
    OutcomeKind.IN_DOUBT, "reply_lost", Scope.PATH, Action.NONE, "mailer.reply_lost"
)
#: The message could not be made: our own fault. The same data would fail the same way again.
NOT_RENDERED = Verdict(
    OutcomeKind.BROKEN, "not_rendered", Scope.MESSAGE, Action.ALARM, "mailer.not_rendered"
)

_EVENT = {
    OutcomeKind.ACCEPTED: MessageEvent.ACCEPTED,
    OutcomeKind.REJECTED: MessageEvent.REFUSED,
    OutcomeKind.IN_DOUBT: MessageEvent.DOUBTED,
    OutcomeKind.BROKEN: MessageEvent.BROKE,
}


@dataclass(frozen=True, slots=True)
class Standing:
    """A waiting message before the attempt."""

    message_id: int
    attempts: int
    failures: int  #: those that count against it
    queued_at: datetime


@dataclass(frozen=True, slots=True)
class Move:
    """The message's row after the attempt."""

    message_id: int
    state: MessageState
    due_at: datetime | None
    attempts: int
    failures: int
    reason: str


def after_attempt(
    standing: Standing, verdict: Verdict, policy: RetryPolicy, *, now: datetime, draw: float
) -> Move:
    """The move that one attempt leads to. `draw` is uniform in [0, 1)."""
    event = _EVENT.get(verdict.kind)
    if event is not None:
        failed = verdict.kind is not OutcomeKind.ACCEPTED
        return _moved(standing, event, verdict.reason, failures=standing.failures + failed)
    kind = failure_kind(verdict.kind)
    failure = Failure(kind, standing.failures + 1, standing.queued_at)
    match policy.decide(failure, now=now, draw=draw):
        case RetryAt(at, counts):
            failures = standing.failures + counts
            return _moved(
                standing, MessageEvent.DEFERRED, verdict.reason, failures=failures, due_at=at
            )
        case GiveUp(GiveUpReason.REJECTED):
            return _moved(
                standing, MessageEvent.REFUSED, verdict.reason, failures=standing.failures + 1
            )
        case GiveUp():
            return _moved(
                standing, MessageEvent.EXPIRED, verdict.reason, failures=standing.failures + 1
            )


def without_attempt(standing: Standing, event: MessageEvent, reason: str) -> Move:
    """A move that no server was asked about: suppressed, cancelled or expired while it waited."""
    state = move(MessageState.WAITING, event)
    return Move(standing.message_id, state, None, standing.attempts, standing.failures, reason)


def _moved(
    standing: Standing,
    event: MessageEvent,
    reason: str,
    *,
    failures: int,
    due_at: datetime | None = None,
) -> Move:
    state = move(MessageState.WAITING, event)
    return Move(standing.message_id, state, due_at, standing.attempts + 1, failures, reason)
