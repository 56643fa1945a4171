from __future__ import annotations

import itertools

import pytest

from mailer.core.lifecycle import (
    MAILING_TABLE,
    MESSAGE_TABLE,
    UNSETTLED,
    IllegalMove,
    MailingEvent,
    MailingState,
    MessageEvent,
    MessageState,
    diagram,
    mailing_diagram,
    move,
    move_mailing,
    states_before,
)

FINAL = {MessageState.DELIVERED, MessageState.SUPPRESSED, MessageState.CANCELLED}


@pytest.mark.parametrize(
    ("state", "event"), list(itertools.product(MessageState, MessageEvent)), ids=lambda x: x.value
)
def test_every_pair_of_state_and_event_is_either_in_the_table_or_refused(
    state: MessageState, event: MessageEvent
) -> None:
    if (state, event) in MESSAGE_TABLE:
        assert move(state, event) is MESSAGE_TABLE[state, event]
    else:
        with pytest.raises(IllegalMove) as refusal:
            move(state, event)
        assert state in str(refusal.value)
        assert event in str(refusal.value)


def test_delivered_suppressed_and_cancelled_are_the_end() -> None:
    left = {before for before, _ in MESSAGE_TABLE}

    assert set(MessageState) - left == FINAL


def test_only_a_person_or_the_mailings_choice_sends_again_what_was_settled() -> None:
    again = {
        event
        for (before, event), after in MESSAGE_TABLE.items()
        if after is MessageState.WAITING and before is not MessageState.WAITING
    }

    assert again == {
        MessageEvent.RETRIED_BY_PERSON,
        MessageEvent.REQUEUED,
        MessageEvent.RESENT,
    }


def test_what_is_in_doubt_is_neither_cancelled_nor_retried_by_a_person() -> None:
    for event in (MessageEvent.CANCELLED, MessageEvent.RETRIED_BY_PERSON, MessageEvent.ACCEPTED):
        with pytest.raises(IllegalMove):
            move(MessageState.IN_DOUBT, event)


def test_every_state_can_be_reached_from_waiting() -> None:
    reached = {MessageState.WAITING}
    for _ in MessageState:
        reached |= {after for (before, _), after in MESSAGE_TABLE.items() if before in reached}

    assert reached == set(MessageState)


def test_a_stored_state_is_understood_as_text() -> None:
    assert move("waiting", MessageEvent.ACCEPTED) is MessageState.DELIVERED
    with pytest.raises(ValueError, match="sent"):
        move("sent", MessageEvent.ACCEPTED)


def test_the_states_before_an_event_are_what_a_compare_and_set_compares_with() -> None:
    assert states_before(MessageEvent.RETRIED_BY_PERSON) == (
        MessageState.BOUNCED,
        MessageState.EXPIRED,
    )


def test_waiting_and_in_doubt_keep_a_mailing_from_being_finished() -> None:
    assert {MessageState.WAITING, MessageState.IN_DOUBT} == UNSETTLED


@pytest.mark.parametrize(
    ("state", "event"), list(itertools.product(MailingState, MailingEvent)), ids=lambda x: x.value
)
def test_every_move_of_a_mailing_is_in_the_table_or_refused(
    state: MailingState, event: MailingEvent
) -> None:
    if (state, event) in MAILING_TABLE:
        assert move_mailing(state, event) is MAILING_TABLE[state, event]
    else:
        with pytest.raises(IllegalMove):
            move_mailing(state, event)


def test_a_cancelled_mailing_stays_cancelled() -> None:
    assert all(before is not MailingState.CANCELLED for before, _ in MAILING_TABLE)


def test_the_diagram_shows_every_move_of_the_table_and_the_ends() -> None:
    drawn = diagram().splitlines()

    assert drawn[:2] == ["stateDiagram-v2", "    [*] --> waiting"]
    assert "    in_doubt --> expired: given_up" in drawn
    assert {line.strip() for line in drawn if line.endswith("--> [*]")} == {
        f"{state} --> [*]" for state in FINAL
    }
    assert len(drawn) == 2 + len(MESSAGE_TABLE) + len(FINAL)


def test_the_diagram_of_a_mailing_ends_where_it_is_cancelled() -> None:
    drawn = mailing_diagram().splitlines()

    assert drawn[1] == "    [*] --> expanding"
    assert drawn[-1] == "    cancelled --> [*]"
