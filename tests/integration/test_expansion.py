"""Expansion on a real PostgreSQL: who gets a message, and that nobody gets two."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from campaigns import expansion, launch, progress
from campaigns.models import Campaign, List, Recipient, Subscription
from deliverability import suppressions
from mailer import account
from mailer.models import Expansion, Message
from tests.integration.campaign_world import NOW, World, make_world

pytestmark = pytest.mark.django_db


@pytest.fixture
def world(db) -> World:
    return make_world()


def launched(campaign: Campaign) -> int:
    return launch.launch(campaign.pk, actor="ann", now=NOW).mailing_id


def addresses(mailing_id: int) -> list[str]:
    rows = Message.objects.filter(mailing_id=mailing_id).order_by("address")
    return list(rows.values_list("address", flat=True))


def people(world: World, count: int, start: int = 0) -> list[Recipient]:
    return [world.recipient(f"a{n:04d}@b.example") for n in range(start, start + count)]


def test_everybody_who_is_subscribed_gets_one_message(world) -> None:
    mailing_id = launched(world.campaign(world.list("R", *people(world, 7))))
    step = expansion.expand_step(mailing_id, 10, page=3)

    assert (step.added, step.has_more) == (7, False)
    assert addresses(mailing_id) == [f"a{n:04d}@b.example" for n in range(7)]
    found = account.recount(mailing_id)
    assert found.broken == []
    assert (found.account.matched, found.account.audience) == (7, 7)


def test_who_is_on_several_lists_gets_one_message(world) -> None:
    everybody = people(world, 6)
    lists = [world.list(f"L{n}", *everybody[n : n + 4]) for n in range(3)]
    mailing_id = launched(world.campaign(*lists))
    expansion.expand_step(mailing_id, 10, page=2)

    assert len(addresses(mailing_id)) == 6
    assert account.account_of(mailing_id).matched == 6


def test_one_subscription_among_the_lists_is_enough(world) -> None:
    ann, bob, cid, dan = people(world, 4)
    one, two = world.list("One", ann), world.list("Two", bob)
    world.subscribe(one, [bob, cid], "unsubscribed")
    world.subscribe(two, [cid], "unconfirmed")
    world.subscribe(two, [dan], "unsubscribed")
    mailing_id = launched(world.campaign(one, two))
    expansion.expand_step(mailing_id, 10)

    assert addresses(mailing_id) == [ann.address, bob.address]
    found = account.recount(mailing_id)
    assert found.account.excluded == {"unconfirmed": 1, "unsubscribed": 1}
    assert found.broken == []


def test_the_suppressed_are_excluded_and_counted(world) -> None:
    everybody = people(world, 4)
    readers = world.list("R", *everybody)
    suppress = suppressions.suppress
    suppress(world.workspace.pk, everybody[0].address_key, reason="complaint")
    suppress(
        world.workspace.pk, everybody[1].address_key, scope=f"list:{readers.pk}", reason="asked"
    )
    suppress(world.workspace.pk, everybody[2].address_key, scope="list:999999", reason="asked")
    mailing_id = launched(world.campaign(readers))
    expansion.expand_step(mailing_id, 10)

    assert addresses(mailing_id) == [everybody[2].address, everybody[3].address]
    assert account.account_of(mailing_id).excluded == {"suppressed": 2}


def test_only_the_fields_that_the_content_uses_are_copied(world) -> None:
    ann = world.recipient("a@b.example", first_name="Ann", secret="s3cret", city="Rome")
    bob = world.recipient("b@b.example", city="Oslo")
    mailing_id = launched(world.campaign(world.list("R", ann, bob)))
    expansion.expand_step(mailing_id, 10)

    contexts = Message.objects.order_by("address").values_list("context", flat=True)
    assert list(contexts) == [{"first_name": "Ann"}, {}]


def test_all_fields_are_copied_where_the_content_looks_them_up_dynamically(world) -> None:
    html = "{% for name in fields %}{{ fields[name] }}{% endfor %} {{ unsubscribe_url }}"
    world.template.add_version(subject="Hi", html=html)
    ann = world.recipient("a@b.example", first_name="Ann", city="Rome")
    mailing_id = launched(world.campaign(world.list("R", ann)))
    expansion.expand_step(mailing_id, 10)

    assert Message.objects.get().context == {"first_name": "Ann", "city": "Rome"}


def test_an_expansion_goes_on_where_it_was_left(world) -> None:
    mailing_id = launched(world.campaign(world.list("R", *people(world, 9))))
    first = expansion.expand_step(mailing_id, 0, page=4)
    assert (first.added, first.has_more) == (4, True)
    assert not account.account_of(mailing_id).is_expanded

    rest = expansion.expand_step(mailing_id, 10, page=4)
    assert (rest.added, rest.has_more) == (5, False)
    again = expansion.expand_step(mailing_id, 10, page=4)
    assert (again.added, again.has_more) == (0, False)
    assert account.recount(mailing_id).broken == []


def test_people_who_join_behind_the_cursor_do_not_count_twice(world) -> None:
    everybody = people(world, 6)
    readers = world.list("R", *everybody[1:])
    mailing_id = launched(world.campaign(readers))
    expansion.expand_step(mailing_id, 0, page=2)
    world.subscribe(readers, [everybody[0], *people(world, 1, start=6)])
    expansion.expand_step(mailing_id, 10, page=2)

    assert len(addresses(mailing_id)) == 6
    assert account.recount(mailing_id).broken == []


def test_each_page_is_told_once_it_has_committed(world) -> None:
    mailing_id = launched(world.campaign(world.list("R", *people(world, 5))))
    told: list[tuple[int, int]] = []
    expansion.expand_step(
        mailing_id,
        10,
        page=2,
        on_page=lambda page: told.append((page.added, Message.objects.count())),
    )

    assert told == [(2, 2), (2, 4), (1, 5)]


def test_a_cancelled_campaign_is_expanded_no_further(world) -> None:
    campaign = world.campaign(world.list("R", *people(world, 6)))
    mailing_id = launched(campaign)
    expansion.expand_step(mailing_id, 0, page=2)
    launch.cancel(campaign.pk, actor="ann", now=NOW)
    step = expansion.expand_step(mailing_id, 10, page=2)

    assert (step.added, step.has_more) == (0, False)
    assert account.account_of(mailing_id).states["cancelled"] == 2
    assert progress.of(Campaign.objects.get(), now=NOW).is_over


def test_a_paused_campaign_may_learn_its_whole_audience_but_stays_paused(world) -> None:
    campaign = world.campaign(world.list("R", *people(world, 3)))
    mailing_id = launched(campaign)
    launch.pause(campaign.pk, actor="ann")
    expansion.expand_step(mailing_id, 10)

    assert account.account_of(mailing_id).states["waiting"] == 3
    assert not progress.of(Campaign.objects.get(), now=NOW).is_over


def test_a_mailing_that_is_gone_or_no_campaign_is_no_error(world) -> None:
    assert expansion.expand_step(424242, 1).has_more is False


def test_an_expansion_that_stands_still_is_handed_out_again_once(world) -> None:
    mailing_id = launched(world.campaign(world.list("R", *people(world, 3))))
    late = NOW + expansion.STALLED_AFTER

    assert expansion.settle(now=NOW + timedelta(seconds=29)).to_expand == ()
    assert expansion.settle(now=late).to_expand == (mailing_id,)
    assert expansion.settle(now=late).to_expand == ()
    expansion.note_published(mailing_id, now=late + timedelta(seconds=20))
    assert expansion.settle(now=late + timedelta(seconds=40)).to_expand == ()

    expansion.expand_step(mailing_id, 10)
    assert expansion.settle(now=late + timedelta(hours=1)).to_expand == ()


def test_an_audience_of_a_hundred_thousand_is_expanded_in_a_dozen_pages(world) -> None:
    readers = world.list()
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO campaigns_recipient (workspace_id, address, address_key, domain, attributes)
            SELECT %s, 'p' || n || '@b.example', 'p' || n || '@b.example', 'b.example',
                   '{"first_name": "Ann"}' FROM generate_series(1, 100000) n
            """,
            [world.workspace.pk],
        )
        cursor.execute(
            """
            INSERT INTO campaigns_subscription (list_id, recipient_id, state, origin)
            SELECT %s, id, 'subscribed', '' FROM campaigns_recipient
            """,
            [readers.pk],
        )
        # The checks of foreign keys at the end would go on with a plan made for an empty table.
        cursor.execute("ANALYZE campaigns_recipient, campaigns_subscription, campaigns_list")
    mailing_id = launched(world.campaign(readers))
    pages = []
    step = expansion.expand_step(mailing_id, 60, on_page=pages.append)

    assert (step.added, step.has_more) == (100_000, False)
    assert len(pages) == 11
    assert account.account_of(mailing_id).states["waiting"] == 100_000


