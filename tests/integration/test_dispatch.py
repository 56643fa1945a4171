"""Dispatch: who goes next, from which source, how much; nothing waits behind what cannot go."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from deliverability.models import Hold, Source, SourceState
from mailer import dispatch, outbox, upkeep
from mailer.models import Batch, Mailing, Message
from tests.integration.world import World, a_pool, a_source, in_threads, now, people

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _known_routes(world: World) -> None:
    """Domains are resolved already: what is laid has its lane."""
    world.mailing_to(["x@gmail.com", "x@outlook.com", "x@shop.example"])
    world.work()


def small_batches(world: World, policy: Any, size: int, *, ahead: int = 16) -> None:
    policy.POSTROAD_BATCH_SIZE, policy.POSTROAD_DISPATCH_AHEAD = size, ahead
    world.forget()


def published_of(mailing: Mailing) -> list[Batch]:
    return list(Batch.objects.filter(mailing_id=mailing.pk, published_at__isnull=False))


def test_a_batch_is_published_once_to_the_queue_of_its_priority(world: World) -> None:
    for priority, queue in ((1, "low"), (2, "normal"), (3, "high"), (4, "urgent")):
        world.mailing_to(people(2), priority=priority)
        assert [one.queue for one in world.published()] == [f"deliver.{queue}"]
        assert world.published() == []


def test_unresolved_recipients_are_routed_first(world: World) -> None:
    mailing = world.mailing_to(["a@new.example", "b@other.example"])

    (one,) = world.published()

    assert (one.queue, one.needs_route) == ("dispatch", True)
    assert [batch.source_id for batch in published_of(mailing)] == [None]


def test_the_number_of_bulk_batches_in_work_is_bounded_and_urgent_ones_are_not(
    world: World, policy: Any
) -> None:
    small_batches(world, policy, 1, ahead=8)
    for domain in ("gmail.com", "outlook.com", "shop.example"):
        world.mailing_to(people(20, domain))

    assert len(world.published()) == 8
    assert world.published() == []
    world.mailing_to(people(12), priority=4)
    assert [one.queue for one in world.published()] == ["deliver.urgent"] * 12


def test_one_provider_does_not_take_every_turn(world: World, policy: Any) -> None:
    small_batches(world, policy, 1, ahead=8)
    world.mailing_to(people(20))
    world.mailing_to(people(20, "outlook.com"))

    published = Batch.objects.filter(pk__in=[one.batch_id for one in world.published()])

    by_provider = [batch.provider for batch in published]
    assert len(by_provider) == 8
    assert by_provider.count("gmail") <= 6
    assert by_provider.count("outlook") <= 6


def test_lanes_of_one_priority_take_turns(world: World, policy: Any) -> None:
    small_batches(world, policy, 1, ahead=8)
    large = world.mailing_to(people(30))
    small = world.mailing_to(people(2))

    world.published()

    assert len(published_of(small)) == 2
    assert len(published_of(large)) == 4  # what the provider's share leaves


def test_lower_priorities_keep_a_share(world: World, policy: Any) -> None:
    small_batches(world, policy, 1, ahead=16)
    high = world.mailing_to([*people(40), *people(40, "outlook.com")], priority=3)
    low = world.mailing_to([*people(40), *people(40, "outlook.com")], priority=1)

    for turn in range(0, 64, 16):
        dispatch.dispatch(now=now(), turn=turn)
        Batch.objects.filter(published_at__isnull=False).update(state="done")

    share = Batch.objects.filter(mailing_id=low.pk, state="done").count()
    assert share == 8  # every eighth
    assert Batch.objects.filter(mailing_id=high.pk, state="done").count() == 56


def test_a_batch_is_cut_to_the_room_of_its_source(world: World) -> None:
    Source.objects.update(daily_cap=30)
    mailing = world.mailing_to(people(100))

    (one,) = world.published()

    sizes = {batch.pk: len(batch.ids) for batch in world.batches(mailing)}
    assert sizes.pop(one.batch_id) == 30
    assert list(sizes.values()) == [70]
    ids = [one for batch in world.batches(mailing) for one in batch.ids]
    assert sorted(ids) == sorted(
        Message.objects.filter(mailing_id=mailing.pk).values_list("id", flat=True)
    )
    world.deliver([one])
    assert world.published() == []
    assert world.states(mailing) == {"delivered": 30, "waiting": 70}


def test_batches_spread_over_the_sources_of_a_pool_by_their_room(world: World, policy: Any) -> None:
    small_batches(world, policy, 10)
    capped = a_source(world.pool, daily_cap=15)
    a_source(world.pool, state=SourceState.QUARANTINED)
    mailing = world.mailing_to(people(60))

    world.work()

    used: dict[int, int] = {}
    for batch in Batch.objects.filter(mailing_id=mailing.pk, provider="gmail"):
        used[batch.source_id or 0] = used.get(batch.source_id or 0, 0) + len(batch.ids)
    assert set(used) == {world.source.pk, capped.pk}
    assert used[capped.pk] <= 15
    assert world.states(mailing) == {"delivered": 60}


def test_mail_that_cannot_go_holds_up_nobody(world: World, policy: Any) -> None:
    """Lanes without room must not use up the turns of those that have some."""
    small_batches(world, policy, 1, ahead=4)
    full = a_pool(world.workspace)
    a_source(full, daily_cap=0)
    stuck = [world.mailing_to(people(10), pool=full, priority=3) for _ in range(6)]
    free = world.mailing_to(people(3), priority=1)

    world.work()

    assert world.states(free) == {"delivered": 3}
    assert all(world.states(mailing) == {"waiting": 10} for mailing in stuck)


def test_what_is_not_due_paused_or_held_stays(world: World) -> None:
    waiting, paused = world.mailing_to(people(1)), world.mailing_to(people(1))
    Batch.objects.filter(mailing_id=waiting.pk).update(due_at=now() + timedelta(minutes=5))
    outbox.pause(paused.pk)

    assert world.published() == []
    assert len(world.published(at=now() + timedelta(minutes=6))) == 1
    Batch.objects.update(published_at=None)
    Hold.objects.create(workspace=world.workspace, reason="a test", held_by="ann")
    assert world.published(at=now() + timedelta(minutes=6)) == []


def test_many_dispatchers_publish_each_batch_once(
    transactional_db: None, world: World, policy: Any
) -> None:
    small_batches(world, policy, 1, ahead=1_000)
    world.mailing_to([*people(60), *people(60, "outlook.com")])

    found = in_threads(6, lambda number: dispatch.dispatch(now=now(), turn=number))

    ids = [one.batch_id for publications in found for one in publications]
    assert len(ids) == len(set(ids)) == 120


def test_requests_are_assigned_in_the_transaction_that_accepts_them(world: World) -> None:
    accepted = outbox.submit(world.request("reset-1"), now=now())

    (one,) = accepted.publications
    batch = Batch.objects.get(pk=one.batch_id)
    assert (batch.source_id, batch.ids) == (world.source.pk, [accepted.message_id])
    assert world.published() == []


def test_a_request_without_room_waits_for_the_next_dispatch(world: World) -> None:
    Source.objects.update(daily_cap=0)

    assert outbox.submit(world.request("reset-1"), now=now()).publications == []
    Source.objects.update(daily_cap=5)
    assert len(world.published()) == 1


# -- publications that are lost


def test_publications_are_repeated_after_a_loss_of_the_broker(
    world: World, redis_client: Any
) -> None:
    upkeep.republish(now=now())  # this server is known now
    mailing = world.mailing_to(people(3))
    assert len(world.published()) == 1

    assert upkeep.republish(now=now()) == 0
    redis_client.delete("postroad:published")
    assert upkeep.republish(now=now()) == 1
    world.work()
    assert world.states(mailing) == {"delivered": 3}


def test_publications_that_nobody_took_for_long_are_repeated(world: World) -> None:
    upkeep.republish(now=now())
    world.mailing_to(people(3))
    assert len(world.published()) == 1

    assert upkeep.republish(now=now() + timedelta(seconds=59)) == 0
    assert upkeep.republish(now=now() + timedelta(seconds=61)) == 1


def test_a_batch_in_work_is_never_published_again(
    transactional_db: None, world: World, redis_client: Any
) -> None:
    mailing = world.mailing_to(people(3))
    (one,) = world.published()
    Batch.objects.filter(pk=one.batch_id).update(state="taken", journal_id="0" * 32)
    redis_client.delete("postroad:published")

    assert upkeep.republish(now=now() + timedelta(days=1)) == 0
    assert world.published() == []
    assert world.states(mailing) == {"waiting": 3}
