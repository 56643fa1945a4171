"""What Celery runs for campaigns, and how it is published: the only file here that knows Celery.

A task that was lost with the broker is found and published again by `campaigns.settle`.
"""

from __future__ import annotations

import logging
from functools import partial

from celery import Task, shared_task
from django.db import transaction
from django.utils import timezone
from kombu.exceptions import OperationalError

from campaigns import expansion, imports
from campaigns.launch import Next
from mailer import tasks as mailer_tasks

_log = logging.getLogger("campaigns.tasks")

EXPAND_BUDGET_SECONDS = 20.0
_STALE_AFTER_SECONDS = 60  #: what beat finds again anyway does not pile up in the queue


@shared_task(name="campaigns.expand")
def expand(*, mailing_id: int, **_: object) -> None:
    """Expand a mailing for a while. Safe to run twice, also at the same time."""
    step = expansion.expand_step(mailing_id, EXPAND_BUDGET_SECONDS, on_page=lambda _page: _kick())
    if step.has_more:
        expansion.note_published(mailing_id, now=timezone.now())
        publish(Next(mailing_id, expands=True))


@shared_task(name="campaigns.settle")
def settle(**_: object) -> None:
    """Finish what is finished and revive what stands still. Safe to run twice or late."""
    found = expansion.settle(now=timezone.now())
    for mailing_id in found.to_expand:
        publish(Next(mailing_id, expands=True))
    for import_id in imports.waiting_imports():
        publish_import(import_id)


@shared_task(name="campaigns.import_recipients")
def import_recipients(*, import_id: int, **_: object) -> None:
    """Carry out an import. Run twice, the second run finds nothing to do."""
    imports.run_import(import_id)


def publish(next_: Next) -> None:
    """Publish what a move asked for, once it has committed."""
    if next_.expands:
        _on_commit(expand, mailing_id=next_.mailing_id)
    if next_.dispatches:
        transaction.on_commit(_kick)


def publish_import(import_id: int) -> None:
    _on_commit(import_recipients, import_id=import_id)


def _kick() -> None:
    try:
        mailer_tasks.kick()
    except OperationalError as problem:
        _log.warning("campaigns.kick.failed: %s", problem)  # beat dispatches too


def _on_commit(task: Task, **ids: int) -> None:
    transaction.on_commit(partial(_send, task, ids))


def _send(task: Task, ids: dict[str, int]) -> None:
    try:
        task.apply_async(kwargs=ids, expires=_STALE_AFTER_SECONDS)
    except OperationalError as problem:
        _log.warning("campaigns.publish.failed task=%s ids=%s: %s", task.name, ids, problem)
