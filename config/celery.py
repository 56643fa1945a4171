"""Celery's application: queues, and the settings that make Redis a safe broker for mail.

A task carries the id of a batch; PostgreSQL holds the work. So a lost task is published
again and a task delivered twice finds its batch taken: nothing here has to be exactly-once.
Waiting is a `due_at` column: no task is ever published with a countdown or an eta.
"""

from __future__ import annotations

import atexit
import os
from typing import Any

# A worker's SIGTERM becomes a soft shutdown: running batches end, the rest goes back.
os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

from celery import Celery
from celery.signals import (
    celeryd_after_setup,
    worker_init,
    worker_ready,
    worker_shutting_down,
)
from django.conf import settings
from kombu import Queue
from kombu.transport import TRANSPORT_ALIASES

DELIVERY_QUEUES = ("deliver.high", "deliver.normal", "deliver.low")
QUEUES = ("deliver.urgent", *DELIVERY_QUEUES, "dispatch", "expand", "feedback", "upkeep")

# Longer than three times the longest task (a batch ends after five minutes at the latest,
# see mailer/conf.py), or Redis would hand a running task to a second worker.
VISIBILITY_TIMEOUT_SECONDS = settings.POSTROAD_VISIBILITY_SECONDS

TRANSPORT_ALIASES.update(redis="config.broker:Transport", rediss="config.broker:Transport")

app = Celery("postroad")
app.conf.update(
    broker_url=settings.REDIS_URL,
    broker_transport_options={
        "visibility_timeout": VISIBILITY_TIMEOUT_SECONDS,
        # Strict order among the queues of one worker, in the order of its -Q.
        "queue_order_strategy": "priority",
        "unacked_restore_interval": min(15, max(1, VISIBILITY_TIMEOUT_SECONDS // 4)),
        "unacked_restore_throttle": 1,
        "socket_timeout": 30,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 25,
    },
    visibility_timeout=VISIBILITY_TIMEOUT_SECONDS,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    result_backend=None,
    task_ignore_result=True,
    task_serializer="json",
    accept_content=["json"],
    task_queues=[Queue(name) for name in QUEUES],
    task_default_queue="upkeep",
    # Batches are published to the queue of their priority; everything else goes by its name.
    task_routes={
        "mailer.dispatch": {"queue": "dispatch"},
        "mailer.tick": {"queue": "dispatch"},
        "mailer.route_batch": {"queue": "dispatch"},
        "campaigns.expand": {"queue": "expand"},
    },
    task_create_missing_queues=False,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    # On Redis an ack survives a reconnect; cancelling would leave tasks unacked for long.
    worker_cancel_long_running_tasks_on_connection_loss=False,
    # Celery sleeps so long whatever happens. A batch gives back what is not on the wire within a
    # second; replies that are due then are awaited at the process's exit, see _end_runtime.
    worker_soft_shutdown_timeout=3,
    # There is no eta that an idle worker would have to keep: it may go at once.
    worker_enable_soft_shutdown_on_idle=False,
    worker_send_task_events=True,
    task_send_sent_event=False,
    worker_hijack_root_logger=False,
    timezone="UTC",
    enable_utc=True,
    beat_scheduler="django_celery_beat.schedulers:DatabaseScheduler",
    beat_max_loop_interval=5,
    # When an entry last ran is what tells that beat is alive: written down soon, not every 3 min.
    beat_sync_every=5,
)
app.autodiscover_tasks()


@celeryd_after_setup.connect
def _consume_for_this_host(instance: Any, **_: object) -> None:
    """Beside each delivery queue consume the one of this host: mail from its own addresses.

    In the order of -Q, with the host's queue behind the general one of the same priority.
    """
    queues = instance.app.amqp.queues
    consumed: list[str] = []
    for name in list(queues.consume_from):
        consumed.append(name)
        if name.startswith("deliver."):
            consumed.append(f"{name}@{settings.POSTROAD_HOST}")
            queues.add(Queue(consumed[-1]))
    queues.select(consumed)


@worker_ready.connect
def _look_after_this_host(**_: object) -> None:
    """Rescue what dead workers of this host left; release slots of cold connections."""
    from mailer import delivery, runtime, tasks

    runtime.every(runtime.RESCUE_SECONDS, tasks.rescue_and_kick, name="mailer.rescue")
    runtime.every(5.0, lambda: delivery.slots().release_idle(), name="mailer.slots")


@worker_shutting_down.connect
def _stop_feeding(**_: object) -> None:
    from mailer import runtime

    runtime.stop_feeding()


@worker_init.connect
def _end_runtime(**_: object) -> None:
    """After the last task's thread has ended. Celery sends no worker_shutdown when the shutdown
    is a soft or cold one."""
    from mailer import runtime

    atexit.register(runtime.shut_down)
