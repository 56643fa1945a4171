"""The mailer's door: one message per mailing and key, every exclusion counted, nothing unsafe."""

from __future__ import annotations

from datetime import timedelta

import pytest

from deliverability import suppressions
from mailer import account, outbox
from mailer.core.envelope import UnsafeAddress
from mailer.core.headers import InvalidHeader
from mailer.core.retry import InvalidRetryPolicy
from mailer.models import Batch, Content, Expansion, Mailing, Message
from tests.integration.world import (
    World,
    a_content,
    a_pool,
    a_workspace,
    audience,
    in_threads,
    now,
    people,
)

pytestmark = pytest.mark.django_db


# -- content


def test_the_same_content_is_stored_once(world: World) -> None:
    first = a_content(world.workspace)

    assert a_content(world.workspace) == first
    assert a_content(world.workspace, subject="Another") != first
    assert a_content(a_workspace()) != first


def test_content_that_cannot_be_rendered_is_refused_at_the_door(world: World) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        a_content(world.workspace, html="{% for x in y %} never ends")
    with pytest.raises(InvalidHeader):
        a_content(world.workspace, from_header="Acme\r\nBcc: all@acme.example <n@acme.example>")
    with pytest.raises(ValueError, match=r"\w"):
        a_content(world.workspace, headers=[("X-Bad\r\nBcc", "all@acme.example")])
    with pytest.raises(UnsafeAddress):
        a_content(world.workspace, return_path="b@acme.example>\r\nDATA")
    assert not Content.objects.exists()


def test_content_says_which_fields_it_uses(world: World) -> None:
    assert a_content(world.workspace).fields == ["first_name"]
    dynamic = a_content(world.workspace, html="{% set k = 'a' %}{{ recipient[k] }}")
    assert dynamic.fields is None or "recipient" in dynamic.fields


# -- mailings


def test_the_same_reference_opens_one_mailing(world: World) -> None:
    first = world.open_mailing(reference="campaign:1")

    assert world.open_mailing(reference="campaign:1") == first
    assert Expansion.objects.count() == 1


def test_a_reference_cannot_be_used_for_other_content(world: World) -> None:
    world.open_mailing(reference="campaign:1")

    with pytest.raises(outbox.DifferentMailing):
        world.open_mailing(
            reference="campaign:1", content=a_content(world.workspace, subject="Other")
        )


def test_a_mailing_cannot_use_another_workspaces_pool(world: World) -> None:
    theirs, shared = a_pool(a_workspace()), a_pool()

    with pytest.raises(ValueError, match="another workspace"):
        world.open_mailing(pool=theirs)
    assert world.open_mailing(pool=shared).pool == shared


def test_a_retry_policy_that_is_none_opens_nothing(world: World) -> None:
    with pytest.raises(InvalidRetryPolicy):
        world.open_mailing(retry="twice a day")
    assert not Mailing.objects.exists()


# -- expansion


def test_pages_make_messages_and_batches_and_count_every_exclusion(world: World) -> None:
    addresses = people(7)
    addresses[3] = "R4@Gmail.com"
    suppressions.suppress(world.workspace.pk, "r2@gmail.com", reason="complaint")
    suppressions.suppress(world.workspace.pk, "r4@gmail.com", scope="list:1", reason="left")
    suppressions.suppress(world.workspace.pk, "r5@gmail.com", scope="list:2", reason="left")
    suppressions.suppress(
        world.workspace.pk, "r6@gmail.com", reason="paused", until=now() - timedelta(seconds=1)
    )
    mailing = world.open_mailing()
    question = audience(addresses, {7: "unsubscribed"})

    reports = [outbox.accept_page(mailing, *question, page=3) for _ in range(4)]

    assert [(r.matched, r.added, r.excluded, r.done) for r in reports] == [
        (3, 2, {"suppressed": 1}, False),
        (3, 2, {"suppressed": 1}, False),
        (1, 0, {"unsubscribed": 1}, True),
        (0, 0, {}, True),
    ]
    found = world.check(mailing.pk)
    assert (found.matched, found.audience) == (7, 4)
    assert found.excluded == {"suppressed": 2, "unsubscribed": 1}
    laid = [one for batch in world.batches(mailing) for one in batch.ids]
    assert sorted(laid) == sorted(Message.objects.values_list("id", flat=True))
    assert Mailing.objects.get(pk=mailing.pk).state == "running"


