"""The commands, as a person or a script calls them."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import authenticate, get_user_model
from django.core.management import CommandError, call_command

from campaigns import expansion
from campaigns.management.commands import campaign as command
from campaigns.models import Campaign, Recipient, Template
from deliverability.models import Pool, Source, Workspace
from mailer import conf as mailer_conf
from mailer.models import Mailing
from tests.integration.campaign_world import World, make_world

pytestmark = pytest.mark.django_db


@pytest.fixture
def world(db) -> World:
    return make_world()


@pytest.fixture
def published(monkeypatch) -> list[Any]:
    """What would be published; these tests have no broker."""
    sent: list[Any] = []
    monkeypatch.setattr("campaigns.tasks.publish", sent.append)
    return sent


@pytest.fixture(params=[True])
def in_sandbox(settings, request):
    settings.POSTROAD_SANDBOX = request.param
    mailer_conf.place.cache_clear()
    yield
    mailer_conf.place.cache_clear()


def said(*arguments: object) -> str:
    out = StringIO()
    call_command(*map(str, arguments), stdout=out)
    return out.getvalue()


def said_json(*arguments: object) -> Any:
    return json.loads(said(*arguments, "--json"))


def refused(*arguments: object) -> str:
    with pytest.raises(CommandError) as caught:
        said(*arguments)
    assert caught.value.returncode == 2
    return str(caught.value)


def create(*more: object) -> tuple[object, ...]:
    return (
        *("campaign", "create", "--workspace", "acme", "--name", "Spring"),
        *("--from", "Acme <news@acme.example>", "--pool", "Main", *more),
    )


def test_a_campaign_is_created_from_a_template_and_several_lists(world) -> None:
    world.list("One", world.recipient("a@b.example"))
    world.list("Two")
    made = said_json(
        *create("--list", "One", "Two", "--template", "Newsletter", "--priority", "high")
    )

    campaign = Campaign.objects.get(pk=made["campaign"])
    assert (campaign.state, campaign.priority) == ("draft", 3)
    assert sorted(row.name for row in campaign.lists.all()) == ["One", "Two"]
    assert not [row for row in made["findings"] if row["severity"] == "blocking"]


def test_a_campaign_is_created_from_files(world, tmp_path: Path) -> None:
    world.list("One", world.recipient("a@b.example"))
    html = tmp_path / "mail.html"
    html.write_text("\ufeff<p>Grüße {{ unsubscribe_url }}</p>", encoding="utf-8")
    made = said_json(*create("--list", "One", "--subject", "Hi", "--html-file", html))

    version = Campaign.objects.get(pk=made["campaign"]).template.latest
    assert (version.subject, version.html) == ("Hi", "<p>Grüße {{ unsubscribe_url }}</p>")


def test_creating_a_campaign_never_changes_a_template_that_is_there(world, tmp_path: Path) -> None:
    world.list("One", world.recipient("a@b.example"))
    text = tmp_path / "mail.txt"
    text.write_text("Hello {{ unsubscribe_url }}", encoding="utf-8")
    create_it = create("--list", "One", "--subject", "Hi", "--text-file", text)
    said(*create_it)

    assert "already: use it with --template" in refused(*create_it)
    assert Campaign.objects.count() == 1
    assert Campaign.objects.get().template.versions.count() == 1


@pytest.mark.parametrize("name", ["", "  ", "x" * 201])
def test_a_name_that_cannot_be_kept_is_refused(world, name) -> None:
    world.list("One")

    assert "--name: give 1 to 200" in refused(
        *create("--list", "One", "--template", "Newsletter", "--name", name)
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--list", "Nobody", "--template", "Newsletter"), "There is no list “Nobody”; there are"),
        (("--list", "One", "--template", "Old"), "no template “Old”; there are: “Newsletter”."),
        (("--list", "One"), "Give --template NAME"),
        (("--list", "One", "--template", "Newsletter", "--subject", "Hi"), "not both"),
        (("--list", "One", "--subject", "Hi", "--html-file", "/nowhere"), "cannot be read"),
        (
            ("--list", "One", "--template", "Newsletter", "--from", "Acme"),
            "--from: 'Acme' holds no",
        ),
        (("--list", "One", "--template", "Newsletter", "--reply-to", "x@"), "--reply-to: "),
        (("--list", "One", "--template", "Newsletter", "--retry", "never"), "--retry: no policy"),
        (("--list", "One", "--template", "Newsletter", "--retry", "{"), "not valid JSON"),
    ],
)
def test_what_cannot_be_created_is_refused_in_one_sentence(world, arguments, sentence) -> None:
    world.list("One")
    before = Template.objects.count()

    assert sentence in refused(*create(*arguments))
    assert Campaign.objects.count() == 0
    assert Template.objects.count() == before


def test_launch_status_pause_resume_cancel(world, published) -> None:
    draft = world.campaign(world.list("One", world.recipient("a@b.example")))
    launched = said_json("campaign", "launch", draft.pk)
    assert (launched["state"], launched["matched"]) == ("sending", 0)
    assert published[-1].expands

    expansion.expand_step(launched["mailing"], 5)
    status = said_json("campaign", "status", draft.pk)
    assert status["audience"] == status["states"]["waiting"] == 1
    assert (status["settled"], status["excluded"], status["attempts"]) == (False, {}, 0)
    assert status.keys() >= {"campaign", "name", "mailing", "rate_per_minute"}
    assert said_json("campaign", "pause", draft.pk)["state"] == "paused"
    assert "is paused already" in refused("campaign", "pause", draft.pk)
    cancelled = said_json("campaign", "cancel", draft.pk)
    assert (cancelled["state"], cancelled["states"]["cancelled"]) == ("cancelled", 1)
    assert "1    cancelled" in said("campaign", "status", draft.pk)


def test_a_launch_that_preflight_refuses_says_what_to_do(world, published) -> None:
    draft = world.campaign(world.list("Empty"))

    sentence = refused("campaign", "launch", draft.pk)
    assert "Nobody is subscribed to “Empty”. Import recipients" in sentence
    assert published == []


def test_a_check_exits_with_1_when_something_blocks_and_leaves_no_empty_line(world) -> None:
    draft = world.campaign(world.list("Empty"))
    told, told_json = StringIO(), StringIO()
    for out, more in ((told, {}), (told_json, {"json": True})):
        with pytest.raises(SystemExit) as ended:
            call_command("campaign", "check", draft.pk, stdout=out, **more)
        assert ended.value.code == 1

    assert "blocking: Nobody is subscribed to “Empty”. Import" in told.getvalue()
    assert all(line.strip() for line in told.getvalue().splitlines())
    found = json.loads(told_json.getvalue())["findings"]
    assert "empty_audience" in [row["code"] for row in found]


def test_a_draft_that_nothing_stands_against_is_told_what_comes_next(world, in_sandbox) -> None:
    world.list("One", world.recipient("a@b.example"))
    text = said(*create("--list", "One", "--template", "Newsletter"))
    draft = Campaign.objects.get()

    assert text.endswith(f"Nothing stands against a launch. Next: campaign launch {draft.pk}\n")
    assert said("campaign", "check", draft.pk) == "Nothing stands against a launch.\n"


@pytest.mark.parametrize("in_sandbox", [False], indirect=True)
def test_a_warning_stops_neither_a_check_nor_what_comes_next(world, in_sandbox) -> None:
    world.list("One", world.recipient("a@b.example"))
    text = said(*create("--list", "One", "--template", "Newsletter"))
    draft = Campaign.objects.get()

    assert text.endswith(f"Nothing blocks a launch. Next: campaign launch {draft.pk}\n")
    assert said("campaign", "check", draft.pk).startswith("warning: Links in the mails will")


def test_a_pool_that_is_not_there_is_answered_with_those_that_can_be_used(world) -> None:
    world.list("One")
    Pool.objects.create(name="Everybody's")
    other = Workspace.objects.create(name="Other", slug="other")
    Pool.objects.create(name="Theirs", workspace=other)

    sentence = refused(*create("--list", "One", "--template", "Newsletter", "--pool", "Mian"))
    assert sentence == "There is no pool “Mian”; there are: “Everybody's”, “Main”."


def test_a_pool_of_the_workspace_goes_before_a_shared_one_of_that_name(world) -> None:
    world.list("One")
    Pool.objects.filter(name="Main").delete()
    Pool.objects.create(name="Main")
    own = Pool.objects.create(name="Main", workspace=world.workspace)
    said(*create("--list", "One", "--template", "Newsletter"))

    assert Campaign.objects.get().pool == own


@pytest.mark.parametrize("action", ["launch", "pause", "resume", "cancel", "status"])
def test_a_campaign_that_is_not_there_is_named(db, action) -> None:
    assert refused("campaign", action, 4242) == "There is no campaign 4242."


def test_following_prints_a_line_each_time_until_nothing_waits(
    world, published, monkeypatch
) -> None:
    draft = world.campaign(world.list("One", world.recipient("a@b.example")))
    mailing_id = said_json("campaign", "launch", draft.pk)["mailing"]
    steps = iter(
        [
            lambda: expansion.expand_step(mailing_id, 5),
            lambda: said("campaign", "cancel", draft.pk, "--json"),
        ]
    )
    monkeypatch.setattr(command.time, "sleep", lambda _seconds: next(steps)())
    lines = said("campaign", "status", draft.pk, "--follow", "--json").splitlines()
    seen = [json.loads(line) for line in lines]

    assert [row["expanded"] for row in seen] == [False, True, True]
    assert [row["states"]["waiting"] for row in seen] == [0, 1, 0]
    assert seen[-1]["state"] == "cancelled"


def test_importing_makes_the_list_and_says_so(world, tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text("email,name\na@b.example,Ann\nbroken,\n")
    arguments = ("import_recipients", path, "--workspace", "acme", "--list", "New ones")
    foretold = said_json(*arguments, "--dry-run")
    assert not world.workspace.lists.exists()

    text = said(*arguments)
    assert "The list “New ones” is new; it was made." in text
    assert foretold["is_new_list"] is True
    assert (foretold["created"], foretold["rejected"]) == (1, 1)
    again = said_json(*arguments, "--rejected", tmp_path / "bad.csv")
    assert (again["is_new_list"], again["unchanged"], again["rejected"]) == (False, 1, 1)
    assert "broken" in (tmp_path / "bad.csv").read_text()


def test_what_cannot_be_imported_exits_with_2_and_makes_no_list(world, tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    arguments = ("import_recipients", path, "--list", "L")

    assert "There is no file" in refused(*arguments, "--workspace", "acme")
    assert "“nobody”; there are: acme" in refused(*arguments, "--workspace", "nobody")
    path.write_text("name\nAnn\n")
    assert "No column holds addresses" in refused(*arguments, "--workspace", "acme")
    path.write_text("email\na@b.example\n")
    written = refused(*arguments, "--workspace", "acme", "--rejected", tmp_path)
    assert "cannot be written" in written
    assert not Recipient.objects.exists()


def test_the_demo_is_launched_into_the_sandbox_and_again_as_demo_2(
    db, in_sandbox, published
) -> None:
    first = said_json("demo", "--recipients", 60)
    expansion.expand_step(first["mailing"], 10)
    status = said_json("campaign", "status", first["campaign"])

    assert first["workspace"] == "demo"
    assert (status["name"], status["matched"], status["audience"]) == ("Demo", 60, 55)
    assert status["excluded"] == {"suppressed": 2, "unsubscribed": 3}
    assert Source.objects.filter(pool__name="Demo").count() == 2
    assert Mailing.objects.get(pk=first["mailing"]).retry["first_delay_seconds"] == 3.0

    second = said_json("demo", "--recipients", 60)
    assert Campaign.objects.get(pk=second["campaign"]).name == "Demo 2"
    assert Recipient.objects.count() == 60
    assert Template.objects.get().versions.count() == 1
    assert Pool.objects.count() == 1


@pytest.mark.parametrize("in_sandbox", [False], indirect=True)
def test_the_demo_never_writes_to_real_people(db, in_sandbox, published) -> None:
    assert "only runs against the sandbox" in refused("demo")
    assert not Workspace.objects.exists()


def test_bootstrap_makes_a_superuser_and_a_workspace_once(db) -> None:
    first = said_json("bootstrap")
    again = said_json("bootstrap")

    assert authenticate(username=first["username"], password=first["password"]).is_superuser
    assert first["workspace"] == "default"
    assert again == {**first, "password": None}
    assert get_user_model().objects.count() == Workspace.objects.count() == 1


def test_bootstrap_leaves_a_superuser_and_a_workspace_that_are_there(world) -> None:
    get_user_model().objects.create_superuser("root", "", "secret-of-root")

    assert said_json("bootstrap") == {"username": "root", "password": None, "workspace": "acme"}


def test_bootstrap_does_not_take_over_the_account_of_somebody_called_admin(db) -> None:
    get_user_model().objects.create_user("admin", "", "hers")
    made = said_json("bootstrap")

    assert made["username"].startswith("admin-")
    assert authenticate(username="admin", password="hers").is_superuser is False
