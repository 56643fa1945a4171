from __future__ import annotations

import pytest

from campaigns.core.retry_choice import retry_from
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
