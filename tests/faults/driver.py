"""What a person or a program does to Postroad, done on a stage: one JSON line for each deed.

Runs as a process of its own with the stage's settings, because the tests' process has others:

    {"do": "launch", "campaign_id": 3}   ->   {"told": 17}
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any

#: Every kind of recipient that a campaign meets, in these shares of twenty.
#: Addresses are new for each campaign, since whoever bounced is suppressed in the next one.
_AUDIENCE_SQL = """
    INSERT INTO campaigns_recipient (workspace_id, address, address_key, domain, attributes)
    SELECT %(workspace)s, a.address, a.address, split_part(a.address, '@', 2),
           jsonb_build_object('first_name', 'José ' || n)
    FROM generate_series(1, %(count)s) n, LATERAL (SELECT CASE n %% 20
        WHEN 0 THEN 'unknown-' || n || %(tag)s || '@gmail.com'
        WHEN 1 THEN 'tempfail-1-' || n || %(tag)s || '@outlook.com'
        WHEN 2 THEN 'tempfail-data-1-' || n || %(tag)s || '@yahoo.com'
        WHEN 3 THEN 'u' || n || %(tag)s || '@corp.example'
        WHEN 4 THEN 'slow-1-' || n || %(tag)s || '@icloud.com'
        WHEN 5 THEN 'ratelimit-1-' || n || %(tag)s || '@icloud.com'
        ELSE 'u' || n || %(tag)s || '@' || (ARRAY['gmail.com', 'outlook.com', 'yahoo.com',
            'icloud.com', 'shop.example', 'slow.example', 'slow.example'])[1 + n %% 7]
        END AS address) a
"""
_SUBSCRIPTIONS_SQL = """
    INSERT INTO campaigns_subscription (list_id, recipient_id, state, origin)
    SELECT %(list)s, id, 'subscribed', 'test' FROM campaigns_recipient
    WHERE workspace_id = %(workspace)s AND address LIKE '%%' || %(tag)s || '@%%'
"""
#: Deferred messages come back after a second, for as long as it takes.
RETRY = '{"kind": "ladder", "delays_seconds": [1], "repeats_last": true, "jitter_ratio": 0}'


def create(tag: str, count: int, priority: int = 2, **limits: int) -> int:
    """A campaign to `count` new recipients, from a source of its own where it has limits."""
    from django.db import connection

    from campaigns.models import Campaign, List, Template
    from deliverability.models import Pool, Source, Workspace

    workspace, _ = Workspace.objects.get_or_create(slug="stage", defaults={"name": "Stage"})
    template, is_new = Template.objects.get_or_create(workspace=workspace, name="Letter")
    if is_new:
        template.add_version(
            subject="For {{ first_name }}",
            html="<p>Hello {{ first_name }}</p><a href='{{ unsubscribe_url }}'>Unsubscribe</a>",
            text="Hello {{ first_name }}\n{{ unsubscribe_url }}",
        )
    name = tag if limits else "everything"
    pool, _ = Pool.objects.get_or_create(workspace=workspace, name=name)
    Source.objects.get_or_create(
        pool=pool, name=f"source of {name}", defaults={"helo_name": "stage.example", **limits}
    )
    audience = List.objects.create(workspace=workspace, name=f"List {tag}")
    with connection.cursor() as cursor:
        of = {"workspace": workspace.pk, "list": audience.pk, "tag": f"-{tag}", "count": count}
        cursor.execute(_AUDIENCE_SQL, of)
        cursor.execute(_SUBSCRIPTIONS_SQL, of)
    campaign = Campaign.objects.create(
        workspace=workspace,
        name=f"Campaign {tag}",
        template=template,
        pool=pool,
        priority=priority,
        retry_policy=RETRY,
        from_header="Stage <news@send.example>",
    )
    campaign.lists.add(audience)
    return campaign.pk


def launch(campaign_id: int) -> int:
    from campaigns import launch as moves
    from campaigns import tasks

    next_ = moves.launch(campaign_id, actor="test", now=datetime.now(UTC))
    tasks.publish(next_)
    return next_.mailing_id


def steer(campaign_id: int, move: str) -> None:
    """Pause, resume or cancel."""
    from campaigns import launch as moves
    from campaigns import tasks

    when = {} if move == "pause" else {"now": datetime.now(UTC)}
    tasks.publish(getattr(moves, move)(campaign_id, actor="test", **when))


def submit(address: str, key: str) -> int:
    """One urgent message, by the way that applications take."""
    from deliverability.models import Pool, Workspace
    from mailer import outbox, tasks

    workspace = Workspace.objects.get(slug="stage")
    content = outbox.freeze_content(
        workspace,
        subject="Your code",
        html="<p>1234</p>",
        text="1234",
        from_header="Stage <codes@send.example>",
    )
    pool = Pool.objects.get(workspace=workspace, name="everything")
    return tasks.submit(
        outbox.Request(workspace.pk, pool.pk, content.pk, dedup_key=key, address=address)
    ).message_id


def message_state(message_id: int) -> str:
    from mailer.models import Message

    return Message.objects.get(pk=message_id).state


def account(mailing_id: int) -> dict[str, Any]:
    from mailer import account as accounts

    return accounts.account_of(mailing_id).to_json()


def recount(mailing_id: int) -> list[str]:
    """Violations of the conservation law, in words."""
    from mailer import account as accounts

    return accounts.recount(mailing_id).broken


def status(campaign_id: int) -> dict[str, Any]:
    """What the campaign's page and command show."""
    from campaigns import progress
    from campaigns.models import Campaign

    return progress.of(Campaign.objects.get(pk=campaign_id), now=datetime.now(UTC)).to_json()


