from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from campaigns.core.lifecycle import (
    TABLE,
    Event,
    IllegalMove,
    State,
    diagram,
    events_from,
    move,
    states_before,
)


def test_the_whole_table() -> None:
    assert [f"{state} --{event}-> {after}" for (state, event), after in TABLE.items()] == [
        "draft --launch-> sending",
        "sending --pause-> paused",
        "paused --resume-> sending",
        "sending --cancel-> cancelled",
        "paused --cancel-> cancelled",
        "sending --finish-> finished",
        "paused --finish-> finished",
    ]


@pytest.mark.parametrize(("state", "event"), [(s, e) for s in State for e in Event])
def test_what_is_not_in_the_table_is_an_illegal_move_in_words(state: State, event: Event) -> None:
    if (state, event) in TABLE:
        assert move(state, event) is TABLE[state, event]
        return
    with pytest.raises(IllegalMove) as caught:
        move(state, event)

    assert (caught.value.state, caught.value.event) == (state, event)
    assert str(caught.value).startswith("The campaign ")
    assert str(caught.value).endswith(".")


def test_an_illegal_move_says_what_the_campaign_is_doing() -> None:
    with pytest.raises(IllegalMove, match=r"was cancelled, so it cannot be resumed\."):
        move("cancelled", Event.RESUME)
    with pytest.raises(IllegalMove, match="only a draft can be launched, and only once"):
        move("sending", Event.LAUNCH)
    with pytest.raises(IllegalMove, match="nothing to be paused"):
        move("draft", Event.PAUSE)


@pytest.mark.parametrize(
    ("state", "event", "sentence"),
    [
        ("paused", Event.PAUSE, "The campaign is paused already."),
        ("sending", Event.RESUME, "The campaign is being sent already."),
        ("cancelled", Event.CANCEL, "The campaign was cancelled already."),
        ("finished", Event.FINISH, "The campaign is finished already."),
        ("finished", Event.PAUSE, "The campaign is finished, so it cannot be paused."),
    ],
)
def test_what_is_done_already_is_said_so(state: str, event: Event, sentence: str) -> None:
    with pytest.raises(IllegalMove) as caught:
        move(state, event)

    assert str(caught.value) == sentence


def test_a_state_that_is_not_known_is_no_campaign_state() -> None:
    with pytest.raises(ValueError, match="sent"):
        move("sent", Event.PAUSE)


@given(events=st.lists(st.sampled_from(Event), max_size=12))
def test_nothing_leaves_an_end_state(events: list[Event]) -> None:
    state = State.DRAFT
    for event in events:
        if event in events_from(state):
            assert state not in (State.CANCELLED, State.FINISHED)
            state = move(state, event)


def test_a_campaign_can_be_launched_from_a_draft_only() -> None:
    assert states_before(Event.LAUNCH) == (State.DRAFT,)
    assert states_before(Event.CANCEL) == (State.SENDING, State.PAUSED)


def test_the_diagram_holds_every_move_and_both_ends() -> None:
    lines = diagram().splitlines()

    assert lines[:2] == ["stateDiagram-v2", "    [*] --> draft"]
    assert "    sending --> paused: pause" in lines
    assert lines[-2:] == ["    cancelled --> [*]", "    finished --> [*]"]
    assert len(lines) == 2 + len(TABLE) + 2