@pytest.mark.django_db(transaction=True)
def test_expanding_in_parallel_gives_everybody_one_message() -> None:
    world = make_world()
    everybody = people(world, 300)
    lists = [world.list("One", *everybody[:200]), world.list("Two", *everybody[100:])]
    mailing_id = launched(world.campaign(*lists))
    start, steps = threading.Barrier(4), []

    def expand() -> None:
        try:
            start.wait(20)
            steps.append(expansion.expand_step(mailing_id, 30, page=7))
        finally:
            connection.close()

    workers = [threading.Thread(target=expand) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)

    assert sum(step.added for step in steps) == 300
    assert len(set(addresses(mailing_id))) == Message.objects.count() == 300
    found = account.recount(mailing_id)
    assert found.broken == []
    assert (found.account.matched, found.account.is_expanded) == (300, True)


states = st.sampled_from(["subscribed", "unconfirmed", "unsubscribed"])
memberships = st.dictionaries(st.integers(0, 11), states, max_size=12)


class AnyAudience(TestCase):
    """Whatever the lists hold and however small the pages: the SQL says what the rule says."""

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(lists=st.lists(memberships, min_size=1, max_size=4), page=st.integers(1, 5))
    def test_everybody_is_seen_once_with_the_right_reason(
        self, lists: list[dict[int, str]], page: int
    ) -> None:
        world = make_world(f"w{timezone.now().timestamp():.6f}".replace(".", ""))
        everybody = people(world, 12)
        made = [_filled(world, everybody, n, members) for n, members in enumerate(lists)]
        campaign = world.campaign(*made)
        if not Subscription.objects.filter(list__in=made, state="subscribed").exists():
            return
        mailing_id = launched(campaign)
        expansion.expand_step(mailing_id, 30, page=page)

        expected = [_fate(n, lists) for n in range(12)]
        found = account.account_of(mailing_id)
        assert addresses(mailing_id) == [
            person.address
            for person, fate in zip(everybody, expected, strict=True)
            if fate == "subscribed"
        ]
        for why in ("unconfirmed", "unsubscribed"):
            assert found.excluded.get(why, 0) == expected.count(why)
        assert found.matched == len([fate for fate in expected if fate])
        assert Expansion.objects.get(mailing_id=mailing_id).done


def _filled(world: World, everybody: list[Recipient], number: int, members: dict[int, str]) -> List:
    made = world.list(f"L{number}")
    for n, state in members.items():
        world.subscribe(made, [everybody[n]], state)
    return made


def _fate(n: int, lists: Iterable[dict[int, str]]) -> str:
    found = {members[n] for members in lists if n in members}
    ranked = ("subscribed", "unconfirmed", "unsubscribed")
    return next((state for state in ranked if state in found), "")
