from __future__ import annotations

import pytest

from campaigns.core.retry_choice import retry_from, retry_in_words
from mailer.core.retry import InvalidRetryPolicy


def test_a_policy_is_named_or_written_as_json() -> None:
    assert retry_from(" ladder-3 ") == "ladder-3"
    assert retry_from('{"kind": "exponential", "first_delay_seconds": 3}') == {
        "kind": "exponential",
        "first_delay_seconds": 3,
    }


@pytest.mark.parametrize(
    "text", ["", "fastest", "{", '{"kind": "exponential", "frist_delay_seconds": 3}', "{}", "[1]"]
)
def test_anything_else_is_refused_in_words(text: str) -> None:
    with pytest.raises(InvalidRetryPolicy, match=r"\w{3}"):
        retry_from(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            '{"kind": "exponential", "first_delay_seconds": 3, "growth_ratio": 1.2,'
            ' "max_delay_seconds": 8, "max_age_seconds": 600}',
            "first after 3 s, ×1.2, at most 8 s, gives up after 10 min",
        ),
        (
            "exponential",
            "exponential: first after 5 min, ×2, at most 4 h, gives up after 2 days",
        ),
        (
            "ladder-3",
            "ladder-3: after 5 min, 30 min, 2 h, then gives up; gives up after 2 days anyway",
        ),
        (
            "ladder-24h",
            "ladder-24h: after 1 min, 5 min, 15 min, 1 h, then every 1 h, gives up after 1 day",
        ),
        (
            '{"kind": "ladder", "delays_seconds": [0.5, 5400], "max_age_seconds": 90061}',
            "after 0.5 s, 1 h 30 min, then gives up; gives up after 1 day 1 h 1 min 1 s anyway",
        ),
    ],
)
def test_a_policy_is_said_in_words(text: str, words: str) -> None:
    assert retry_in_words(text) == words


def test_what_is_no_policy_has_no_words() -> None:
    with pytest.raises(InvalidRetryPolicy):
        retry_in_words("fastest")
