"""Rescue of workers that died: real processes, killed where it hurts most."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from django.conf import settings
from django.db import connection

from deliverability.core.outcome import OutcomeKind, Phase, Reply
from deliverability.models import ConnectionSlot
from mailer import account, outcomes, rescue, runtime
from mailer.core.journal import SettledRecord
from mailer.journal import Journal, claim_dead, journal_ids
from mailer.models import Attempt, Batch, Mailing, MailingDelta, Message, WorkerJournal
from mailer.outcomes import Seen
from tests.integration.world import World, in_threads, now, people

pytestmark = pytest.mark.django_db
REPOSITORY = Path(__file__).parents[2]

#: Delivers one batch to a server that falls silent after the content to `silent…@`; says whom
#: it has content of once every connection waits for a reply.
WORKER = """
    import json, sys, threading, time
    import django
    django.setup()
    from mailer import delivery, runtime
    from mailer.transport.memory import IS_SILENT, MemoryTransport, ServerScript, Treatment
    from mailer.transport.mx_memory import memory_mx
    from tests.integration.world import GMAIL, ZONE

    silent = ["silent-1@gmail.com", "silent-2@gmail.com"]
    script = ServerScript({name: Treatment(content=IS_SILENT) for name in silent})
    current = runtime.current()

    async def replace():
        current.transport, current.mx = MemoryTransport({GMAIL: script}), memory_mx(ZONE)

    current.run(replace())
    threading.Thread(target=delivery.deliver, args=(int(sys.argv[1]),), daemon=True).start()
    deadline = time.monotonic() + 60
    while not set(silent) <= {got.recipient for got in script.inbox}:
        if time.monotonic() > deadline:
            sys.exit("the silent ones were never sent to")
        time.sleep(0.01)
    print(json.dumps([got.recipient for got in script.inbox]), flush=True)
    time.sleep(600)
