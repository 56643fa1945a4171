"""What campaigns hand to Celery: after the commit only, and found again when it was lost."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone
from django_celery_beat.models import PeriodicTask
from kombu.exceptions import OperationalError

from campaigns import expansion, imports, launch, tasks
from campaigns.launch import Next
from campaigns.models import Campaign, Import, Recipient
from config.celery import app
from mailer import account
from mailer import tasks as mailer_tasks
from tests.integration.campaign_world import NOW, World, make_world

pytestmark = pytest.mark.django_db


@pytest.fixture
def world(db) -> World:
    return make_world()


@pytest.fixture
def sent(monkeypatch) -> list[tuple[str, dict[str, Any]]]:
    """What would reach the broker, in order."""
    messages: list[tuple[str, dict[str, Any]]] = []
    for task in (tasks.expand, tasks.import_recipients):
        monkeypatch.setattr(
            task,
            "apply_async",
            lambda kwargs, name=task.name, **_: messages.append((name, kwargs)),
        )
    monkeypatch.setattr(mailer_tasks, "kick", lambda: messages.append(("kick", {})))
    return messages


def test_nothing_is_published_before_the_commit(sent, django_capture_on_commit_callbacks) -> None:
    with django_capture_on_commit_callbacks(execute=True), transaction.atomic():
        tasks.publish(Next(7, expands=True, dispatches=True))
        assert sent == []

    assert sent == [("campaigns.expand", {"mailing_id": 7}), ("kick", {})]


def test_a_broker_that_is_gone_does_not_undo_a_launch(
    monkeypatch, django_capture_on_commit_callbacks
) -> None:
    def gone(*_: object, **__: object) -> None:
        raise OperationalError("connection refused")

    monkeypatch.setattr(tasks.expand, "apply_async", gone)
    monkeypatch.setattr(mailer_tasks, "kick", gone)
    with django_capture_on_commit_callbacks(execute=True) as callbacks:
        tasks.publish(Next(7, expands=True, dispatches=True))

    assert len(callbacks) == 2


def test_the_expand_task_expands_and_has_dispatch_look_after_every_page(world, sent) -> None:
    people = [world.recipient(f"a{n}@b.example") for n in range(3)]
    campaign = world.campaign(world.list("R", *people))
    mailing_id = launch.launch(campaign.pk, actor="ann", now=NOW).mailing_id
    tasks.expand(mailing_id=mailing_id, argument_of_a_newer_version=1)

    assert account.account_of(mailing_id).states["waiting"] == 3
    assert sent == [("kick", {})]


def test_an_expansion_that_needs_longer_is_published_again(
    world, sent, monkeypatch, django_capture_on_commit_callbacks
) -> None:
    monkeypatch.setattr(tasks, "EXPAND_BUDGET_SECONDS", 0.0)
    monkeypatch.setattr(expansion, "FIRST_PAGE", 2)
    people = [world.recipient(f"a{n}@b.example") for n in range(3)]
    campaign = world.campaign(world.list("R", *people))
    mailing_id = launch.launch(campaign.pk, actor="ann", now=NOW).mailing_id
    with django_capture_on_commit_callbacks(execute=True):
        tasks.expand(mailing_id=mailing_id)

    assert sent == [("kick", {}), ("campaigns.expand", {"mailing_id": mailing_id})]
    assert Campaign.objects.get().expand_published_at > NOW


def test_settling_revives_what_stands_still(
    world, sent, tmp_path, django_capture_on_commit_callbacks
) -> None:
    campaign = world.campaign(world.list("R", world.recipient("a@b.example")))
    mailing_id = launch.launch(campaign.pk, actor="ann", now=NOW).mailing_id
    path = tmp_path / "people.csv"
    path.write_text("email\nb@b.example\n")
    run = imports.start(campaign.lists.get(), path, file_name="people.csv")
    Import.objects.update(started_at=timezone.now() - timezone.timedelta(minutes=1))
    with django_capture_on_commit_callbacks(execute=True):
        tasks.settle()

    assert sent == [
        ("campaigns.expand", {"mailing_id": mailing_id}),
        ("campaigns.import_recipients", {"import_id": run.pk}),
    ]


def test_the_import_task_imports(world, tmp_path) -> None:
    path = tmp_path / "people.csv"
    path.write_text("email\nb@b.example\n")
    run = imports.start(world.list(), path, file_name="people.csv")
    tasks.import_recipients(import_id=run.pk)

    assert Recipient.objects.get().address == "b@b.example"


def test_beat_settles_by_a_task_and_a_queue_that_exist() -> None:
    entry = PeriodicTask.objects.get(task="campaigns.settle")

    assert entry.enabled
    assert (entry.interval.every, entry.interval.period) == (5, "seconds")
    assert entry.task in app.tasks
    assert entry.queue in {queue.name for queue in app.conf.task_queues}


def test_the_entry_of_beat_can_be_taken_away_again() -> None:
    from importlib import import_module

    from django.apps import apps

    migration = import_module("campaigns.migrations.0003_settle_every_five_seconds")
    migration.remove(apps, None)
    assert not PeriodicTask.objects.filter(task="campaigns.settle").exists()
    migration.add(apps, None)
    migration.add(apps, None)
    assert PeriodicTask.objects.filter(task="campaigns.settle").count() == 1
