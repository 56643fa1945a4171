"""Delivery of batches: once, every outcome told, and what did not get its turn given back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext

from deliverability import suppressions
from deliverability.models import (
    ConnectionSlot,
    DailyGrant,
    Hold,
    Source,
    SourceKind,
    Suppression,
    Tally,
)
from deliverability.sealing import seal
from mailer import delivery, outbox, outcomes, runtime, taking, upkeep
from mailer.journal import JournalFull
from mailer.models import Attempt, Batch, Message
from mailer.transport.memory import HANGS_UP, IS_SILENT, ServerScript, Treatment
from mailer.transport.mx_memory import Name
from sandbox.testing import Sandbox, started
from tests.integration.world import (
    GMAIL,
    SHOP,
    World,
    a_content,
    eventually,
    in_threads,
    now,
    people,
)

pytestmark = pytest.mark.django_db


def treat(world: World, address: str, **replies: str) -> None:
    """Let every server treat this address so."""
    for server in world.servers.values():
        server.treatments = {**server.treatments, address: Treatment(**replies)}


def only(batches: list[Batch]) -> Batch:
    (batch,) = batches
    return batch


# -- the plain way


def test_every_message_is_delivered_once_and_accounted_for(world: World) -> None:
    addresses = people(30) + people(30, "outlook.com") + people(30, "shop.example")
    mailing = world.mailing_to(addresses)

    world.work()

    assert world.states(mailing) == {"delivered": 90}
    assert world.inbox() == sorted(addresses)
    assert {batch.state for batch in world.batches(mailing)} == {"done"}
    assert Attempt.objects.filter(outcome="accepted").count() == 90
    tallied = Counter[str]()
    for tally in Tally.objects.all():
        assert (tally.outcome, tally.source_id) == ("accepted", world.source.pk)
        tallied[tally.provider] += tally.count
    assert tallied == {"gmail": 30, "outlook": 30, "other": 30}


def test_only_one_of_two_runs_of_a_task_sends(transactional_db: None, world: World) -> None:
    mailing = world.mailing_to(people(40))
    world.deliver(world.published())
    (one,) = world.published()

    ran = in_threads(4, lambda _: delivery.deliver(one.batch_id))

    assert sorted(ran) == [False, False, False, True]
    assert world.states(mailing) == {"delivered": 40}
    assert world.inbox() == sorted(people(40))
    assert delivery.deliver(one.batch_id) is False


def test_the_number_of_queries_does_not_grow_with_the_batch(world: World) -> None:
    world.mailing_to([f"first-{n}@gmail.com" for n in range(200)])
    world.work()  # it has its connections now
    counts = []
    for size in (5, 200):
        world.mailing_to([f"q{size}-{n}@gmail.com" for n in range(size)])
        (one,) = world.published()
        with CaptureQueriesContext(connection) as queries:
            assert delivery.deliver(one.batch_id)
        looks = [q for q in queries if "SELECT m.state IN" in q["sql"]]
        counts.append(len(queries) - len(looks))  # looks depend on how long it takes

    assert counts[0] == counts[1]
    assert counts[0] <= 30


# -- what servers say


@pytest.mark.parametrize(
    ("replies", "state", "outcome"),
    [
        ({"rcpt": "550 5.1.1 The email account does not exist"}, "bounced", "rejected"),
        ({"rcpt": "552 5.2.2 The recipient's mailbox is over its storage limit"}, None, None),
        ({"rcpt": "451 4.3.2 Temporary local problem"}, "waiting", "deferred"),
        ({"content": "451 4.3.0 Try again later"}, "waiting", "deferred"),
        ({"content": HANGS_UP}, "in_doubt", "in_doubt"),
        ({"rcpt": "421 4.7.0 Closing"}, "waiting", None),
    ],
)
def test_each_fault_has_its_outcome_and_spares_the_others(
    world: World, replies: dict[str, str], state: str | None, outcome: str | None
) -> None:
    treat(world, "odd@gmail.com", **replies)
    mailing = world.mailing_to(["odd@gmail.com", *people(20)])

    world.work()

    message = world.message("odd@gmail.com")
    (attempt,) = world.attempts("odd@gmail.com")
    assert message.state != "delivered"
    assert state is None or message.state == state
    assert outcome is None or attempt.outcome == outcome
    assert message.reason == attempt.reason
    assert world.states(mailing)["delivered"] == 20
    assert [address for address in world.inbox() if address != "odd@gmail.com"] == sorted(
        people(20)
    )


def test_an_unknown_mailbox_is_suppressed_and_a_refusal_of_us_is_not(world: World) -> None:
    treat(world, "gone@gmail.com", rcpt="550 5.1.1 No such user here")
    treat(
        world,
        "ours@gmail.com",
        content="550 5.7.1 Our system has detected that this message is spam",
    )
    treat(
        world,
        "ip@gmail.com",
        rcpt="550 5.7.1 Client host [192.0.2.1] blocked using zen.spamhaus.org",
    )
    mailing = world.mailing_to(["gone@gmail.com", "ours@gmail.com", "ip@gmail.com"])

    world.work()

    assert world.check(mailing.pk).states["delivered"] == 0
    suppressed = Suppression.objects.values_list("address_key", flat=True)
    assert list(suppressed) == ["gone@gmail.com"]


def test_a_deferred_message_is_laid_when_due_and_delivered(world: World) -> None:
    treat(world, "later@gmail.com", rcpt="451 4.7.1 Greylisted, try again later")
    mailing = world.mailing_to(["later@gmail.com"])
    world.work()
    assert upkeep.lay_due(now=now()) == 0
    assert world.states(mailing) == {"waiting": 1}

    treat(world, "later@gmail.com")
    world.make_due()
    assert upkeep.lay_due(now=now()) == 1
    assert upkeep.lay_due(now=now()) == 0
    world.work()

    assert world.states(mailing) == {"delivered": 1}
    assert [a.outcome for a in world.attempts("later@gmail.com")][-1] == "accepted"
    assert [a.attempt_no for a in world.attempts("later@gmail.com")] == [1, 2]


def test_what_is_in_doubt_is_never_sent_again(world: World) -> None:
    treat(world, "doubt@gmail.com", content=HANGS_UP)
    mailing = world.mailing_to(["doubt@gmail.com"])
    world.work()

    world.make_due()
    upkeep.lay_due(now=now() + timedelta(days=9))
    world.work()

    assert world.states(mailing) == {"in_doubt": 1}
    assert world.inbox() == ["doubt@gmail.com"]
    assert upkeep.finish_mailings(now=now()) == []


def test_a_message_older_than_its_policy_expires_without_an_attempt(world: World) -> None:
    mailing = world.mailing_to(people(2))
    Message.objects.filter(address="r1@gmail.com").update(queued_at=now() - timedelta(days=3))

    world.work()

    assert world.states(mailing) == {"delivered": 1, "expired": 1}
    assert world.attempts("r1@gmail.com") == []


def test_whoever_was_suppressed_after_expansion_gets_nothing(world: World) -> None:
    mailing = world.mailing_to(["Ann@gmail.com", "bob@gmail.com", "cle@gmail.com"])
    suppressions.suppress(world.workspace.pk, "ann@gmail.com", reason="complaint")
    suppressions.suppress(world.workspace.pk, "bob@gmail.com", scope="list:1", reason="left")
    suppressions.suppress(world.workspace.pk, "cle@gmail.com", scope="list:9", reason="left")

    world.work()

    assert world.states(mailing) == {"delivered": 1, "suppressed": 2}
    assert world.inbox() == ["cle@gmail.com"]
    assert world.message("Ann@gmail.com").reason == "complaint"


def test_a_message_that_cannot_be_rendered_is_dead_and_stops_nobody(world: World) -> None:
    content = a_content(world.workspace, html="<p>{{ 10 // (age|int) }}</p>")
    mailing = world.mailing_to(people(3), content=content)
    Message.objects.exclude(address="r2@gmail.com").update(context={"age": 5})
    Message.objects.filter(address="r2@gmail.com").update(context={"age": 0})

    world.work()

    assert world.states(mailing) == {"delivered": 2, "dead": 1}
    (attempt,) = world.attempts("r2@gmail.com")
    assert (attempt.outcome, attempt.reason) == ("broken", "not_rendered")
    assert "zero" in attempt.reply
    assert not Tally.objects.filter(outcome="broken").exists()


@pytest.mark.parametrize(
    "value",
    ["Ann\r\nBcc: all@evil.example", "Ann\n\n<script>", "Ann\r\n.\r\nMAIL FROM:<x@evil.example>"],
)
def test_no_field_can_inject_a_header_or_a_command(world: World, value: str) -> None:
    content = a_content(
        world.workspace,
        subject="Hello {{ name }}",
        text="Dear {{ name }},\n.\n",
        headers=[("X-Customer", "{{ name }}")],
    )
    mailing = world.mailing_to(people(1), content=content)
    Message.objects.update(context={"name": value, "first_name": value})

    world.work()

    server = world.servers[GMAIL]
    assert all(
        line.split(" ")[0] in {"EHLO", "MAIL", "RCPT", "DATA", "QUIT"} for line in server.commands
    )
    assert [line for line in server.commands if "evil" in line] == []
    for got in server.inbox:
        head = got.content.partition(b"\r\n\r\n")[0].lower()
        assert not any(line.startswith(b"bcc:") for line in head.split(b"\r\n"))
        assert got.content.replace(b"\r\n", b"").find(b"\n") == -1
    states = world.states(mailing)
    assert states in ({"delivered": 1}, {"dead": 1})


def test_an_address_that_would_inject_a_command_never_reaches_the_wire(world: World) -> None:
    mailing = world.mailing_to(["a@gmail.com", "b@gmail.com"])
    Message.objects.filter(address="a@gmail.com").update(
        address="a@gmail.com>\r\nRCPT TO:<x@evil.example"
    )

    world.work()

    assert world.states(mailing) == {"delivered": 1, "dead": 1}
    assert world.inbox() == ["b@gmail.com"]
    assert [line for line in world.servers[GMAIL].commands if "evil" in line] == []


# -- what DNS says


def test_a_domain_that_takes_no_mail_bounces_at_once(world: World) -> None:
    mailing = world.mailing_to(["a@nullmx.example", "b@nowhere.example", "c@gmail.com"])

    world.work()

    assert world.states(mailing) == {"bounced": 2, "delivered": 1}
    (null,) = world.attempts("a@nullmx.example")
    assert (null.reply_code, null.enhanced, null.phase) == (556, "5.1.10", "route")
    (absent,) = world.attempts("b@nowhere.example")
    assert (absent.reply_code, absent.enhanced) == (550, "5.1.2")


def test_mail_waits_while_dns_gives_no_answer(world: World) -> None:
    mailing = world.mailing_to(["a@servfail.example", "b@gmail.com"])

    world.work()

    assert world.states(mailing) == {"waiting": 1, "delivered": 1}
    waiting = only(world.batches(mailing, state="untaken"))
    assert (waiting.provider, waiting.waits_for) == ("", "DNS")
    assert waiting.due_at is not None

    world.zone["servfail.example"] = Name(mx=((10, "mx.shop.example"),))
    current = runtime.current()
    current.run(world._replace(current))
    Batch.objects.filter(pk=waiting.pk).update(due_at=now() - timedelta(seconds=1))
    connection.cursor().execute("UPDATE mailer_route SET expires_at = now() - interval '1 second'")
    world.work()
    assert world.states(mailing) == {"delivered": 2}


def test_a_mail_host_without_an_address_now_defers(world: World) -> None:
    mailing = world.mailing_to(["a@lostmx.example"])

    world.work()

    assert world.states(mailing) == {"waiting": 1}
    (attempt,) = world.attempts("a@lostmx.example")
    assert (attempt.outcome, attempt.phase) == ("unreached", "route")


def test_servers_where_nobody_listens_defer_with_the_reason(world: World) -> None:
    mailing = world.mailing_to(people(5, "closed.example"))

    world.work()

    assert world.states(mailing) == {"waiting": 5}
    attempts = Attempt.objects.filter(mailing_id=mailing.pk)
    assert {(a.outcome, a.phase) for a in attempts} == {("unreached", "connect")}
    assert all("nobody listens" in a.reply for a in attempts)
    assert not Suppression.objects.exists()


# -- limits, pauses, people


def test_what_a_cap_does_not_admit_goes_back_with_the_reason_and_the_time(world: World) -> None:
    Source.objects.update(daily_cap=7)
    mailing = world.mailing_to(people(20))

    world.work()

    assert world.states(mailing) == {"delivered": 7, "waiting": 13}
    assert DailyGrant.objects.get().granted == 7
    back = [one for batch in world.batches(mailing, state="untaken") for one in batch.ids]
    assert len(back) == 13


def test_admissions_that_were_not_used_are_given_back(world: World) -> None:
    Source.objects.update(daily_cap=10)
    world.servers[SHOP].greeting = "554 5.7.1 Go away"
    world.mailing_to(["a@lostmx.example", *people(3)])
    world.work()
    mailing = world.mailing_to([f"n{n}@gmail.com" for n in range(20)])

    world.work()

    assert world.check(mailing.pk).states["delivered"] == 7


@pytest.mark.parametrize("stop", ["pause", "hold", "global hold"])
def test_a_paused_mailing_is_not_taken_and_goes_on_later(world: World, stop: str) -> None:
    mailing = world.mailing_to(people(5))
    world.deliver(world.published())
    publications = world.published()
    hold = None
    if stop == "pause":
        outbox.pause(mailing.pk)
    else:
        workspace = world.workspace if stop == "hold" else None
        hold = Hold.objects.create(workspace=workspace, reason="a test", held_by="ann")

    assert world.deliver(publications) == 0
    assert world.published() == []
    assert world.states(mailing) == {"waiting": 5}

    outbox.resume(mailing.pk)
    if hold:
        hold.delete()
    world.work()
    assert world.states(mailing) == {"delivered": 5}


class ActAt(list):  # type: ignore[type-arg]
    """An inbox that has something done as soon as it holds so many messages."""

    def __init__(self, count: int, act: Callable[[], object]) -> None:
        super().__init__()
        self.count, self.act = count, act

    def append(self, got: object) -> None:
        super().append(got)
        if len(self) == self.count:
            in_threads(1, lambda _: self.act())


def many_domains(world: World, count: int) -> list[str]:
    """Addresses at so many domains, each with a mail host of its own that is the same server."""
    script = ServerScript()
    for number in range(count):
        ip = f"127.1.0.{number + 1}"
        world.zone[f"d{number}.example"] = Name(mx=((10, f"mx.d{number}.example"),))
        world.zone[f"mx.d{number}.example"] = Name(a=(ip,))
        world.servers[ip] = script
    return [f"a@d{number}.example" for number in range(count)]


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_stopping_takes_effect_in_a_batch_that_is_being_sent(
    transactional_db: None,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    is_cancelled: bool,
) -> None:
    """Also where it goes to many servers, of which one has always just ended."""
    monkeypatch.setattr(delivery, "LOOK_SECONDS", 0.02)
    mailing = world.mailing_to(many_domains(world, 150))
    world.deliver(world.published())
    (one,) = world.published()
    act = outbox.cancel if is_cancelled else outbox.pause
    script = world.servers["127.1.0.1"]
    script.inbox = ActAt(20, lambda: act(mailing.pk))

    delivery.deliver(one.batch_id)

    states = world.states(mailing)
    left = states.pop("cancelled" if is_cancelled else "waiting")
    assert states == {"delivered": 150 - left}
    assert len(script.inbox) == 150 - left
    assert left > 20


def test_connections_of_a_path_are_bounded_over_all_its_servers(
    transactional_db: None, world: World, policy: Any
) -> None:
    policy.POSTROAD_BATCH_SIZE = 50
    world.forget()
    Source.objects.update(max_connections=5)  # 4 for bulk
    mailing = world.mailing_to(many_domains(world, 100))
    world.deliver(world.published())
    publications = world.published()
    assert len(publications) == 2

    in_threads(2, lambda number: delivery.deliver(publications[number].batch_id))
    world.make_due()
    world.work()

    script = world.servers["127.1.0.1"]
    assert 1 <= script.most_connections <= 4
    assert ConnectionSlot.objects.get().count <= 4
    assert world.states(mailing) == {"delivered": 100}


def test_without_a_free_connection_the_batch_goes_back(world: World) -> None:
    Source.objects.update(max_connections=1)
    mailing = world.mailing_to(people(3))
    world.deliver(world.published())
    ConnectionSlot.objects.create(
        source=world.source, provider="gmail", journal_id="0" * 32, count=1
    )

    world.deliver(world.published())

    back = only(world.batches(mailing, state="untaken"))
    assert back.waits_for == "a free connection"
    assert back.due_at is not None
    assert world.inbox() == []
    ConnectionSlot.objects.all().delete()
    world.make_due()
    world.work()
    assert world.states(mailing) == {"delivered": 3}


def test_slots_are_given_back_when_connections_have_gone_cold(world: World) -> None:
    world.mailing_to(people(3))
    world.work()
    assert ConnectionSlot.objects.count() == 1

    delivery.slots().release_idle()
    assert ConnectionSlot.objects.count() == 1
    for use in delivery.slots()._uses.values():
        use.idle_since -= 60
    delivery.slots().release_idle()

    assert ConnectionSlot.objects.count() == 0


# -- faults of ours


def test_a_journal_that_is_full_stops_the_batch_and_loses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailing = world.mailing_to(people(30))
    world.deliver(world.published())
    (one,) = world.published()
    journal = world.start_runtime().journal
    noted: list[int] = []
    really_intend = journal.intend

    def intend(batch_id: int, message_id: int, attempt_no: int) -> None:
        if len(noted) == 4:
            raise JournalFull(28, "the journal cannot be written (No space left on device)")
        noted.append(message_id)
        really_intend(batch_id, message_id, attempt_no)

    monkeypatch.setattr(journal, "intend", intend)
    assert delivery.deliver(one.batch_id)

    assert world.states(mailing) == {"delivered": 4, "waiting": 26}
    assert len(world.inbox()) == 4
    back = only(world.batches(mailing, state="untaken"))
    assert "journal cannot be written" in back.waits_for
    assert len(back.ids) == 26
    assert back.due_at is not None
    monkeypatch.undo()
    world.make_due()
    world.work()
    assert world.states(mailing) == {"delivered": 30}
    assert world.inbox() == sorted(people(30))


def test_a_batch_that_cannot_be_noted_at_all_is_not_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailing = world.mailing_to(people(3))
    world.deliver(world.published())
    (one,) = world.published()
    journal = world.start_runtime().journal

    def refuse(batch_id: int) -> None:
        raise JournalFull(28, "the journal cannot be written (No space left on device)")

    monkeypatch.setattr(journal, "took", refuse)
    delivery.deliver(one.batch_id)

    back = only(world.batches(mailing, state="untaken"))
    assert "journal cannot be written" in back.waits_for
    assert world.inbox() == []
    monkeypatch.undo()
    world.make_due()
    world.work()
    assert world.states(mailing) == {"delivered": 3}


def test_a_batch_that_cannot_be_loaded_is_not_kept(
    transactional_db: None, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailing = world.mailing_to(people(3))
    world.deliver(world.published())
    (one,) = world.published()

    def fail(*_: object) -> None:
        raise OperationalError("the connection was lost")

    with monkeypatch.context() as patch:
        patch.setattr(taking.rendering, "load", fail)
        with pytest.raises(OperationalError):
            delivery.deliver(one.batch_id)

    assert only(world.batches(mailing, provider="gmail")).state == "untaken"
    eventually(lambda: one.batch_id not in taking._working)
    assert delivery.deliver(one.batch_id)
    assert world.states(mailing) == {"delivered": 3}


def test_a_run_that_fails_does_not_free_what_another_run_is_sending(
    transactional_db: None, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task delivered twice to one process: the second must not undo the first one's taking."""
    mailing = world.mailing_to(people(10))
    world.deliver(world.published())
    (one,) = world.published()
    refusals: list[object] = []

    def fail(*_: object) -> None:
        raise OperationalError("the connection was lost")

    def run_again() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(taking, "take", fail)
            refusals.append(delivery.deliver(one.batch_id))

    world.servers[GMAIL].inbox = ActAt(3, run_again)
    assert delivery.deliver(one.batch_id)

    assert refusals == [False]
    assert only(world.batches(mailing, provider="gmail")).state == "done"
    assert world.states(mailing) == {"delivered": 10}
    assert world.inbox() == sorted(people(10))


