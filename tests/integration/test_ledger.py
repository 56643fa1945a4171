"""The ledger: outcomes are tallied, and only a refused recipient is ever suppressed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from deliverability import ledger
from deliverability.core.outcome import Action, Scope
from deliverability.models import Suppression, Tally
from tests.integration.world import a_workspace, in_threads

pytestmark = pytest.mark.django_db
AT = datetime(2026, 3, 1, 12, 34, 56, tzinfo=UTC)


def fact(
    address: str = "ann@gmail.com",
    *,
    at: datetime = AT,
    outcome: str = "rejected",
    scope: Scope = Scope.RECIPIENT,
    action: Action = Action.NONE,
) -> ledger.Fact:
    return ledger.Fact(
        at=at,
        source_id=7,
        provider="gmail",
        address_key=address,
        outcome=outcome,
        reason="a_reason",
        scope=scope,
        action=action,
        detail="550 5.1.1 No such user",
    )


def test_outcomes_of_an_hour_make_one_row_for_each_kind() -> None:
    workspace = a_workspace()

    ledger.record(
        workspace.pk,
        [fact(), fact("bob@gmail.com"), fact(outcome="accepted"), fact(at=AT + timedelta(hours=1))],
    )

    rows = Tally.objects.order_by("hour", "outcome").values_list("hour", "outcome", "count")
    noon = AT.replace(minute=0, second=0)
    assert list(rows) == [
        (noon, "accepted", 1),
        (noon, "rejected", 2),
        (noon + timedelta(hours=1), "rejected", 1),
    ]


@pytest.mark.parametrize("scope", list(Scope))
def test_only_a_reply_about_the_recipient_suppresses(scope: Scope) -> None:
    workspace = a_workspace()

    ledger.record(workspace.pk, [fact(scope=scope, action=Action.SUPPRESS)])

    assert Suppression.objects.exists() == (scope is Scope.RECIPIENT)


@pytest.mark.parametrize("action", [action for action in Action if action is not Action.SUPPRESS])
def test_nothing_but_the_action_suppresses(action: Action) -> None:
    ledger.record(a_workspace().pk, [fact(action=action)])

    assert not Suppression.objects.exists()


def test_the_first_reason_is_kept_and_the_reply_is_told() -> None:
    workspace = a_workspace()
    for _ in range(2):
        ledger.record(workspace.pk, [fact(action=Action.SUPPRESS), fact(action=Action.SUPPRESS)])

    one = Suppression.objects.get()
    assert (one.address_key, one.reason, one.scope) == ("ann@gmail.com", "a_reason", "workspace")
    assert one.detail == "550 5.1.1 No such user"


def test_an_empty_batch_writes_nothing() -> None:
    ledger.record(a_workspace().pk, [])

    assert not Tally.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_workers_that_suppress_the_same_people_in_any_order_do_not_deadlock() -> None:
    workspace = a_workspace()

    def work(number: int) -> int:
        for turn in range(5):
            people = [f"r{turn}-{one}@gmail.com" for one in range(400)]
            order = people if number % 2 else people[::-1]
            ledger.record(workspace.pk, [fact(one, action=Action.SUPPRESS) for one in order])
        return 1

    assert sum(in_threads(4, work)) == 4
    assert Suppression.objects.count() == 2_000
