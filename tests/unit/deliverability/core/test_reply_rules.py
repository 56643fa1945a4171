from __future__ import annotations

import pytest

from deliverability.core.outcome import Phase, Reply
from deliverability.core.reply_rules import InvalidReplyRules, load_rules, parse_sample

TABLE = """
provider = []
token = []
enhanced = []
basic = []

[reason.unknown_recipient]
title = "No such mailbox"
scope = "recipient"
after_4yz = ["deferred", "none"]
after_5yz = ["rejected", "suppress"]

[[text]]
id = "user-unknown"
reason = "unknown_recipient"
pattern = ["user unknown", "no such user"]
matches = ["rcpt 550 User unknown"]
origin = "test"
"""


def test_a_table_is_read_with_its_reasons_and_rules() -> None:
    rules = load_rules(TABLE)

    assert rules.rules[0].reason is rules.reasons["unknown_recipient"]
    assert rules.rules[0].tier == "text"


@pytest.mark.parametrize(
    ("written", "instead", "complaint"),
    [
        ('after_4yz = ["deferred"', 'after_4yz = ["rejected"', "neither suppresses nor ends"),
        ('"none"]\nafter_5yz', '"suppress"]\nafter_5yz', "a 4yz neither suppresses"),
        ('scope = "recipient"', 'scope = "source"', "only scope 'recipient' suppresses"),
        ('scope = "recipient"', 'scope = "person"', "reason unknown_recipient"),
        ('reason = "unknown_recipient"', 'reason = "unknown"', "user-unknown: KeyError"),
        ('origin = "test"', 'phase = "rcpt"', "unknown fields phase"),
        ('origin = "test"', "", "user-unknown: KeyError"),
        ('matches = ["rcpt 550 User unknown"]', "matches = []", "and a sample"),
        ('"no such user"', '"no such ("', "user-unknown"),
        ("provider = []", "", "not a table of reply rules"),
        ("provider = []", "provider = []\nother = 1", "unknown parts: other"),
        ("provider = []", "provider = [", "not a table of reply rules"),
    ],
)
def test_a_table_that_could_do_harm_is_refused(written: str, instead: str, complaint: str) -> None:
    assert written in TABLE
    with pytest.raises(InvalidReplyRules) as refusal:
        load_rules(TABLE.replace(written, instead, 1))

    assert complaint in str(refusal.value)


def test_two_rules_of_one_name_are_refused() -> None:
    rule = TABLE[TABLE.index("[[text]]") :]

    with pytest.raises(InvalidReplyRules, match="two rules"):
        load_rules(TABLE + rule)


@pytest.mark.parametrize(
    ("sample", "reply"),
    [
        ("rcpt 550 5.1.1 User unknown", Reply(550, "5.1.1", "User unknown", Phase.RCPT)),
        ("mail 421 Later", Reply(421, "", "Later", Phase.MAIL)),
        ("rcpt 550 5.1.1", Reply(550, "5.1.1", "", Phase.RCPT)),
        ("content 550-a\n550 b", Reply(550, "", "a\n550 b", Phase.CONTENT)),
    ],
)
def test_a_sample_is_a_phase_and_a_reply(sample: str, reply: Reply) -> None:
    assert parse_sample(sample) == reply


@pytest.mark.parametrize("sample", ["550 User unknown", "rcpt User unknown", "later 550 x"])
def test_what_is_no_sample_is_refused(sample: str) -> None:
    with pytest.raises(InvalidReplyRules):
        parse_sample(sample)