def states(mailing_id: int) -> dict[str, str]:
    """The state of each message, by its address."""
    from mailer.models import Message

    return dict(Message.objects.filter(mailing_id=mailing_id).values_list("address", "state"))


def attempts(mailing_id: int) -> int:
    from mailer.models import Attempt

    return Attempt.objects.filter(mailing_id=mailing_id).count()


def batches(mailing_id: int, state: str) -> list[int]:
    from mailer.models import Batch

    found = Batch.objects.filter(mailing_id=mailing_id, state=state)
    return list(found.order_by("id").values_list("id", flat=True))


def taken_by_pid() -> dict[str, int]:
    """How many batches each process holds."""
    from collections import Counter

    from mailer.models import Batch, WorkerJournal

    journals = Batch.objects.filter(state="taken").values_list("journal_id", flat=True)
    pids = dict(WorkerJournal.objects.values_list("id", "pid"))
    return dict(Counter(str(pids[journal]) for journal in journals))


def slot_pids() -> list[int]:
    """Processes that hold slots for connections; 0 for one whose journal has ended."""
    from deliverability.models import ConnectionSlot
    from mailer.models import WorkerJournal

    alive = dict(WorkerJournal.objects.filter(ended_at__isnull=True).values_list("id", "pid"))
    return [
        alive.get(one, 0) for one in ConnectionSlot.objects.values_list("journal_id", flat=True)
    ]


def open_journals_of(pid: int) -> int:
    from mailer.models import WorkerJournal

    return WorkerJournal.objects.filter(pid=pid, ended_at__isnull=True).count()


def room(campaign_id: int) -> int:
    """How many messages the campaign's source may send to Gmail now."""
    from campaigns.models import Campaign
    from deliverability import gate

    source = Campaign.objects.get(pk=campaign_id).pool.sources.get()
    path = gate.Path(source.pk, "gmail")
    return gate.room([path], 1_000, now=datetime.now(UTC))[path].count


def publish_again(batch_ids: list[int], times: int) -> None:
    """Publish the tasks of batches again and again, as a broker may that delivers at least once."""
    from mailer.tasks import deliver_batch

    for _ in range(times):
        for batch_id in batch_ids:
            deliver_batch.apply_async(kwargs={"batch_id": batch_id}, queue="deliver.normal")


def unacknowledged() -> int:
    """Tasks that a worker has and did not acknowledge yet."""
    from config.celery import app

    with app.connection_for_read() as connection:
        return int(connection.default_channel.client.hlen("unacked"))


def flush_broker() -> None:
    from config.celery import app

    with app.connection_for_read() as connection:
        connection.default_channel.client.flushall()


DEEDS = {
    deed.__name__: deed
    for deed in (
        *(create, launch, steer, submit, message_state, account, recount, status, states),
        *(attempts, batches, taken_by_pid, slot_pids, publish_again, unacknowledged),
        *(flush_broker, open_journals_of, room),
    )
}


def main() -> None:
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import close_old_connections

    call_command("migrate", verbosity=0, skip_checks=True)
    print(json.dumps({"told": "ready"}), flush=True)
    for line in sys.stdin:
        wanted = json.loads(line)
        close_old_connections()
        try:
            answer = {"told": DEEDS[wanted.pop("do")](**wanted)}
        except Exception as error:
            answer = {"failed": repr(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
