from __future__ import annotations

import csv
from collections import Counter

from campaigns.core.recipient_rows import RecipientRow, columns_from, row_from
from campaigns.demo.people import SUPPRESSED, UNSUBSCRIBED, csv_text
from sandbox.faults import Effect, fault_for

HARMLESS = {Effect.DEFER_RECIPIENT, Effect.REFUSE_RECIPIENT, Effect.RATE_LIMIT}


def people_of(text: str) -> tuple[dict[str, RecipientRow], int]:
    header, *rows = csv.reader(text.splitlines())
    columns = columns_from(header)
    read = [row_from(columns, row, line=n, raw="") for n, row in enumerate(rows)]
    good = {row.address.key: row for row in read if isinstance(row, RecipientRow)}
    return good, len(read)


def test_the_file_holds_the_people_asked_for_and_some_rows_that_are_wrong() -> None:
    good, rows = people_of(csv_text(2_000, seed=1))

    assert len(good) == 2_000
    assert rows == 2_000 + 12 + 7
    assert {*UNSUBSCRIBED, *SUPPRESSED} <= good.keys()


def test_the_same_seed_gives_the_same_file() -> None:
    assert csv_text(50, seed=3) == csv_text(50, seed=3)
    assert csv_text(50, seed=3) != csv_text(50, seed=4)


def test_no_address_asks_for_a_fault_that_leaves_a_message_in_doubt() -> None:
    good, _ = people_of(csv_text(2_000, seed=1))
    faults = [fault for key in good if (fault := fault_for(key))]
    by_name = Counter(fault.rule.name for fault in faults)

    assert {fault.rule.effect for fault in faults} <= HARMLESS
    assert by_name.keys() == {"unknown", "full", "tempfail", "ratelimit"}
    assert 20 <= by_name["unknown"] <= 60
    assert max(fault.count for fault in faults if fault.rule.name == "tempfail") == 2


def test_all_providers_of_the_sandbox_get_mail() -> None:
    good, _ = people_of(csv_text(2_000, seed=1))
    domains = Counter(row.address.domain for row in good.values())

    assert {"gmail.com", "outlook.com", "hotmail.com", "yahoo.com"} <= domains.keys()
    assert {"icloud.com", "corp.example", "slow.example"} <= domains.keys()
    assert domains["slow.example"] <= 20


def test_a_demo_of_one_recipient_is_possible() -> None:
    good, _ = people_of(csv_text(1, seed=1))

    assert len(good) == 1
