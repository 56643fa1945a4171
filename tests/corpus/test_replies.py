"""The shipped rules against replies that servers really gave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deliverability.core.outcome import Action, Phase, Reply, Scope, Verdict
from deliverability.rules import classify

HERE = Path(__file__).parent

#: Sisimai's word for a refusal that ends a recipient.
GONE = {"userunknown", "hasmoved"}

#: Not counted: `filtered` is Sisimai's word for an unknown user after DATA, both readings are
#: right; and two labels that belong to another recipient, or another reading, of the message.
DISPUTED_REASONS = {"filtered"}
DISPUTED_FILES = {"rfc3464-01.eml", "rfc3464-35.eml"}

#: What Sisimai's words mean in ours, where both have a word for the same thing.
SAME = {
    "authfailure": {"auth_failed"},
    "blocked": {"ip_blocked", "ip_reputation", "ptr_missing", "helo_refused", "sender_rejected"},
    "badreputation": {"ip_reputation"},
    "requireptr": {"ptr_missing"},
    "mailboxfull": {"mailbox_full"},
    "spamdetected": {"spam_content", "url_blocked"},
    "virusdetected": {"virus"},
    "norelaying": {"relay_denied", "sender_rejected"},
    "expired": {"expired", "system_temporary"},
    "suspend": {"mailbox_disabled"},
    "userunknown": {"unknown_recipient", "recipient_refused"},
    "hasmoved": {"recipient_moved", "unknown_recipient"},
    "hostunknown": {"bad_domain"},
}


def rows(name: str) -> list[dict[str, Any]]:
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def verdict(row: dict[str, Any]) -> Verdict:
    reply = Reply(row["code"], row["enhanced"], row["text"], Phase(row["phase"]))
    return classify(reply, row.get("provider", "other"))


@pytest.mark.parametrize("row", rows("replies.jsonl"), ids=lambda row: row["text"][:60])
def test_a_known_reply_gets_a_reason_that_a_reader_finds_right(row: dict[str, Any]) -> None:
    found = verdict(row)

    assert found.reason in row["reasons"]
    assert (found.action is Action.SUPPRESS) == row["suppresses"]


def counted() -> list[dict[str, Any]]:
    return [
        row
        for row in rows("bounced_replies.jsonl")
        if row["reason"] not in DISPUTED_REASONS and row["file"] not in DISPUTED_FILES
    ]


def test_nobody_is_suppressed_whom_sisimai_would_keep() -> None:
    wrong = [
        row["text"]
        for row in counted()
        if verdict(row).action is Action.SUPPRESS and row["reason"] not in GONE
    ]

    assert wrong == []


def test_most_of_those_who_are_gone_are_suppressed() -> None:
    """What is missed is ambiguous on purpose, such as Exchange's "Access denied"."""
    gone = [row for row in counted() if row["reason"] in GONE]
    suppressed = [row for row in gone if verdict(row).action is Action.SUPPRESS]

    assert len(gone) > 30
    assert len(suppressed) / len(gone) >= 0.85


def test_reasons_agree_with_sisimais_where_both_have_a_word_for_it() -> None:
    comparable = [row for row in counted() if row["reason"] in SAME]
    agreeing = [row for row in comparable if verdict(row).reason in SAME[row["reason"]]]

    assert len(comparable) > 60
    assert len(agreeing) / len(comparable) >= 0.9


def test_the_same_words_before_rcpt_never_speak_of_the_recipient() -> None:
    for row in rows("replies.jsonl"):
        for phase in ("greeting", "ehlo", "mail"):
            found = verdict({**row, "phase": phase})
            assert found.action is not Action.SUPPRESS
            assert found.scope not in (Scope.RECIPIENT, Scope.RECIPIENT_DOMAIN)