def test_one_message_for_each_recipient_however_many_expand_in_parallel(
    transactional_db: None, world: World
) -> None:
    mailing = world.open_mailing()
    question = audience(people(500))

    def expand(_: int) -> int:
        added = 0
        for _ in range(200):
            report = outbox.accept_page(mailing, *question, page=20)
            added += report.added
            if report.done:
                break
        return added

    assert sum(in_threads(6, expand)) == 500
    recipients = Message.objects.values_list("recipient_id", flat=True)
    assert sorted(r for r in recipients if r) == list(range(1, 501))
    assert world.states(mailing) == {"waiting": 500}
    laid = [one for batch in world.batches(mailing) for one in batch.ids]
    assert len(laid) == len(set(laid)) == 500


def test_a_recipient_that_a_page_names_twice_gets_one_message(world: World) -> None:
    mailing = world.open_mailing()
    select, params = audience(["r1@gmail.com", "r1@gmail.com", "r2@gmail.com"])
    params["ids"] = [1, 1, 2]

    report = outbox.accept_page(mailing, select, params)

    assert (report.matched, report.added, report.excluded) == (3, 2, {"duplicate": 1})
    world.check(mailing.pk)


def test_a_page_that_fails_leaves_nothing_behind(world: World) -> None:
    mailing = world.open_mailing()
    select, params = audience(people(3))
    bad = select.replace("r.exclusion\n", "(1 / (r.id - 2))::text AS exclusion\n")

    with pytest.raises(Exception, match="division by zero"):
        outbox.accept_page(mailing, bad, params)

    assert world.states(mailing) == {}
    assert outbox.accept_page(mailing, select, params).added == 3


def test_nothing_is_added_to_a_cancelled_mailing(world: World) -> None:
    mailing = world.open_mailing()
    outbox.cancel(mailing.pk)

    with pytest.raises(outbox.MailingNotOpen):
        outbox.accept_page(mailing, *audience(people(3)))


def test_expansion_goes_on_while_a_mailing_is_paused(world: World) -> None:
    mailing = world.open_mailing()
    outbox.accept_page(mailing, *audience(people(4)), page=2)
    outbox.pause(mailing.pk)
    outbox.accept_page(mailing, *audience(people(4)), page=2)

    assert Mailing.objects.get(pk=mailing.pk).state == "paused"
    outbox.resume(mailing.pk)
    assert Mailing.objects.get(pk=mailing.pk).state == "expanding"
    outbox.accept_page(mailing, *audience(people(4)), page=2)
    assert Mailing.objects.get(pk=mailing.pk).state == "running"


def test_lanes_are_kept_apart_and_batches_stay_small(world: World, policy: object) -> None:
    policy.POSTROAD_BATCH_SIZE = 10  # type: ignore[attr-defined]
    world.forget()
    warm = world.mailing_to(["a@gmail.com", "b@outlook.com", "c@shop.example"])
    world.work()
    mailing = world.mailing_to(people(25) + people(5, "outlook.com") + people(3, "new.example"))

    sizes: dict[str, list[int]] = {}
    for batch in world.batches(mailing):
        sizes.setdefault(batch.provider, []).append(len(batch.ids))

    assert {name: sorted(found) for name, found in sizes.items()} == {
        "gmail": [5, 10, 10],
        "outlook": [5],
        "": [3],
    }
    assert world.states(warm) == {"delivered": 3}


# -- transactional requests