"""


def database_url() -> str:
    found = connection.settings_dict
    login = f"{quote(found['USER'])}:{quote(found['PASSWORD'])}"
    return f"postgres://{login}@{found['HOST']}:{found['PORT']}/{found['NAME']}"


@contextmanager
def a_worker(batch_id: int) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A process that is in the middle of a batch, and who has got its mail from it."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WORKER), str(batch_id)],
        cwd=REPOSITORY,
        env={
            "PATH": "/usr/bin:/bin",
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "DATABASE_URL": database_url(),
            "REDIS_URL": settings.REDIS_URL,
            "SECRET_KEY": settings.SECRET_KEY,
            "POSTROAD_JOURNALS": str(settings.POSTROAD_JOURNALS),
            "POSTROAD_HOST": settings.POSTROAD_HOST,
            "POSTROAD_PRIVATE_NETWORKS": "on",
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def mailing_with_silence(world: World) -> tuple[Mailing, list[str], int]:
    world.mailing_to(["first@gmail.com"])
    world.work()
    runtime.shut_down()
    for server in world.servers.values():
        server.inbox.clear()
    addresses = people(18)
    addresses[5:5] = ["silent-1@gmail.com", "silent-2@gmail.com"]
    mailing = world.mailing_to(addresses)
    (one,) = world.published()
    return mailing, addresses, one.batch_id


def test_a_killed_worker_loses_nothing_and_nothing_is_sent_twice(
    transactional_db: None, world: World
) -> None:
    mailing, addresses, batch_id = mailing_with_silence(world)
    with a_worker(batch_id) as (process, got):
        assert rescue.rescue_host() == rescue.Rescued()  # it lives
        process.send_signal(signal.SIGSTOP)
        assert rescue.rescue_host() == rescue.Rescued()  # frozen is not dead
        assert Batch.objects.get(pk=batch_id).state == "taken"
        assert ConnectionSlot.objects.count() == 1
        kill(process)

    rescued = rescue.rescue_host()

    assert rescued.batches == 1
    assert world.states(mailing) == {
        "delivered": len(got) - 2,
        "in_doubt": 2,
        "waiting": len(addresses) - len(got),
    }
    doubted = Message.objects.filter(state="in_doubt").values_list("address", flat=True)
    assert set(doubted) == {"silent-1@gmail.com", "silent-2@gmail.com"}
    assert not Batch.objects.filter(state="taken").exists()
    assert not ConnectionSlot.objects.exists()
    assert journal_ids(settings.POSTROAD_JOURNALS) == ()

    world.make_due()
    world.work()
    assert world.states(mailing) == {"delivered": len(addresses) - 2, "in_doubt": 2}
    assert sorted(got + world.inbox()) == sorted(addresses)  # each exactly once


def test_many_rescuers_settle_a_dead_worker_once(transactional_db: None, world: World) -> None:
    mailing, _, batch_id = mailing_with_silence(world)
    with a_worker(batch_id) as (process, got):
        kill(process)

    rescued = in_threads(4, lambda _: rescue.rescue_host())

    assert sum(one.batches for one in rescued) == 1
    assert world.states(mailing)["delivered"] == len(got) - 2
    assert Attempt.objects.filter(mailing_id=mailing.pk).count() == len(got)
    assert world.check(mailing.pk).attempts == len(got)


# -- replaying


SETTLED = SettledRecord(1_770_000_000.5, "accepted", 250, "2.0.0", "Ok", "content", "mx.test", 1)


def taken_batch(world: World, journal: Journal, count: int = 4) -> tuple[Mailing, Batch, list[int]]:
    """A batch that a worker with this journal has taken."""
    mailing = world.mailing_to(people(count))
    (batch,) = world.batches(mailing)
    WorkerJournal.objects.get_or_create(
        pk=uuid.UUID(journal.id), defaults={"host": settings.POSTROAD_HOST, "pid": 1}
    )
    Batch.objects.filter(pk=batch.pk).update(
        state="taken", journal_id=journal.id, source_id=world.source.pk, provider="gmail"
    )
    batch.refresh_from_db()
    return mailing, batch, batch.ids


@pytest.fixture
def journal(world: World) -> Iterator[Journal]:
    journal = Journal.open(settings.POSTROAD_JOURNALS)
    yield journal
    journal.close()


def test_a_journal_tells_delivered_doubtful_and_unsent_apart(
    world: World, journal: Journal
) -> None:
    mailing, batch, ids = taken_batch(world, journal)
    journal.took(batch.pk)
    for message_id in ids[:2]:
        journal.intend(batch.pk, message_id, 1)
    journal.settle(batch.pk, ids[0], 1, SETTLED)
    refused = replace(SETTLED, code=550, enhanced="5.1.1", text="No such user", phase="rcpt")
    journal.settle(batch.pk, ids[2], 1, refused)
    journal.close()

    assert rescue.rescue_host().batches == 1

    assert world.states(mailing) == {"delivered": 1, "in_doubt": 1, "bounced": 1, "waiting": 1}
    (freed,) = world.batches(mailing, state="untaken")
    assert freed.ids == [ids[3]]


def test_replaying_what_was_recorded_already_counts_once(world: World, journal: Journal) -> None:
    mailing, batch, ids = taken_batch(world, journal)
    journal.took(batch.pk)
    for message_id in ids[:3]:
        journal.intend(batch.pk, message_id, 1)
        journal.settle(batch.pk, message_id, 1, SETTLED)
    first = rescue._claim(batch)
    _record(first, batch, {ids[0]: 1, ids[1]: 1}, still_out=ids[2:])
    before = world.check(mailing.pk)
    journal.close()

    rescue.rescue_host()
    again = Batch.objects.get(pk=batch.pk)
    after = world.check(mailing.pk)

    assert (before.states["delivered"], after.states["delivered"]) == (2, 3)
    assert after.attempts == 3
    assert again.ids == [ids[3]]


def _loaded(batch: Batch) -> dict[int, outcomes.Waiting]:
    return {
        row.id: outcomes.Waiting(
            outcomes.Standing(row.id, row.attempts, row.failures, row.queued_at), row.address
        )
        for row in rescue.rendering.load(batch.mailing_day, batch.ids)
    }


def _record(
    claim: Any,
    batch: Batch,
    attempts: dict[int, int],
    still_out: list[int],
    messages: dict[int, outcomes.Waiting] | None = None,
) -> None:
    """What the worker itself records when servers have accepted these messages."""
    reply = Reply(250, "2.0.0", "Ok", Phase.CONTENT)
    told = {
        message_id: Seen(no, now(), OutcomeKind.ACCEPTED, reply, "mx.test", batch.source_id or 0)
        for message_id, no in attempts.items()
    }
    outcomes.record(
        claim,
        _loaded(batch) if messages is None else messages,
        told,
        {},
        outcomes.Rest(),
        still_out=still_out,
        now=now(),
    )


def test_a_batch_taken_after_its_worker_was_rescued_is_freed(
    world: World, journal: Journal
) -> None:
    """Its commit arrived after its death: it never knew that the batch was its own."""
    mailing, _, _ = taken_batch(world, journal)
    WorkerJournal.objects.update(ended_at=now())

    assert rescue.free_orphans() == 1

    assert world.states(mailing) == {"waiting": 4}
    world.work()
    assert world.states(mailing) == {"delivered": 4}


def test_many_rescuers_free_an_orphan_once(transactional_db: None, world: World) -> None:
    journal = Journal.open(settings.POSTROAD_JOURNALS)
    mailing, _, _ = taken_batch(world, journal)
    WorkerJournal.objects.update(ended_at=now())

    assert sum(in_threads(6, lambda _: rescue.free_orphans())) == 1

    assert world.states(mailing) == {"waiting": 4}
    assert Batch.objects.filter(state="untaken").count() == 1
    journal.close()


def test_a_worker_that_ended_in_order_leaves_nothing_to_rescue(
    transactional_db: None, world: World
) -> None:
    mailing = world.mailing_to(people(5))
    world.work()
    runtime.shut_down()

    assert journal_ids(settings.POSTROAD_JOURNALS) == ()
    assert WorkerJournal.objects.filter(ended_at__isnull=True).count() == 0
    assert not ConnectionSlot.objects.exists()
    assert rescue.rescue_host() == rescue.Rescued()
    assert world.states(mailing) == {"delivered": 5}


# -- journals that cannot be read


def test_a_worker_that_died_before_its_first_note_leaves_no_riddle(
    world: World, journal: Journal
) -> None:
    for path in Path(settings.POSTROAD_JOURNALS).glob(f"{journal.id}.*.log"):
        path.unlink()
    journal.close()
    Path(settings.POSTROAD_JOURNALS, f"{journal.id}.lock").touch()

    rescue.rescue_host()

    assert journal_ids(settings.POSTROAD_JOURNALS) == ()


def test_a_damaged_journal_frees_nothing_and_keeps_the_others_rescuable(
    world: World, journal: Journal
) -> None:
    mailing, batch, ids = taken_batch(world, journal)
    journal.took(batch.pk)
    journal.intend(batch.pk, ids[0], 1)
    journal.close()
    (path,) = Path(settings.POSTROAD_JOURNALS).glob(f"{journal.id}.*.log")
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    other = Journal.open(settings.POSTROAD_JOURNALS)
    others_mailing, others_batch, _ = taken_batch(world, other)
    other.took(others_batch.pk)
    other.close()

    rescue.rescue_host()

    assert world.states(others_mailing) == {"waiting": 4}
    assert Batch.objects.get(pk=others_batch.pk).state == "untaken"
    # What the damaged part would have told is unknown: nothing of it may be sent again.
    assert Batch.objects.get(pk=batch.pk).state != "untaken"
    assert "delivered" not in world.states(mailing)


def test_one_dead_worker_that_cannot_be_settled_does_not_keep_the_others(
    world: World, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, batch, _ = taken_batch(world, journal)
    journal.took(batch.pk)
    journal.close()
    other = Journal.open(settings.POSTROAD_JOURNALS)
    mailing, others_batch, _ = taken_batch(world, other)
    other.took(others_batch.pk)
    other.close()
    really_replay = rescue._replay

    def replay(one: Batch, *args: Any) -> None:
        if one.pk == batch.pk:
            raise ValueError("a row that no code understands")
        really_replay(one, *args)

    monkeypatch.setattr(rescue, "_replay", replay)
    rescue.rescue_host()

    assert Batch.objects.get(pk=others_batch.pk).state == "untaken"
    assert Batch.objects.get(pk=batch.pk).state == "taken"
    monkeypatch.undo()
    rescue.rescue_host()
    assert Batch.objects.get(pk=batch.pk).state == "untaken"
    assert world.states(broken) == world.states(mailing) == {"waiting": 4}


# -- hosts that are lost


def test_a_lost_host_puts_into_doubt_what_it_had_not_recorded(
    world: World, journal: Journal
) -> None:
    mailing, batch, ids = taken_batch(world, journal)
    WorkerJournal.objects.update(host="far-away")
    ConnectionSlot.objects.create(
        source=world.source, provider="gmail", journal_id=journal.id, count=3
    )
    untouched = world.mailing_to(people(2, "outlook.com"))
    _record(rescue._claim(batch), batch, {ids[0]: 1}, still_out=ids[1:])

    assert rescue.declare_lost("another-host") == rescue.Rescued()
    assert rescue.declare_lost("far-away") == rescue.Rescued(1, 1)

    assert world.states(mailing) == {"delivered": 1, "in_doubt": 3}
    assert world.states(untouched) == {"waiting": 2}
    assert Batch.objects.get(pk=batch.pk).state == "done"
    assert not ConnectionSlot.objects.exists()
    assert rescue.declare_lost("far-away") == rescue.Rescued()


def test_a_worker_declared_lost_by_mistake_records_nothing_twice(
    world: World, journal: Journal
) -> None:
    mailing, batch, ids = taken_batch(world, journal)
    claim, messages = rescue._claim(batch), _loaded(batch)
    rescue.declare_lost(settings.POSTROAD_HOST)

    with pytest.raises(outcomes.ClaimLost):
        _record(claim, batch, dict.fromkeys(ids, 1), [], messages)

    assert world.states(mailing) == {"in_doubt": 4}
    assert MailingDelta.objects.filter(entry="delivered").count() == 0
    assert account.account_of(mailing.pk).attempts == 4
    assert claim_dead(settings.POSTROAD_JOURNALS, journal.id) is None  # it lives
