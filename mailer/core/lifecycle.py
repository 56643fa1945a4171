"""The life of a message and of a mailing: which states there are and which moves are legal.

Pure: two tables and one function for each. It never moves a row: callers do that by
compare-and-set on the state they read, and the database knows the states by a check constraint.
The documentation's diagrams are drawn from the tables.

A state says what we are doing about a message; what the world told us later is an event of its
own. So a bounce that arrives days after the delivery changes no state.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar


class IllegalMove(ValueError):
    """The event has no meaning in this state."""

    def __init__(self, state: str, event: str) -> None:
        self.state, self.event = state, event
        super().__init__(f"nothing that is {state} can be {event}")


class MessageState(enum.StrEnum):
    WAITING = "waiting"  #: not settled: in a batch, deferred until `due_at`, or held by a pause
    DELIVERED = "delivered"  #: the receiving server took responsibility; nothing more is claimed
    BOUNCED = "bounced"  #: refused for good
    EXPIRED = "expired"  #: its life ended before anyone took it
    SUPPRESSED = "suppressed"  #: a suppression appeared after expansion
    CANCELLED = "cancelled"  #: a person stopped it
    IN_DOUBT = "in_doubt"  #: the content went out and the reply was lost; never blindly sent again
    DEAD = "dead"  #: our own fault, kept for inspection


class MessageEvent(enum.StrEnum):
    ACCEPTED = "accepted"  #: 250 after the content
    REFUSED = "refused"  #: for good
    DEFERRED = "deferred"  #: to be tried again, for whatever reason
    EXPIRED = "expired"  #: too old, or out of retries
    SUPPRESSED = "suppressed"
    CANCELLED = "cancelled"
    DOUBTED = "doubted"  #: the reply to the content was lost
    BROKE = "broke"  #: our own fault too often
    RETRIED_BY_PERSON = "retried_by_person"
    REQUEUED = "requeued"  #: after we mended what broke it
    SETTLED_DELIVERED = "settled_delivered"  #: an open, a click or a found reply proved it
    SETTLED_BOUNCED = "settled_bounced"  #: a bounce message proved it
    RESENT = "resent"  #: in doubt for long, and the mailing chose to send it again
    GIVEN_UP = "given_up"  #: in doubt for long, and the mailing chose to leave it


MESSAGE_TABLE: Mapping[tuple[MessageState, MessageEvent], MessageState] = MappingProxyType(
    {
        (MessageState.WAITING, MessageEvent.ACCEPTED): MessageState.DELIVERED,
        (MessageState.WAITING, MessageEvent.REFUSED): MessageState.BOUNCED,
        (MessageState.WAITING, MessageEvent.DEFERRED): MessageState.WAITING,
        (MessageState.WAITING, MessageEvent.EXPIRED): MessageState.EXPIRED,
        (MessageState.WAITING, MessageEvent.SUPPRESSED): MessageState.SUPPRESSED,
        (MessageState.WAITING, MessageEvent.CANCELLED): MessageState.CANCELLED,
        (MessageState.WAITING, MessageEvent.DOUBTED): MessageState.IN_DOUBT,
        (MessageState.WAITING, MessageEvent.BROKE): MessageState.DEAD,
        (MessageState.BOUNCED, MessageEvent.RETRIED_BY_PERSON): MessageState.WAITING,
        (MessageState.EXPIRED, MessageEvent.RETRIED_BY_PERSON): MessageState.WAITING,
        (MessageState.IN_DOUBT, MessageEvent.SETTLED_DELIVERED): MessageState.DELIVERED,
        (MessageState.IN_DOUBT, MessageEvent.SETTLED_BOUNCED): MessageState.BOUNCED,
        (MessageState.IN_DOUBT, MessageEvent.RESENT): MessageState.WAITING,
        (MessageState.IN_DOUBT, MessageEvent.GIVEN_UP): MessageState.EXPIRED,
        (MessageState.DEAD, MessageEvent.REQUEUED): MessageState.WAITING,
    }
)

#: A mailing is finished when none of its messages is in one of these.
UNSETTLED = frozenset({MessageState.WAITING, MessageState.IN_DOUBT})


class MailingState(enum.StrEnum):
    EXPANDING = "expanding"  #: its messages are being made; those made already go out
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    FINISHED = "finished"  #: nothing is waiting or in doubt


class MailingEvent(enum.StrEnum):
    EXPANDED = "expanded"  #: every message is made
    PAUSED = "paused"
    RESUMED = "resumed"
    RESUMED_EXPANDING = "resumed_expanding"  #: resumed before every message was made
    CANCELLED = "cancelled"
    FINISHED = "finished"
    REOPENED = "reopened"  #: a person retries messages of a finished mailing


MAILING_TABLE: Mapping[tuple[MailingState, MailingEvent], MailingState] = MappingProxyType(
    {
        (MailingState.EXPANDING, MailingEvent.EXPANDED): MailingState.RUNNING,
        (MailingState.EXPANDING, MailingEvent.PAUSED): MailingState.PAUSED,
        (MailingState.EXPANDING, MailingEvent.CANCELLED): MailingState.CANCELLED,
        (MailingState.RUNNING, MailingEvent.PAUSED): MailingState.PAUSED,
        (MailingState.RUNNING, MailingEvent.CANCELLED): MailingState.CANCELLED,
        (MailingState.RUNNING, MailingEvent.FINISHED): MailingState.FINISHED,
        (MailingState.PAUSED, MailingEvent.EXPANDED): MailingState.PAUSED,
        (MailingState.PAUSED, MailingEvent.RESUMED): MailingState.RUNNING,
        (MailingState.PAUSED, MailingEvent.RESUMED_EXPANDING): MailingState.EXPANDING,
        (MailingState.PAUSED, MailingEvent.CANCELLED): MailingState.CANCELLED,
        # The last reply can come in while the pause is taking effect.
        (MailingState.PAUSED, MailingEvent.FINISHED): MailingState.FINISHED,
        (MailingState.FINISHED, MailingEvent.REOPENED): MailingState.RUNNING,
    }
)


def move(state: MessageState | str, event: MessageEvent) -> MessageState:
    """Return the message state that follows, or raise `IllegalMove`."""
    known = MessageState(state)
    try:
        return MESSAGE_TABLE[known, event]
    except KeyError:
        raise IllegalMove(known, event) from None


def move_mailing(state: MailingState | str, event: MailingEvent) -> MailingState:
    """Return the mailing state that follows, or raise `IllegalMove`."""
    known = MailingState(state)
    try:
        return MAILING_TABLE[known, event]
    except KeyError:
        raise IllegalMove(known, event) from None


def states_before(event: MessageEvent) -> tuple[MessageState, ...]:
    """The states in which `event` is legal, for the compare of a compare-and-set."""
    return tuple(state for state in MessageState if (state, event) in MESSAGE_TABLE)


def diagram() -> str:
    """The life of a message as a Mermaid state diagram."""
    return _drawn(MESSAGE_TABLE, MessageState.WAITING)


def mailing_diagram() -> str:
    """The life of a mailing as a Mermaid state diagram."""
    return _drawn(MAILING_TABLE, MailingState.EXPANDING)


S = TypeVar("S", bound=enum.StrEnum)
E = TypeVar("E", bound=enum.StrEnum)


def _drawn(table: Mapping[tuple[S, E], S], first: S) -> str:
    lines = ["stateDiagram-v2", f"    [*] --> {first}"]
    lines += [f"    {before} --> {after}: {event}" for (before, event), after in table.items()]
    left = {before for (before, _), after in table.items() if after is not before}
    ends = [state for state in type(first) if state not in left]
    return "\n".join([*lines, *(f"    {state} --> [*]" for state in ends)]) + "\n"