def test_a_request_is_accepted_once_and_published_at_once(world: World) -> None:
    request = world.request("reset-1")
    world.start_runtime()

    first = outbox.submit(request, now=now())
    again = outbox.submit(request, now=now())

    assert (first.is_new, again.is_new) == (True, False)
    assert again.message_id == first.message_id
    assert [one.queue for one in first.publications] == ["deliver.urgent"]
    assert again.publications == []
    assert Message.objects.count() == 1


def test_a_second_request_is_another_message(world: World) -> None:
    outbox.submit(world.request("reset-1"), now=now())
    outbox.submit(world.request("reset-2"), now=now())

    assert Message.objects.count() == 2
    assert Mailing.objects.count() == 1
    assert world.states(Mailing.objects.get()) == {"waiting": 2}


def test_a_request_is_remembered_over_midnight(world: World) -> None:
    before = now().replace(hour=23, minute=59, second=59)
    first = outbox.submit(world.request("reset-1"), now=before)

    again = outbox.submit(world.request("reset-1"), now=before + timedelta(seconds=2))

    assert (again.message_id, again.is_new) == (first.message_id, False)


def test_workspaces_do_not_share_their_keys(world: World) -> None:
    other = World(a_workspace(), world.forget)
    outbox.submit(world.request("reset-1"), now=now())

    assert outbox.submit(other.request("reset-1"), now=now()).is_new


def test_the_same_request_from_many_sides_makes_one_message(
    transactional_db: None, world: World
) -> None:
    request = world.request("reset-1")

    accepted = in_threads(8, lambda _: outbox.submit(request, now=now()))

    assert sorted(one.is_new for one in accepted) == [False] * 7 + [True]
    assert len({one.message_id for one in accepted}) == 1
    assert world.states(Mailing.objects.get()) == {"waiting": 1}
    assert Batch.objects.count() == 1


@pytest.mark.parametrize(
    "address",
    ["ann@gmail.com\r\nDATA", "ann@gmail.com> SIZE=1", "ann smith@gmail.com", "ann", ""],
)
def test_an_address_that_no_envelope_may_carry_is_refused_at_the_door(
    world: World, address: str
) -> None:
    with pytest.raises(UnsafeAddress):
        outbox.submit(world.request("reset-1", address), now=now())
    assert not Message.objects.exists()


# -- pause, resume, cancel


def test_pausing_and_resuming_say_whether_they_did_anything(world: World) -> None:
    mailing = world.mailing_to(people(1))

    assert [outbox.pause(mailing.pk), outbox.pause(mailing.pk)] == [True, False]
    assert [outbox.resume(mailing.pk), outbox.resume(mailing.pk)] == [True, False]
    assert [outbox.cancel(mailing.pk), outbox.cancel(mailing.pk)] == [True, False]
    assert outbox.resume(mailing.pk) is False
    assert outbox.pause(mailing.pk) is False


def test_cancelling_ends_what_waits_in_batches_and_what_was_deferred(
    world: World, policy: object
) -> None:
    policy.POSTROAD_BATCH_SIZE = 2  # type: ignore[attr-defined]
    world.forget()
    mailing = world.mailing_to(people(300))
    deferred = Message.objects.order_by("id")[:7].values_list("id", flat=True)
    Message.objects.filter(pk__in=list(deferred)).update(due_at=now() + timedelta(hours=1))

    assert outbox.cancel(mailing.pk)

    assert world.states(mailing) == {"cancelled": 300}
    assert {batch.state for batch in world.batches(mailing)} == {"done"}


def test_cancelling_one_mailing_leaves_the_others_alone(world: World) -> None:
    doomed, other = world.mailing_to(people(3)), world.mailing_to(people(3, "outlook.com"))

    outbox.cancel(doomed.pk)

    assert world.states(other) == {"waiting": 3}
    assert account.account_of(doomed.pk).states["cancelled"] == 3