def test_outcomes_wait_for_a_database_that_is_away(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(delivery.connection, "close", lambda: None)
    mailing = world.mailing_to(people(5))
    world.deliver(world.published())
    failures = iter([OperationalError("server closed the connection")] * 3)
    really_record = outcomes.record

    def record(*args: Any, **fields: Any) -> None:
        for failure in failures:
            raise failure
        really_record(*args, **fields)

    monkeypatch.setattr(outcomes, "record", record)
    world.deliver(world.published())

    assert next(failures, None) is None
    assert world.states(mailing) == {"delivered": 5}
    assert len(world.inbox()) == 5


def test_a_fault_in_the_middle_puts_back_what_was_not_sent(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailing = world.mailing_to(people(10))
    world.deliver(world.published())

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a fault of ours")

    with monkeypatch.context() as patch:
        patch.setattr(delivery.gate, "admit", fail)
        world.deliver(world.published())

    back = only(world.batches(mailing, state="untaken"))
    assert back.waits_for == "a fault: RuntimeError('a fault of ours')"
    assert world.states(mailing) == {"waiting": 10}
    world.make_due()
    world.work()
    assert world.states(mailing) == {"delivered": 10}


# -- replies that take their time


def test_a_reply_that_outlasts_the_task_is_recorded_when_it_comes(
    transactional_db: None, world: World, policy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy.POSTROAD_BATCH_SECONDS = 0
    world.forget()
    monkeypatch.setattr(delivery, "LOOK_SECONDS", 0.02)
    treat(world, "slow@gmail.com", content=IS_SILENT)
    mailing = world.mailing_to(["slow@gmail.com"])
    world.deliver(world.published())
    (one,) = world.published()

    assert delivery.deliver(one.batch_id)

    batch = Batch.objects.get(pk=one.batch_id)
    assert (batch.state, len(batch.ids)) == ("taken", 1)
    assert world.states(mailing) == {"waiting": 1}
    assert world.published() == []  # nobody else may send it meanwhile

    runtime.current().run(runtime.current().transport.close(0))
    eventually(lambda: world.states(mailing) == {"in_doubt": 1})
    eventually(lambda: Batch.objects.get(pk=one.batch_id).state == "done")
    assert world.inbox() == ["slow@gmail.com"]


def test_a_worker_that_shuts_down_gives_back_what_is_not_on_the_wire(
    transactional_db: None, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "LOOK_SECONDS", 0.01)
    mailing = world.mailing_to(people(100))
    world.deliver(world.published())
    (one,) = world.published()
    world.servers[GMAIL].inbox = ActAt(10, runtime.stop_feeding)

    delivery.deliver(one.batch_id)
    runtime.shut_down()

    states = world.states(mailing)
    assert states["delivered"] == len(world.inbox())
    assert 10 <= states["delivered"] < 100
    assert states["delivered"] + states["waiting"] == 100
    assert {batch.state for batch in world.batches(mailing, provider="gmail")} == {"untaken"}
    world.make_due()
    world.work()
    assert world.states(mailing) == {"delivered": 100}
    assert world.inbox() == sorted(people(100))


# -- relays


def relayed(world: World, **fields: Any) -> None:
    usual = {"kind": SourceKind.RELAY, "relay_host": "127.0.0.50", "relay_port": 587}
    Source.objects.filter(pk=world.source.pk).update(**{**usual, **fields})


def test_a_relay_takes_the_mail_of_all_domains_even_those_dns_cannot_tell(world: World) -> None:
    world.servers["127.0.0.50"] = ServerScript()
    relayed(world)
    mailing = world.mailing_to(["a@gmail.com", "b@shop.example", "c@servfail.example"])

    world.work()

    assert world.states(mailing) == {"delivered": 3}
    assert len(world.servers["127.0.0.50"].inbox) == 3


def test_a_relay_that_is_away_defers_everything_and_suppresses_nobody(world: World) -> None:
    relayed(world, relay_host="127.0.0.51")
    mailing = world.mailing_to(people(3))

    world.work()

    assert world.states(mailing) == {"waiting": 3}
    attempts = Attempt.objects.filter(mailing_id=mailing.pk)
    assert {(a.outcome, a.mx_host) for a in attempts} == {("unreached", "127.0.0.51")}
    assert not Suppression.objects.exists()


def test_a_relay_whose_password_cannot_be_opened_defers_and_says_what_to_do(world: World) -> None:
    world.servers["127.0.0.50"] = ServerScript()
    relayed(world, relay_username="acme", relay_password_sealed=seal("secret")[:-4] + b"AAAA")
    mailing = world.mailing_to(people(1))

    world.work()

    assert world.states(mailing) == {"waiting": 1}
    (attempt,) = Attempt.objects.filter(mailing_id=mailing.pk)
    assert "SECRET_KEY_FALLBACKS" in attempt.reply
    assert world.inbox() == []


def test_a_direct_source_that_was_a_relay_once_sends_directly(world: World) -> None:
    relayed(world, kind=SourceKind.DIRECT)
    mailing = world.mailing_to(people(2))

    world.work()

    assert world.states(mailing) == {"delivered": 2}
    assert len(world.servers[GMAIL].inbox) == 2


# -- the real transport, real DNS and real servers


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with started(tmp_path_factory.mktemp("sandbox"), "--greylist-seconds", "0.2") as running:
        yield running


@pytest.fixture
def real(world: World, sandbox: Sandbox, policy: Any) -> World:
    """The world with the sandbox's DNS and servers, over sockets."""
    policy.POSTROAD_SANDBOX = True
    policy.POSTROAD_TLS_VERIFY_RELAYS = False  # its certificate is its own
    policy.POSTROAD_DNS = sandbox.description["dns"]
    world.forget()
    runtime.shut_down()
    sandbox.clear()
    world.start_runtime = runtime.current  # type: ignore[method-assign]
    return world


def test_faults_of_real_servers_become_the_outcomes_they_are(real: World, sandbox: Sandbox) -> None:
    expected = {
        "unknown@gmail.com": "bounced",
        "full@outlook.com": "bounced",
        "tempfail-1@hotmail.com": "waiting",
        "421@aol.com": "waiting",
        "lost-reply@gmail.com": "in_doubt",
        "disconnect-in-data@shop.example": "in_doubt",
        "reject-data@gmail.com": "bounced",
        "a@nullmx.example": "bounced",
        "a@unreachable.example": "waiting",
        "a@servfail.example": "waiting",
        "ann@gmail.com": "delivered",
        "bob@icloud.com": "delivered",
        "cle@shop.example": "delivered",
    }
    mailing = real.mailing_to(list(expected))

    real.work()

    found = dict(Message.objects.values_list("address", "state"))
    assert found == expected
    suppressed = set(Suppression.objects.values_list("address_key", flat=True))
    assert "unknown@gmail.com" in suppressed
    assert suppressed <= {"unknown@gmail.com", "full@outlook.com"}
    counts = sandbox.counts(mailing=mailing.pk)
    assert counts["received"] == 4  # those delivered, and the one whose reply was lost
    assert counts["duplicates"] == 0


def test_a_retry_over_real_servers_delivers_once(real: World, sandbox: Sandbox) -> None:
    mailing = real.mailing_to(["tempfail-1@yahoo.com", "greylist@gmail.com", *people(50)])
    real.work()
    assert real.states(mailing) == {"delivered": 50, "waiting": 2}

    def has_passed() -> bool:
        real.make_due()
        upkeep.lay_due(now=now())
        real.work()
        return real.states(mailing) == {"delivered": 52}

    eventually(has_passed)

    counts = sandbox.counts(mailing=mailing.pk)
    assert (counts["received"], counts["duplicates"]) == (52, 0)
    assert upkeep.finish_mailings(now=now()) == [mailing.pk]


def test_a_relay_takes_mail_over_real_sockets(real: World, sandbox: Sandbox) -> None:
    address, port = sandbox.smtp("catchall")
    relayed(real, relay_host=address, relay_port=port)
    mailing = real.mailing_to(people(5))

    real.work()

    assert real.states(mailing) == {"delivered": 5}
    assert sandbox.counts(mailing=mailing.pk)["by_provider"] == {"catchall": 5}
