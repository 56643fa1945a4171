from __future__ import annotations

import pytest

from sandbox.faults import FAULTS, Effect, fault_for
from sandbox.providers import PROVIDERS


@pytest.mark.parametrize(
    ("recipient", "effect", "count"),
    [
        ("tempfail-3@gmail.com", Effect.DEFER_RECIPIENT, 3),
        ("tempfail@gmail.com", Effect.DEFER_RECIPIENT, 1),
        ("tempfail-2-anna@gmail.com", Effect.DEFER_RECIPIENT, 2),
        ("tempfail-data-2@gmail.com", Effect.DEFER_CONTENT, 2),
        ("tempfail-data@gmail.com", Effect.DEFER_CONTENT, 1),
        ("ratelimit-4@yahoo.com", Effect.RATE_LIMIT, 4),
        ("greylist@x.test", Effect.GREYLIST, 0),
        ("full@x.test", Effect.REFUSE_RECIPIENT, 0),
        ("full-of-it@x.test", Effect.REFUSE_RECIPIENT, 0),
        ("unknown-17@x.test", Effect.REFUSE_RECIPIENT, 0),
        ("421-now@x.test", Effect.CLOSE_AT_RECIPIENT, 0),
        ("421@x.test", Effect.CLOSE_AT_RECIPIENT, 0),
        ("disconnect-in-data-5@x.test", Effect.CUT_IN_CONTENT, 0),
        ("lost-reply@x.test", Effect.LOSE_REPLY, 0),
        ("slow-30@x.test", Effect.DELAY_REPLY, 30),
        ("reject-data@x.test", Effect.REFUSE_CONTENT, 0),
    ],
)
def test_a_local_part_chooses_its_fault(recipient: str, effect: Effect, count: int) -> None:
    fault = fault_for(recipient)

    assert fault is not None
    assert (fault.rule.effect, fault.count) == (effect, count)


@pytest.mark.parametrize("recipient", ["UNKNOWN@x.test", "unknown+news@x.test", "Unknown-1+a@x"])
def test_case_and_tag_make_no_difference(recipient: str) -> None:
    assert fault_for(recipient) == fault_for("unknown@x.test")


@pytest.mark.parametrize(
    "recipient",
    ["anna@x.test", "unknownish@x.test", "421st@x.test", "fullmoon@x.test", "a@unknown", "unknown"],
)
def test_other_addresses_have_no_fault(recipient: str) -> None:
    assert fault_for(recipient) is None


def test_slow_without_a_number_leaves_the_time_to_the_server() -> None:
    fault = fault_for("slow@x.test")

    assert fault is not None
    assert fault.number is None


def test_a_number_is_clamped_to_what_makes_sense() -> None:
    fault = fault_for("slow-999999@x.test")

    assert fault is not None
    assert fault.count == 3600


def test_every_reply_a_fault_names_is_said_by_every_provider() -> None:
    said = {rule.says for rule in FAULTS if rule.says}

    assert all(getattr(provider.texts, name) for provider in PROVIDERS for name in said)
