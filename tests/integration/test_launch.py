"""Launch, pause, resume, cancel: each once, each with its record, each with its loser."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from django.db import connection

from campaigns import expansion, launch, preflight
from campaigns.core.lifecycle import IllegalMove
from campaigns.launch import LaunchRefused
from campaigns.models import AuditEntry, Campaign
from deliverability.models import Pool, Source
from mailer import account
from mailer.models import Expansion, Mailing
from tests.integration.campaign_world import NOW, World, make_world

pytestmark = pytest.mark.django_db


@pytest.fixture
def world(db) -> World:
    return make_world()


@pytest.fixture
def draft(world: World) -> Campaign:
    return world.campaign(world.list("Readers", world.recipient("a@b.example", first_name="Ann")))


def codes(campaign: Campaign) -> set[str]:
    return {finding.code for finding in preflight.check(campaign)}


def launched(campaign: Campaign) -> int:
    return launch.launch(campaign.pk, actor="ann", now=NOW).mailing_id


def state_of(campaign: Campaign) -> str:
    return Campaign.objects.get(pk=campaign.pk).state


def test_launching_freezes_the_campaign_into_a_mailing(world, draft) -> None:
    next_ = launch.launch(draft.pk, actor="ann", now=NOW)

    draft.refresh_from_db()
    assert (draft.state, draft.launched_at, draft.mailing_id) == ("sending", NOW, next_.mailing_id)
    assert next_.expands
    mailing = Mailing.objects.get(pk=next_.mailing_id)
    assert (mailing.reference, mailing.day) == (f"campaign:{draft.pk}", NOW.date())
    assert (mailing.state, mailing.priority, mailing.pool) == ("expanding", 2, world.pool)
    assert mailing.unsubscribe_scope == f"list:{draft.lists.get().pk}"
    assert mailing.content.fields == ["first_name"]
    assert mailing.retry["kind"] == "exponential"


def test_editing_the_template_afterwards_changes_nothing_in_flight(world, draft) -> None:
    mailing_id = launched(draft)
    world.template.add_version(subject="Changed", html="<p>Changed</p>")

    assert Mailing.objects.get(pk=mailing_id).content.subject == "News"


def test_a_launch_is_written_down_with_who_did_it(world, draft) -> None:
    mailing_id = launched(draft)

    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action) == ("ann", "campaign.launched")
    assert entry.subject == f"campaign {draft.pk}: Spring"
    assert entry.detail["mailing"] == mailing_id
    assert entry.detail["lists"] == ["Readers"]


def test_a_campaign_to_several_lists_is_unsubscribed_from_as_a_whole(world) -> None:
    one, two = world.list("One", world.recipient("a@b.example")), world.list("Two")
    campaign = world.campaign(one, two)

    mailing = Mailing.objects.get(pk=launched(campaign))
    assert mailing.unsubscribe_scope == f"campaign:{campaign.pk}"


def test_a_campaign_is_launched_once_only(draft) -> None:
    launched(draft)

    with pytest.raises(IllegalMove, match="only a draft can be launched"):
        launched(draft)
    assert Mailing.objects.count() == 1


def test_a_retry_policy_written_as_json_is_frozen(world) -> None:
    campaign = world.campaign(
        world.list("R", world.recipient("a@b.example")),
        retry_policy='{"kind":"exponential","first_delay_seconds":3,"max_age_seconds":600}',
    )

    retry = Mailing.objects.get(pk=launched(campaign)).retry
    assert (retry["first_delay_seconds"], retry["max_age_seconds"]) == (3.0, 600.0)


def test_pause_and_resume_move_the_campaign_and_its_mailing(draft) -> None:
    mailing = Mailing.objects.get(pk=launched(draft))
    launch.pause(draft.pk, actor="bob")
    mailing.refresh_from_db()
    assert (state_of(draft), mailing.state) == ("paused", "paused")

    next_ = launch.resume(draft.pk, actor="bob", now=NOW)
    mailing.refresh_from_db()
    assert (state_of(draft), mailing.state) == ("sending", "expanding")
    assert (next_.expands, next_.dispatches) == (True, True)

    expansion.expand_step(mailing.pk, 5)
    launch.pause(draft.pk, actor="bob")
    next_ = launch.resume(draft.pk, actor="bob", now=NOW)
    mailing.refresh_from_db()
    assert mailing.state == "running"
    assert (next_.expands, next_.dispatches) == (False, True)


def test_cancelling_cancels_what_waits_and_keeps_the_account(draft) -> None:
    mailing_id = launched(draft)
    expansion.expand_step(mailing_id, 5)
    launch.cancel(draft.pk, actor="bob", now=NOW)

    assert state_of(draft) == "cancelled"
    assert Mailing.objects.get(pk=mailing_id).state == "cancelled"
    found = account.recount(mailing_id)
    assert found.broken == []
    assert found.account.states["cancelled"] == 1
    actions = AuditEntry.objects.order_by("id").values_list("action", flat=True)
    assert list(actions) == ["campaign.launched", "campaign.cancelled"]


@pytest.mark.parametrize("act", [launch.pause, launch.resume, launch.cancel])
def test_a_draft_can_only_be_launched(draft, act: Callable[..., object]) -> None:
    now = {} if act is launch.pause else {"now": NOW}
    with pytest.raises(IllegalMove, match="never launched"):
        act(draft.pk, actor="bob", **now)

    assert AuditEntry.objects.count() == 0


def test_a_campaign_with_a_blocking_finding_stays_a_draft(world, draft) -> None:
    world.template.add_version(subject="", html="{{ unsubscribe_url }}")
    with pytest.raises(LaunchRefused, match="The subject is empty") as caught:
        launched(draft)

    assert caught.value.findings[0].code == "empty_subject"
    assert state_of(draft) == "draft"
    assert not Mailing.objects.exists()
    assert not AuditEntry.objects.exists()


def test_a_campaign_that_is_ready_has_only_the_warning_of_a_local_address(draft) -> None:
    assert codes(draft) <= {"local_links"}


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ({"subject": "Hi {{ name", "html": "x {{ unsubscribe_url }}"}, "invalid_template"),
        ({"subject": "Hi", "html": "{% for x in %} {{ unsubscribe_url }}"}, "invalid_template"),
        ({"subject": "", "html": "x {{ unsubscribe_url }}"}, "empty_subject"),
        ({"subject": "Hi", "html": ""}, "empty_content"),
        ({"subject": "Hi", "html": "<p>x</p>"}, "no_unsubscribe_link"),
        ({"subject": "Hi {{ frist_name }}", "html": "{{ unsubscribe_url }}"}, "unknown_field"),
    ],
)
def test_what_is_wrong_with_the_content_is_found(world, draft, content, code) -> None:
    world.template.add_version(**{"html": "", "text": "", **content})

    assert code in codes(draft)


def test_each_part_of_a_template_is_looked_at(world, draft) -> None:
    world.template.add_version(subject="{{ a", html="{% if %} {{ unsubscribe_url }}", text="{{ b")
    found = [f.message for f in preflight.check(draft) if f.code == "invalid_template"]

    assert len(found) == 3


def test_a_field_with_a_stand_in_may_be_missing_everywhere(world, draft) -> None:
    html = '{{ nick | default("friend") }} {% if city %}{{ city }}{% endif %} {{ unsubscribe_url }}'
    world.template.add_version(subject="Hi", html=html)

    assert codes(draft) <= {"local_links"}


def test_an_unknown_field_is_blocked_with_the_fields_that_are_known(world) -> None:
    people = [world.recipient(f"a{n}@b.example", first_name="A", city="Rome") for n in range(3)]
    campaign = world.campaign(world.list("R", *people))
    world.template.add_version(subject="Hi {{ frist_name }}", html="{{ unsubscribe_url }}")

    (finding,) = [f for f in preflight.check(campaign) if f.code == "unknown_field"]
    assert "“frist_name”" in finding.message
    assert "city, first_name" in finding.advice


def test_a_field_that_only_some_have_is_a_warning(world) -> None:
    people = [world.recipient(f"a{n}@b.example") for n in range(3)]
    known = world.recipient("known@b.example", first_name="Ann")
    campaign = world.campaign(world.list("R", known, *people))
    world.template.add_version(subject="Hi {{ first_name }}", html="{{ unsubscribe_url }}")

    (finding,) = [f for f in preflight.check(campaign) if f.code == "field_gaps"]
    assert not finding.is_blocking
    assert "75%" in finding.message


def test_a_field_outside_of_the_sample_is_looked_for_in_the_whole_audience(
    world, monkeypatch
) -> None:
    monkeypatch.setattr(preflight, "_SAMPLE_SIZE", 1)
    people = [world.recipient(f"a{n}@b.example") for n in range(2)]
    people.insert(1, world.recipient("middle@b.example", rare="yes"))
    campaign = world.campaign(world.list("R", *people))
    world.template.add_version(subject="{{ rare }}", html="{{ unsubscribe_url }}")

    assert "unknown_field" not in codes(campaign)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"from_header": "Acme"}, "invalid_from"),
        ({"from_header": "Acme <a@b.example>, Bob <b@b.example>"}, "invalid_from"),
        ({"from_header": "Acme\r\nBcc: x@y.example <a@b.example>"}, "invalid_from"),
        ({"reply_to": "nobody"}, "invalid_reply_to"),
        ({"retry_policy": "fastest"}, "invalid_retry"),
    ],
)
def test_what_is_wrong_with_the_headers_or_the_policy_is_found(world, changes, code) -> None:
    campaign = world.campaign(world.list("R", world.recipient("a@b.example")), **changes)

    assert code in codes(campaign)


def test_a_pool_has_to_be_ours_and_have_a_source_that_may_send(world) -> None:
    people = world.list("R", world.recipient("a@b.example"))
    theirs = Pool.objects.create(workspace=make_world("globex").workspace, name="Other")
    empty = Pool.objects.create(workspace=world.workspace, name="Empty")
    shared = Pool.objects.create(name="Shared")
    Source.objects.create(pool=shared, name="shared-1", helo_name="s.example")
    resting = Pool.objects.create(workspace=world.workspace, name="Resting")
    Source.objects.create(pool=resting, name="r-1", helo_name="r.example", state="quarantined")

    assert "foreign_pool" in codes(world.campaign(people, pool=theirs))
    assert "no_source" in codes(world.campaign(people, pool=empty))
    assert "no_usable_source" in codes(world.campaign(people, pool=resting))
    assert codes(world.campaign(people, pool=shared)) <= {"local_links"}


def test_an_audience_has_to_be_ours_and_not_empty(world) -> None:
    left = world.list("Left")
    world.subscribe(left, [world.recipient("gone@b.example")], "unsubscribed")
    theirs = make_world("globex").list("Theirs")

    assert "no_list" in codes(world.campaign())
    assert "empty_audience" in codes(world.campaign(left))
    assert "foreign_list" in codes(world.campaign(theirs))


def test_a_template_without_a_version_has_no_content(world, draft) -> None:
    world.template.versions.all().delete()

    assert "no_content" in codes(draft)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("act", "winner_sees"), [("launch", "sending"), ("pause", "paused"), ("cancel", "cancelled")]
)
def test_of_several_who_press_at_once_one_wins_and_the_others_are_told(act, winner_sees) -> None:
    world = make_world()
    campaign = world.campaign(world.list("R", world.recipient("a@b.example")))
    if act != "launch":
        launched(campaign)
    now = {} if act == "pause" else {"now": NOW}
    start = threading.Barrier(4)
    results: list[str] = []

    def press(name: str) -> None:
        try:
            start.wait(20)
            getattr(launch, act)(campaign.pk, actor=name, **now)
            results.append("won")
        except IllegalMove as problem:
            results.append(str(problem))
        finally:
            connection.close()

    people = [threading.Thread(target=press, args=(f"p{n}",)) for n in range(4)]
    for person in people:
        person.start()
    for person in people:
        person.join(30)

    assert results.count("won") == 1
    assert len([said for said in results if said.startswith("The campaign ")]) == 3
    assert state_of(campaign) == winner_sees
    past = {"launch": "launched", "pause": "paused", "cancel": "cancelled"}[act]
    assert AuditEntry.objects.filter(action=f"campaign.{past}").count() == 1
    assert Mailing.objects.count() == Expansion.objects.count() == 1


def test_a_finished_mailing_finishes_its_campaign_once(draft) -> None:
    mailing_id = launched(draft)
    assert expansion.settle(now=NOW).finished == ()

    Mailing.objects.filter(pk=mailing_id).update(state="finished")
    assert expansion.settle(now=NOW).finished == (draft.pk,)
    assert expansion.settle(now=NOW).finished == ()
    draft.refresh_from_db()
    assert (draft.state, draft.finished_at) == ("finished", NOW)


def test_a_paused_campaign_whose_last_message_was_under_way_is_finished(draft) -> None:
    mailing_id = launched(draft)
    launch.pause(draft.pk, actor="bob")
    Mailing.objects.filter(pk=mailing_id).update(state="finished")
    expansion.settle(now=NOW)

    assert state_of(draft) == "finished"


def test_a_cancellation_that_died_halfway_is_carried_out(draft) -> None:
    mailing_id = launched(draft)
    expansion.expand_step(mailing_id, 5)
    Campaign.objects.filter(pk=draft.pk).update(state="cancelled")
    expansion.settle(now=NOW)

    assert Mailing.objects.get(pk=mailing_id).state == "cancelled"
    assert account.account_of(mailing_id).states["cancelled"] == 1
