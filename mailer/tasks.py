"""What Celery runs of the mailer. Each task makes one call and publishes what comes back."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import UTC, datetime

from celery import shared_task
from kombu import Queue

from mailer import conservation, delivery, dispatch, outbox, rescue, routing, upkeep
from mailer.models import Batch


def publish(publications: Iterable[dispatch.Publication]) -> None:
    """Publish batches, after the transaction that marked them. What cannot be published is
    unmarked, for the next dispatch."""
    left = list(publications)
    try:
        while left:
            one = left[0]
            task = route_batch if one.needs_route else deliver_batch
            task.apply_async(kwargs={"batch_id": one.batch_id}, queue=Queue(one.queue))
            left.pop(0)
    finally:
        if left:
            Batch.objects.filter(pk__in=[one.batch_id for one in left], state="untaken").update(
                published_at=None
            )


def kick() -> None:
    """Have dispatch look for work."""
    dispatch_due.apply_async()


def submit(request: outbox.Request) -> outbox.Accepted:
    """Accept a transactional message and publish it. Call it outside of any transaction."""
    accepted = outbox.submit(request, now=datetime.now(UTC))
    publish(accepted.publications)
    return accepted


@shared_task(name="mailer.deliver_batch")
def deliver_batch(*, batch_id: int, **_: object) -> None:
    """Deliver one batch. Safe to run twice: only the first run takes the batch."""
    if delivery.deliver(batch_id):
        kick()


@shared_task(name="mailer.route_batch")
def route_batch(*, batch_id: int, **_: object) -> None:
    """Find the providers of a batch's recipients and lay it anew."""
    if routing.route_batch(batch_id, now=datetime.now(UTC)):
        kick()


@shared_task(name="mailer.dispatch", send_events=False)
def dispatch_due(**_: object) -> None:
    """Hand waiting batches to the workers."""
    publish(dispatch.dispatch(now=datetime.now(UTC), turn=random.randrange(1 << 16)))


@shared_task(name="mailer.tick", send_events=False)
def tick(**_: object) -> None:
    """Beat's safety net: due messages, lost publications, leftovers; then dispatch."""
    now = datetime.now(UTC)
    upkeep.lay_due(now=now)
    upkeep.republish(now=now)
    upkeep.sweep_cancelled()
    publish(dispatch.dispatch(now=now, turn=random.randrange(1 << 16)))
    upkeep.finish_mailings(now=now)


@shared_task(name="mailer.clean")
def clean(**_: object) -> None:
    upkeep.clean(now=datetime.now(UTC))


def rescue_and_kick() -> None:
    """Settle what dead workers of this host had taken. Every worker process does so in turn."""
    if rescue.rescue_host().batches:
        kick()


@shared_task(name="mailer.rescue")
def rescue_host(**_: object) -> None:
    rescue_and_kick()


@shared_task(name="mailer.conserve")
def conserve(**_: object) -> None:
    """Recount mailings that changed lately; a law that does not hold is logged as an error."""
    conservation.check_recent()
