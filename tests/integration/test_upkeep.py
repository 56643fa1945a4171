"""Upkeep: each step may run twice, late, or beside itself; mailings finish when the law holds."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from mailer import account, outbox, partitions, upkeep
from mailer.models import Batch, Mailing, MailingCount, MailingDelta, Message
from tests.integration.world import World, in_threads, now, people

pytestmark = pytest.mark.django_db


def state_of(mailing: Mailing) -> str:
    return Mailing.objects.values_list("state", flat=True).get(pk=mailing.pk)


def deferred(mailing: Mailing, minutes: int) -> None:
    """As if each message had been tried and put off."""
    Message.objects.filter(mailing_id=mailing.pk).update(due_at=now() + timedelta(minutes=minutes))
    Batch.objects.filter(mailing_id=mailing.pk).update(state="done")


def test_only_what_is_due_is_laid_and_each_message_once(world: World, policy: Any) -> None:
    policy.POSTROAD_BATCH_SIZE = 4
    world.forget()
    early, late = world.mailing_to(people(10)), world.mailing_to(people(3))
    deferred(early, 5)
    deferred(late, 50)

    assert upkeep.lay_due(now=now()) == 0
    assert upkeep.lay_due(now=now() + timedelta(minutes=6)) == 10
    assert upkeep.lay_due(now=now() + timedelta(minutes=6)) == 0

    laid = world.batches(early, state="untaken")
    assert [len(batch.ids) for batch in laid] == [4, 4, 2]
    assert world.batches(late, state="untaken") == []
    assert world.states(early) == {"waiting": 10}


def test_many_beats_lay_each_message_once(transactional_db: None, world: World) -> None:
    mailing = world.mailing_to(people(300))
    deferred(mailing, -1)

    laid = in_threads(6, lambda _: upkeep.lay_due(now=now()))

    assert sum(laid) == 300
    ids = [one for batch in world.batches(mailing, state="untaken") for one in batch.ids]
    assert len(ids) == len(set(ids)) == 300


def test_what_was_given_back_or_deferred_after_a_cancel_is_swept(world: World) -> None:
    mailing = world.mailing_to(people(4))
    Mailing.objects.filter(pk=mailing.pk).update(state="cancelled")
    Message.objects.filter(address="r1@gmail.com").update(due_at=now() + timedelta(hours=1))

    assert upkeep.sweep_cancelled() == 4
    assert upkeep.sweep_cancelled() == 0

    assert world.states(mailing) == {"cancelled": 4}


def test_a_mailing_is_finished_when_nothing_waits_and_nothing_is_in_doubt(world: World) -> None:
    mailing = world.mailing_to(people(3))
    assert upkeep.finish_mailings(now=now()) == []
    world.work()

    assert upkeep.finish_mailings(now=now()) == [mailing.pk]
    assert upkeep.finish_mailings(now=now()) == []
    assert state_of(mailing) == "finished"
    assert Mailing.objects.get(pk=mailing.pk).finished_at is not None


def test_a_mailing_whose_audience_is_not_all_there_is_not_finished(world: World) -> None:
    mailing = world.open_mailing()
    Mailing.objects.filter(pk=mailing.pk).update(state="running")

    assert upkeep.finish_mailings(now=now()) == []


def test_a_mailing_whose_account_does_not_add_up_is_not_finished(world: World) -> None:
    mailing = world.mailing_to(people(3))
    world.work()
    MailingDelta.objects.create(mailing_id=mailing.pk, entry="delivered", delta=1)

    assert upkeep.finish_mailings(now=now()) == []
    assert account.recount(mailing.pk).broken[0] == ("delivered: the account says 4, the rows 3")


def test_a_standing_mailing_ends_well_after_its_day(world: World) -> None:
    """Well after, since a request that came before midnight may be committed after it."""
    midnight = now().replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    world.deliver(outbox.submit(world.request("reset-1"), now=now()).publications)
    world.work()
    mailing = Mailing.objects.get()
    assert world.states(mailing) == {"delivered": 1}

    assert upkeep.finish_mailings(now=midnight - timedelta(seconds=1)) == []
    assert upkeep.finish_mailings(now=midnight + timedelta(seconds=1)) == []
    assert upkeep.finish_mailings(now=midnight + timedelta(hours=2)) == [mailing.pk]


def test_folding_changes_no_account(world: World) -> None:
    mailing = world.mailing_to(people(5))
    world.work()
    before = account.account_of(mailing.pk)

    upkeep.clean(now=now())

    assert account.account_of(mailing.pk) == before
    assert not MailingDelta.objects.exists()
    counts = MailingCount.objects.filter(mailing_id=mailing.pk)
    assert dict(counts.values_list("entry", "count")) == {
        "waiting": 0,
        "delivered": 5,
        "attempts": 5,
    }


def test_folding_beside_itself_and_beside_changes_loses_none(
    transactional_db: None, world: World
) -> None:
    mailing = world.open_mailing()

    def work(number: int) -> int:
        for _ in range(40):
            if number % 2:
                account.note(mailing.pk, {"waiting": 3, "delivered": 1})
            else:
                account.fold(limit=7)
        return 0

    in_threads(6, work)
    while account.fold():
        pass

    states = account.account_of(mailing.pk).states
    assert (states["waiting"], states["delivered"]) == (360, 120)


def test_old_batches_go_and_coming_days_have_partitions(world: World) -> None:
    mailing = world.mailing_to(people(2))
    (batch,) = world.batches(mailing)
    Batch.objects.filter(pk=batch.pk).update(state="done")
    waiting = world.mailing_to(people(2))

    upkeep.clean(now=now())
    assert world.batches(mailing) == [batch]
    upkeep.clean(now=now() + timedelta(hours=2))

    assert world.batches(mailing) == []
    assert len(world.batches(waiting)) == 1
    for days in range(partitions.DAYS_AHEAD + 1):
        day = (now() + timedelta(days=days)).date()
        assert partitions._exists("mailer_message", day)
        assert partitions._exists("mailer_attempt", day)
