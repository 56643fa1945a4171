"""The life of a message, as a person asks for it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from deliverability.models import Source
from mailer import outbox, trace
from mailer.models import Batch, Message
from mailer.transport.memory import Treatment
from tests.integration.world import GMAIL, World, now, people

pytestmark = pytest.mark.django_db


def waits(world: World, address: str = "r1@gmail.com") -> str:
    return str(trace.trace(world.message(address).pk)["waits"])


def test_a_message_nobody_knows_is_said_to_be_none(db: None) -> None:
    with pytest.raises(trace.NoSuchMessage):
        trace.trace(1)


def test_each_attempt_is_told_with_the_servers_own_words(world: World) -> None:
    world.servers[GMAIL].treatments = {"r1@gmail.com": Treatment(rcpt="451 4.3.2 Come back later")}
    mailing = world.mailing_to(people(1))
    world.work()

    found = trace.trace(world.message("r1@gmail.com").pk)

    assert (found["state"], found["mailing_id"], found["provider"]) == (
        "waiting",
        mailing.pk,
        "gmail",
    )
    assert found["hosts"] == [[5, "gmail-smtp-in.l.google.com"]]
    (attempt,) = found["life"]
    assert (attempt["attempt_no"], attempt["reply_code"], attempt["enhanced"]) == (1, 451, "4.3.2")
    assert attempt["reply"].endswith("Come back later")
    assert attempt["source"] == world.source.name
    assert found["waits"].startswith("deferred (")


def test_what_a_message_waits_for_is_said_at_each_step(world: World) -> None:
    mailing = world.mailing_to(people(1))
    assert waits(world) == "dispatch"

    outbox.pause(mailing.pk)
    assert waits(world) == "held: the mailing is paused"
    outbox.resume(mailing.pk)

    world.deliver(world.published())
    world.published()
    assert waits(world) == "a free worker"

    Batch.objects.filter(state="untaken").update(
        state="taken", journal_id="0" * 32, host="far-away"
    )
    assert waits(world) == "a reply: a worker on far-away is sending its batch"

    Batch.objects.update(
        state="untaken", published_at=None, waits_for="a free connection", due_at=now()
    )
    assert waits(world).startswith("a free connection until ")

    Batch.objects.update(state="done")
    assert waits(world).startswith("nothing: it is in no batch")

    Message.objects.update(due_at=now() + timedelta(hours=1), reason="greylisted")
    assert waits(world).startswith("deferred (greylisted) until ")


def test_a_settled_message_waits_for_nothing(world: World) -> None:
    world.mailing_to(people(1))
    world.work()

    assert waits(world) == ""


def test_a_source_that_is_gone_is_left_open(world: World) -> None:
    world.mailing_to(people(1))
    world.work()
    Source.objects.all().delete()

    (attempt,) = trace.trace(world.message("r1@gmail.com").pk)["life"]
    assert attempt["source"] is None
