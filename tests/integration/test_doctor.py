"""`manage.py doctor` against a whole installation: sound, and broken in one way after another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from django.db import connection

from config.doctor import CHECKS, Check, Finding, Level, Needs, examine
from config.local import ports, roles
from config.local.processes import await_true
from config.local.roles import Listen, Ready, Sign
from config.local.stage import ROOT, Stage, stage
from deliverability.models import Hold
from mailer import account, outbox, partitions
from mailer.journal import Journal
from mailer.models import Batch, WorkerJournal
from tests.integration.campaign_world import make_world

TODAY = datetime.now(UTC).date()


@dataclass
class Told:
    status: int
    seconds: float
    checks: dict[str, dict[str, Any]]

    def errors(self) -> set[str]:
        return {name for name, one in self.checks.items() if one["level"] == "error"}


def manage(on: Stage, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env={**os.environ, **on.environment, **changes},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def doctor(on: Stage, **changes: str) -> Told:
    began = datetime.now(UTC)
    done = manage(on, "doctor", "--json", **changes)
    seconds = (datetime.now(UTC) - began).total_seconds()
    assert done.stdout, done.stderr
    told = json.loads(done.stdout)
    assert told["error"] == sum(one["level"] == "error" for one in told["checks"])
    return Told(done.returncode, seconds, {one["name"]: one for one in told["checks"]})


@pytest.fixture(scope="module")
def installation() -> Iterator[Stage]:
    """Everything that bin/start starts, on ports of its own."""
    listen = Listen(web_port=ports.any_free(), flower_port=ports.any_free())
    with stage() as on:
        on.environment |= {
            "POSTROAD_PUBLIC_URL": f"http://127.0.0.1:{listen.web_port}",
            "POSTROAD_FLOWER_URL": f"http://127.0.0.1:{listen.flower_port}",
            "FLOWER_BASIC_AUTH": "postroad:only-for-tests",
        }
        migrated = manage(on, "migrate", "--verbosity=0")
        assert migrated.returncode == 0, migrated.stderr
        on.start(
            roles.deliver(1),
            roles.urgent(),
            roles.upkeep(),
            roles.beat(),
            replace(roles.web(listen), ready=Ready(Sign.LOG, "Booting worker")),
            replace(roles.flower(listen), ready=Ready(Sign.LOG, "Connected to redis")),
        )
        yield on


def test_a_sound_installation_has_no_error_and_says_so(installation: Stage) -> None:
    told = doctor(installation)

    assert (told.status, told.errors()) == (0, set()), told.checks
    for name in ("database", "redis", "worker urgent", "web", "flower", "sandbox", "dns"):
        assert told.checks[name]["level"] == "ok"

    shown = manage(installation, "doctor")
    assert shown.returncode == 0
    assert "error" not in shown.stdout
    assert shown.stdout.splitlines()[-1].endswith(("Mail goes out.", " s."))


def test_a_worker_that_is_gone_is_named_with_what_does_not_happen(installation: Stage) -> None:
    installation.children.pop("urgent").stop()
    try:
        told = doctor(installation)
    finally:
        installation.start(roles.urgent())

    assert (told.status, told.errors()) == (1, {"worker urgent"})
    assert "nobody consumes deliver.urgent" in told.checks["worker urgent"]["found"]
    assert "urgent messages are not sent" in told.checks["worker urgent"]["advice"]


def test_without_redis_the_rest_is_still_looked_at(installation: Stage) -> None:
    installation.children.pop("valkey").stop()
    try:
        told = doctor(installation)
    finally:
        installation.start_valkey()
    # The workers find it again by themselves.
    assert await_true(lambda: not doctor(installation).errors(), 60)

    assert (told.status, told.errors()) == (1, {"redis"})
    assert "REDIS_URL" in told.checks["redis"]["advice"]
    assert told.checks["migrations"]["level"] == "ok"
    assert not told.checks["workers"]["is_looked_at"]


def test_without_postgresql_it_does_not_crash(installation: Stage) -> None:
    # In a copy of the environment: the installation's own database goes on.
    away = f"postgres://nobody:nothing@127.0.0.1:{ports.any_free()}/postroad"
    told = doctor(installation, DATABASE_URL=away)

    assert (told.status, told.errors()) == (1, {"database"})
    assert "DATABASE_URL" in told.checks["database"]["advice"]
    assert told.checks["worker urgent"]["level"] == "ok"
    assert not told.checks["conservation"]["is_looked_at"]


def test_a_database_that_hangs_does_not_hang_the_doctor(installation: Stage) -> None:
    postgres = installation.children["postgres"]
    postgres.signal(signal.SIGSTOP)
    try:
        told = doctor(installation)
    finally:
        postgres.signal(signal.SIGCONT)

    assert "database" in told.errors()
    assert told.seconds < 60


def test_a_journals_folder_that_cannot_be_written_stops_sending(installation: Stage) -> None:
    told = doctor(installation, POSTROAD_JOURNALS="/dev/null/journals")

    assert "journals" in told.errors()
    assert "/dev/null/journals cannot be written" in told.checks["journals"]["found"]


@pytest.mark.parametrize(
    ("changes", "name", "found"),
    [
        ({"SECRET_KEY": ""}, "secret key", "empty"),
        ({"SECRET_KEY": "short", "POSTROAD_SANDBOX": "off"}, "secret key", "5 characters"),
        ({"DEBUG": "on", "POSTROAD_SANDBOX": "off"}, "debug", "on"),
        ({"POSTROAD_DNS": "127.0.0.1:1"}, "dns", "127.0.0.1:1"),
        ({"POSTROAD_PUBLIC_URL": "http://127.0.0.1:1"}, "web", "refused"),
        ({"REDIS_URL": "redis://:wrong@127.0.0.1:{valkey}/0"}, "redis", "does not answer"),
    ],
)
def test_a_wrong_setting_is_found_by_the_check_that_is_about_it(
    installation: Stage, changes: dict[str, str], name: str, found: str
) -> None:
    valkey = installation.environment["STAGE_VALKEY_PORT"]
    told = doctor(installation, **{k: v.format(valkey=valkey) for k, v in changes.items()})

    assert told.status == 1
    assert name in told.errors()
    assert found in told.checks[name]["found"]
    assert told.checks[name]["advice"]


# -- single checks, in a transaction that is rolled back


def look(name: str) -> dict[str, Finding]:
    check = next(check for check in CHECKS if check.name == name)
    return {finding.name: finding for finding in check.look()}


def level_of(name: str) -> Level:
    return look(name)[name].level


@pytest.fixture
def journals(settings: Any, tmp_path: Path) -> Path:
    settings.POSTROAD_JOURNALS = tmp_path
    settings.POSTROAD_HOST = "here"
    return tmp_path


@pytest.mark.django_db
def test_a_partition_that_is_missing_is_named_with_who_should_make_it() -> None:
    partitions.ensure_ahead(TODAY)
    assert level_of("partitions") is Level.OK

    missing = partitions.name_of("mailer_message", TODAY + timedelta(3))
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE {missing}")
    found = look("partitions")["partitions"]
    assert found.level is Level.WARNING
    assert found.found == f"missing: {missing}"
    assert "mailer.clean" in found.advice


@pytest.mark.django_db
def test_a_migration_that_is_not_applied_is_named() -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'campaigns'")
    found = look("migrations")["migrations"]

    assert found.level is Level.ERROR
    assert "campaigns.0001_initial" in found.found
    assert "migrate" in found.advice


@pytest.mark.django_db
def test_beat_is_judged_by_when_it_last_sent_its_tick() -> None:
    from django_celery_beat.models import PeriodicTask

    tick = PeriodicTask.objects.filter(task="mailer.tick")
    tick.update(last_run_at=None, date_changed=datetime.now(UTC))
    assert level_of("beat") is Level.WARNING  # it may just have been installed

    tick.update(date_changed=datetime.now(UTC) - timedelta(hours=1))
    for last, level in (
        (None, Level.ERROR),
        (datetime.now(UTC) - timedelta(hours=1), Level.ERROR),
        (datetime.now(UTC) - timedelta(seconds=90), Level.OK),
    ):
        tick.update(last_run_at=last)
        assert level_of("beat") is level

    tick.update(enabled=False)
    assert "disabled" in look("beat")["beat"].found


def test_a_redis_that_may_forget_a_queue_is_an_error(redis_client: redis.Redis) -> None:
    before = redis_client.config_get("maxmemory-policy")["maxmemory-policy"]
    redis_client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        found = look("redis memory")["redis memory"]
    finally:
        redis_client.config_set("maxmemory-policy", before)

    assert found.level is Level.ERROR
    assert "noeviction" in found.advice
    assert level_of("redis memory") is Level.OK


def test_a_dead_workers_journal_waits_for_a_rescuer_but_not_at_once(journals: Path) -> None:
    journal = Journal.open(journals)
    journal.took(1)
    assert level_of("dead journals") is Level.OK  # its owner lives
    journal.close()
    assert level_of("dead journals") is Level.OK  # a rescuer may be on its way

    for path in journals.iterdir():
        os.utime(path, (1, 1))
    found = look("dead journals")["dead journals"]
    assert found.level is Level.ERROR
    assert journal.id in found.found


def test_a_damaged_journal_is_told_apart(journals: Path) -> None:
    journal = Journal.open(journals)
    journal.took(1)
    journal.close()
    (segment,) = journals.glob("*.log")
    segment.write_bytes(b"not a journal at all")

    found = look("dead journals")["dead journals"]
    assert found.level is Level.ERROR
    assert "declare_host_lost" in found.advice


def accept(key: str = "k") -> outbox.Accepted:
    """An urgent message, accepted and in a batch."""
    world = make_world(f"acme-{key}")
    content = outbox.freeze_content(
        world.workspace, subject="Hi", html="", text="Hi", from_header="a@acme.example"
    )
    request = outbox.Request(world.workspace.pk, world.pool.pk, content.pk, key, "b@c.example")
    return outbox.submit(request, now=datetime.now(UTC))


@pytest.mark.django_db
def test_urgent_mail_that_waits_is_told_with_what_it_waits_for(journals: Path) -> None:
    accept()
    assert level_of("waiting") is Level.OK

    Batch.objects.update(
        created_at=datetime.now(UTC) - timedelta(minutes=2), waits_for="a free connection"
    )
    found = look("waiting")["waiting"]
    assert found.level is Level.WARNING
    assert "urgent 1, the oldest for 2 min" in found.found
    assert "a free connection" in found.advice


@pytest.mark.django_db
def test_a_taken_batch_whose_journal_is_not_here_is_an_error(journals: Path) -> None:
    accept()
    journal_id = uuid.uuid4()
    WorkerJournal.objects.create(id=journal_id, host="here", pid=1)
    now = datetime.now(UTC)
    Batch.objects.update(state="taken", journal_id=journal_id, host="here", taken_at=now)
    found = look("taken")["taken"]
    assert found.level is Level.ERROR
    assert "declare_host_lost here" in found.advice

    Batch.objects.update(host="elsewhere")
    assert level_of("taken") is Level.OK

    Batch.objects.update(taken_at=now - timedelta(hours=3))
    assert level_of("taken") is Level.WARNING


@pytest.mark.django_db
def test_messages_that_only_a_person_settles_are_counted() -> None:
    assert level_of("in doubt") is Level.OK

    accepted = accept()
    account.note(accepted.mailing_id, {"waiting": -1, "in_doubt": 1})
    found = look("in doubt")
    assert found["in doubt"].level is Level.WARNING
    assert f"1 messages in 1 mailings, the last is {accepted.mailing_id}" in found["in doubt"].found
    assert found["dead"].level is Level.OK


@pytest.mark.django_db
def test_an_account_that_does_not_add_up_is_an_error() -> None:
    accepted = accept()
    assert level_of("conservation") is Level.OK

    account.note(accepted.mailing_id, {"delivered": 1})
    found = look("conservation")["conservation"]
    assert found.level is Level.ERROR
    assert "delivered: the account says 1, the rows 0" in found.found


@pytest.mark.django_db
def test_a_stop_on_purpose_is_not_forgotten() -> None:
    assert level_of("holds") is Level.OK

    Hold.objects.create(reason="Blocklisted", held_by="ann")
    found = look("holds")["holds"]
    assert found.level is Level.WARNING
    assert "everything: Blocklisted (by ann" in found.found


# -- the runner


def test_a_check_that_fails_is_a_finding_and_the_others_go_on() -> None:
    def fails() -> Iterator[Finding]:
        yield Finding("first", Level.OK, "seen before")
        raise RuntimeError("boom\nand more")

    checks = [Check("broken", fails), Check("well", lambda: [Finding("well", Level.OK, "yes")])]
    found = examine(checks)

    assert [(one.name, one.level) for one in found] == [
        ("first", Level.OK),
        ("broken", Level.ERROR),
        ("well", Level.OK),
    ]
    assert found[1].found == "RuntimeError: boom"


def test_what_stands_on_a_broken_root_is_not_looked_at() -> None:
    def root() -> Iterator[Finding]:
        yield Finding("redis", Level.ERROR, "away", "start it")

    def never() -> Iterator[Finding]:
        raise AssertionError("this was looked at")

    checks = [
        Check("redis", root, Needs.REDIS, is_root=True),
        Check("queue", never, Needs.REDIS),
    ]
    found = examine(checks)

    assert [one.is_looked_at for one in found] == [True, False]
    assert found[1].level is Level.WARNING


def test_a_check_that_hangs_is_left_behind() -> None:
    import threading

    gate = threading.Event()

    def hangs() -> list[Finding]:
        gate.wait(60)
        return []

    try:
        (found,) = examine([Check("slow", hangs)], timeout_seconds=0.2)
    finally:
        gate.set()

    assert (found.name, found.level) == ("slow", Level.ERROR)
