"""A campaign's life: which states there are and which moves are legal.

Pure: a table and one function. Says nothing about single messages, which have a life of
their own, and never moves a row: callers do that by compare-and-set on the state read here.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType


class State(enum.StrEnum):
    """What we are doing about the campaign."""

    DRAFT = "draft"
    SENDING = "sending"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    FINISHED = "finished"


class Event(enum.StrEnum):
    LAUNCH = "launch"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    FINISH = "finish"


class IllegalMove(ValueError):
    """The event has no meaning in this state; the text says so to the person who asked."""

    def __init__(self, state: State, event: Event) -> None:
        self.state, self.event = state, event
        super().__init__(_sentence(state, event))


#: The last message can be settled while a pause is taking effect: finish is legal there too.
TABLE: Mapping[tuple[State, Event], State] = MappingProxyType(
    {
        (State.DRAFT, Event.LAUNCH): State.SENDING,
        (State.SENDING, Event.PAUSE): State.PAUSED,
        (State.PAUSED, Event.RESUME): State.SENDING,
        (State.SENDING, Event.CANCEL): State.CANCELLED,
        (State.PAUSED, Event.CANCEL): State.CANCELLED,
        (State.SENDING, Event.FINISH): State.FINISHED,
        (State.PAUSED, Event.FINISH): State.FINISHED,
    }
)

_IS = MappingProxyType(
    {
        State.DRAFT: "is a draft that was never launched",
        State.SENDING: "is being sent",
        State.PAUSED: "is paused",
        State.CANCELLED: "was cancelled",
        State.FINISHED: "is finished",
    }
)
_DONE = MappingProxyType(
    {
        Event.LAUNCH: "launched",
        Event.PAUSE: "paused",
        Event.RESUME: "resumed",
        Event.CANCEL: "cancelled",
        Event.FINISH: "finished",
    }
)


def move(state: State | str, event: Event) -> State:
    """Return the state that follows, or raise `IllegalMove`."""
    known = State(state)
    try:
        return TABLE[known, event]
    except KeyError:
        raise IllegalMove(known, event) from None


def is_possible(state: State | str, event: Event) -> bool:
    return (State(state), event) in TABLE


def events_from(state: State | str) -> tuple[Event, ...]:
    """What can be done to a campaign in this state, in the order of `Event`."""
    return tuple(event for event in Event if is_possible(state, event))


def states_before(event: Event) -> tuple[State, ...]:
    """The states in which `event` is legal."""
    return tuple(state for state in State if (state, event) in TABLE)


def diagram() -> str:
    """The table as a Mermaid state diagram, as the documentation shows it."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.DRAFT}"]
    lines += [f"    {state} --> {after}: {event}" for (state, event), after in TABLE.items()]
    ends = [state for state in State if not events_from(state)]
    return "\n".join([*lines, *(f"    {state} --> [*]" for state in ends)]) + "\n"


def _sentence(state: State, event: Event) -> str:
    if event is Event.LAUNCH:
        return f"The campaign {_IS[state]}: only a draft can be launched, and only once."
    if state is State.DRAFT:
        return f"The campaign {_IS[state]}: there is nothing to be {_DONE[event]}."
    if any(asked is event and after is state for (_, asked), after in TABLE.items()):
        return f"The campaign {_IS[state]} already."
    return f"The campaign {_IS[state]}, so it cannot be {_DONE[event]}."
