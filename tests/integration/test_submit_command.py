"""`manage.py submit` and `declare_host_lost`, as scripts and operators call them."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from deliverability.models import Pool, Workspace
from mailer import conf
from mailer.journal import Journal
from mailer.models import Attempt, Batch, Mailing, Message, WorkerJournal
from tests.integration.campaign_world import World, make_world

pytestmark = pytest.mark.django_db


@pytest.fixture
def world(db) -> World:
    return make_world()


def submit(**changes: object) -> dict[str, object]:
    """Run the command and read its JSON. Underscores stand for hyphens."""
    given: dict[str, object] = {
        "workspace": "acme",
        "pool": "Main",
        "to": "ann@shop.example",
        "from": "Acme <hello@acme.example>",
        "subject": "Your code",
        "text": "It is {{ code }}.",
        "field": "code=4711",
        "dedup_key": "reset-1",
        **changes,
    }
    arguments = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
        for name, value in given.items()
        if value is not None
    ]
    out = StringIO()
    call_command("submit", *arguments, "--json", stdout=out, stderr=StringIO())
    told: dict[str, object] = json.loads(out.getvalue())
    return told


def refusal(**changes: object) -> str:
    with pytest.raises(CommandError) as refused:
        submit(**changes)
    assert refused.value.returncode == 2
    assert not Message.objects.exists()
    return str(refused.value)


def test_a_message_is_accepted_as_urgent_with_its_fields_and_content_frozen(world) -> None:
    told = submit()

    message = Message.objects.get(id=told["message_id"])
    assert (told["status"], told["is_new"]) == ("accepted", True)
    assert (message.address, message.state) == ("ann@shop.example", "waiting")
    assert message.context == {"code": "4711"}
    assert message.content_id is not None
    assert Mailing.objects.get(pk=told["mailing_id"]).priority == 4


def test_the_same_dedup_key_again_answers_with_the_same_message(world) -> None:
    first = submit()
    second = submit(subject="Edited meanwhile")

    assert second["message_id"] == first["message_id"]
    assert (second["status"], second["is_new"]) == ("already accepted", False)
    assert Message.objects.count() == 1
    assert sum(len(batch.ids) for batch in Batch.objects.all()) == 1


def test_another_dedup_key_is_another_message_to_the_same_person(world) -> None:
    assert submit()["message_id"] != submit(dedup_key="reset-2")["message_id"]


def test_an_international_domain_is_sent_to_in_ascii(world) -> None:
    told = submit(to="Jürgen.Ümit@Bücher.example")

    assert Message.objects.get(id=told["message_id"]).address == (
        "Jürgen.Ümit@xn--bcher-kva.example"
    )


def test_text_and_html_are_read_from_files(world, tmp_path: Path) -> None:
    html, text = tmp_path / "mail.html", tmp_path / "mail.txt"
    html.write_text("<p>Hello {{ name }}</p>", encoding="utf-8")
    text.write_text("\ufeffHello {{ name }}", encoding="utf-8")

    told = submit(text=None, text_file=text, html_file=html, field="name=Ann=Bo")

    message = Message.objects.get(id=told["message_id"])
    assert message.context == {"name": "Ann=Bo"}


def test_a_shared_pool_may_be_used_and_another_workspaces_may_not(world) -> None:
    Pool.objects.create(workspace=None, name="Shared")
    Pool.objects.create(workspace=make_world("other").workspace, name="Theirs")

    assert submit(pool="Shared")["is_new"]
    with pytest.raises(CommandError, match=r"no pool “Theirs”; there are: “Main”, “Shared”"):
        submit(pool="Theirs", dedup_key="k2")


def test_what_is_unknown_is_named_together_with_what_is_known(world) -> None:
    Workspace.objects.create(slug="beta", name="Beta")

    assert "no workspace “gamma”; there are: “acme”, “beta”" in refusal(workspace="gamma")
    assert "no pool “Minor”; there are: “Main”" in refusal(pool="Minor")


@pytest.mark.parametrize(
    "address",
    [
        "ann",
        "ann@",
        "@b.example",
        "ann@host",
        "a b@c.example",
        "a@b.example\nDATA",
        "a..b@c.example",
        "Ann <ann@b.example>",
        "a,b@c.example",
        "a@b_.example",
        f"{'a' * 250}@b.example",
    ],
)
def test_what_is_no_address_is_refused_before_anything_is_stored(world, address) -> None:
    refusal(to=address)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"text": "{{ name"}, "text"),
        ({"text": "{% if %}"}, "text"),
        ({"subject": "{{ name"}, "subject"),
        ({"from": "nobody"}, "complete address"),
        ({"text": None}, "Give --text"),
        ({"text_file": "/nowhere/at.all", "text": None}, "cannot be read"),
        ({"field": "novalue"}, "NAME=VALUE"),
        ({"dedup_key": "x" * 201}, "200 characters"),
        ({"retry": "never"}, "never"),
    ],
)
def test_what_cannot_be_sent_is_refused_with_the_reason(world, changes, reason) -> None:
    assert reason in refusal(**changes)


def test_waiting_ends_with_what_the_message_waits_for(world) -> None:
    """Nothing delivers here: after its patience the command says why, and fails."""
    out = StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command(
            *("submit", "--workspace=acme", "--pool=Main", "--to=ann@shop.example"),
            *("--from=hello@acme.example", "--subject=Hi", "--text=Hi", "--dedup-key=k"),
            *("--wait", "--timeout=0", "--json"),
            stdout=out,
        )

    told = json.loads(out.getvalue())
    assert ended.value.code == 1
    assert (told["state"], told["ms"]) == ("waiting", None)
    assert told["waits"] == "a free worker"


def test_the_time_from_the_outbox_to_the_answer_is_told_once_it_was_delivered(world) -> None:
    message = Message.objects.get(id=submit()["message_id"])
    Attempt.objects.create(
        message_id=message.pk,
        mailing_day=message.mailing_day,
        attempt_no=1,
        mailing_id=message.mailing_id,
        batch_id=1,
        at=message.queued_at.replace(microsecond=message.queued_at.microsecond // 1000 * 1000),
        provider="other",
        mx_host="mx.shop.example",
        outcome="accepted",
        phase="content",
        reply_code=250,
        enhanced="2.0.0",
        reply="Ok",
        reason="",
        scope="message",
        rule="accepted",
    )
    Message.objects.filter(id=message.pk).update(state="delivered")

    told = submit(wait=True)

    assert (told["status"], told["state"]) == ("already accepted", "delivered")
    # Rounded to a tenth: 999 microseconds are a whole millisecond.
    assert -1.0 <= told["ms"] <= 0.0
    assert (told["mx_host"], told["reply"]) == ("mx.shop.example", "250 2.0.0 Ok")


# -- declare_host_lost


@pytest.fixture
def journals(tmp_path: Path, monkeypatch) -> Path:
    """This machine's journals, in a folder of the test's own."""
    here = replace(conf.place(), journals=tmp_path)
    monkeypatch.setattr(conf, "place", lambda: here)
    return tmp_path


def taken_by(world: World, journal_id: uuid.UUID, host: str) -> Message:
    """A message in a batch that a worker of `host` took."""
    message = Message.objects.get(id=submit()["message_id"])
    WorkerJournal.objects.create(id=journal_id, host=host, pid=4242)
    Batch.objects.update(state="taken", journal_id=journal_id, host=host)
    return message


def declare(host: str, *arguments: str) -> str:
    out = StringIO()
    call_command("declare_host_lost", host, *arguments, stdout=out)
    return out.getvalue()


def test_what_a_lost_host_had_not_recorded_becomes_in_doubt(world, journals) -> None:
    message = taken_by(world, uuid.uuid4(), "mail2")

    told = json.loads(declare("mail2", "--yes", "--json"))

    message.refresh_from_db()
    assert told == {"host": "mail2", "workers": 1, "batches": 1}
    assert message.state == "in_doubt"
    assert Batch.objects.get().state == "done"
    assert not WorkerJournal.objects.filter(ended_at__isnull=True).exists()


def test_without_yes_it_only_says_what_it_would_do(world, journals) -> None:
    message = taken_by(world, uuid.uuid4(), "mail2")

    with pytest.raises(CommandError, match=r"1 workers with 1 batches of 1 messages.*--yes"):
        declare("mail2")

    message.refresh_from_db()
    assert message.state == "waiting"


def test_a_host_whose_worker_holds_its_journal_is_not_lost(world, journals: Path) -> None:
    journal = Journal.open(journals)
    try:
        message = taken_by(world, uuid.UUID(journal.id), "mail2")
        with pytest.raises(CommandError, match=r"lives: it holds the lock"):
            declare("mail2", "--yes")
    finally:
        journal.close()

    message.refresh_from_db()
    assert message.state == "waiting"


def test_a_dead_worker_whose_journal_is_here_is_left_to_the_rescue(world, journals: Path) -> None:
    journal = Journal.open(journals)
    journal.took(1)  # an open batch: closing leaves the files, as death does
    taken_by(world, uuid.UUID(journal.id), "mail2")
    journal.close()

    with pytest.raises(CommandError, match=r"here and readable"):
        declare("mail2", "--yes")


def test_an_unknown_host_is_answered_with_the_known_ones(world, journals) -> None:
    taken_by(world, uuid.uuid4(), "mail2")

    with pytest.raises(CommandError, match=r"hosts with open journals: mail2"):
        declare("mail3", "--yes")


def test_a_field_that_nothing_fills_is_refused_before_anything_is_accepted(world) -> None:
    told = refusal(text="It is {{ code }}.", field=None, dedup_key="holes")

    assert "“code”" in told
    assert "--field code=…" in told
    assert not Message.objects.filter(dedup_key="holes").exists()


def test_a_field_with_a_stand_in_may_be_left_out(world) -> None:
    told = submit(text='Hello {{ first_name | default("you") }}.', field=None, dedup_key="stand-in")

    assert told["is_new"] is True
