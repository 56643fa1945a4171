from __future__ import annotations

import re
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.core import tokens
from mailer.core.tokens import InvalidToken, Purpose, Token

KEY, OLD_KEY, OTHER_KEY = b"new key " * 4, b"old key " * 4, b"not ours" * 4
DAY = date(2026, 1, 2)
ids = st.integers(0, 2**63 - 1)
purposes = st.sampled_from(Purpose)


@given(purposes, st.dates(), ids, ids, ids)
def test_what_is_signed_is_read_back(
    purpose: Purpose, day: date, mailing_id: int, message_id: int, recipient_id: int
) -> None:
    token = tokens.sign(KEY, purpose, day, mailing_id, message_id, recipient_id)

    said = tokens.read([KEY], token, purpose=purpose)

    assert said == Token(purpose, day, mailing_id, message_id, recipient_id)
    assert re.fullmatch(r"[a-z0-9.]+[a-z0-9]", token)
    assert len(token) <= 84


def test_a_usual_token_fits_a_local_part() -> None:
    token = tokens.sign(KEY, Purpose.UNSUBSCRIBE, DAY, 10_000, 2_000_000_000, 50_000_000)

    assert len(f"u+{token}") <= 64


@pytest.mark.parametrize("wanted", [p for p in Purpose if p is not Purpose.CLICK])
def test_a_token_is_good_for_one_purpose_only(wanted: Purpose) -> None:
    token = tokens.sign(KEY, Purpose.CLICK, DAY, 1, 2, 3)

    with pytest.raises(InvalidToken):
        tokens.read([KEY], token, purpose=wanted)
    with pytest.raises(InvalidToken):
        tokens.read([KEY], wanted.value + token[1:], purpose=wanted)


def test_old_keys_are_read_as_long_as_they_are_kept() -> None:
    token = tokens.sign(OLD_KEY, Purpose.OPEN, DAY, 1, 2, 3)

    assert tokens.read([KEY, OLD_KEY], token, purpose=Purpose.OPEN).message_id == 2
    for keys in ([KEY], [OTHER_KEY, KEY], []):
        with pytest.raises(InvalidToken):
            tokens.read(keys, token, purpose=Purpose.OPEN)


@given(st.data())
def test_a_token_with_any_character_changed_is_refused(data: st.DataObject) -> None:
    token = tokens.sign(KEY, Purpose.VIEW, DAY, 17, 345, 6)
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from("0123456789abcdefuv.-_ A\n").filter(token[at].__ne__))

    with pytest.raises(InvalidToken):
        tokens.read([KEY], token[:at] + other + token[at + 1 :], purpose=Purpose.VIEW)


@given(st.text(max_size=90))
def test_text_that_is_no_token_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidToken):
        tokens.read([KEY], text, purpose=Purpose.CLICK)


def test_a_short_key_and_a_negative_id_are_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        tokens.sign(b"short", Purpose.CLICK, DAY, 1, 2)
    with pytest.raises(ValueError, match="negative"):
        tokens.sign(KEY, Purpose.CLICK, DAY, 1, -2)
