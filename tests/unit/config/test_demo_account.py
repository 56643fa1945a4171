from __future__ import annotations

import io

import pytest

from config.local.demo import build_account, last_object, settled_count, summary
from config.local.progress import Screen, bar

STATUS = {
    "state": "finished",
    "matched": 2000,
    "excluded": {"suppressed": 3, "invalid": 7},
    "audience": 1990,
    "states": {"waiting": 0, "delivered": 1900, "bounced": 80, "expired": 10, "in_doubt": 0},
    "attempts": 2300,
    "settled": True,
}


def test_the_account_joins_our_side_and_the_receivers() -> None:
    counts = {"received": 1901, "distinct": 1900, "duplicates": 1, "by_provider": {}}

    assert build_account(STATUS, counts, seconds=12.345) == {
        "matched": 2000,
        "excluded": {"suppressed": 3, "invalid": 7},
        "audience": 1990,
        "states": STATUS["states"],
        "attempts": 2300,
        "sandbox": {"received": 1901, "distinct": 1900, "duplicates": 1},
        "seconds": 12.3,
    }


def test_an_account_without_one_side_is_an_error_and_not_a_zero() -> None:
    with pytest.raises(KeyError):
        build_account(STATUS, {"received": 1}, seconds=1)


def test_a_message_in_doubt_is_not_settled() -> None:
    status = {"audience": 10, "states": {"waiting": 2, "in_doubt": 3, "delivered": 5}}

    assert settled_count(status) == 5


def test_the_last_line_that_is_an_object_counts_and_log_lines_do_not() -> None:
    text = '{"campaign": 1}\n{"campaign": 2}\nINFO {not this}\n{broken}\n[3]\n'

    assert last_object(text) == {"campaign": 2}
    assert last_object("nothing here\n") is None


def test_the_summary_names_what_there_is() -> None:
    assert summary({"states": {"waiting": 9, "delivered": 1900, "bounced": 0}}) == "1,900 delivered"
    assert summary({}) == "preparing"


def test_a_bar_is_full_only_when_all_is_done() -> None:
    assert [bar(done, 100, width=4) for done in (0, 50, 99, 100)] == [
        "····",
        "██··",
        "███·",
        "████",
    ]


def test_an_empty_campaign_shows_an_empty_bar() -> None:
    assert bar(0, 0, width=3) == "···"


def test_where_no_terminal_is_there_are_lines_and_no_cursor_movements() -> None:
    stream = io.StringIO()
    screen = Screen(stream)

    screen.progress(1, 10, "first")
    screen.progress(2, 10, "too soon for another line")
    screen.say("done")

    assert "\x1b" not in stream.getvalue()
    assert "\r" not in stream.getvalue()
    assert "1 of 10  first" in stream.getvalue()
    assert "too soon" not in stream.getvalue()


def test_a_terminal_that_was_closed_does_not_end_the_stop() -> None:
    class Closed(io.StringIO):
        def write(self, _text: str) -> int:
            raise OSError(5, "Input/output error")

    Screen(Closed()).say("Stopping …")
