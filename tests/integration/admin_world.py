"""Two workspaces with one of everything, for the tests of the admin."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from django.contrib.auth.models import User
from django.db import models
from django.test import Client
from django_celery_beat.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    SolarSchedule,
)

from campaigns.models import (
    AuditEntry,
    Campaign,
    Import,
    List,
    Recipient,
    RejectedRow,
    Subscription,
    Template,
)
from deliverability.models import (
    Hold,
    Membership,
    Pool,
    Role,
    Source,
    Suppression,
    Tally,
    Workspace,
)
from mailer import account, partitions
from mailer.models import Attempt, Batch, Expansion, Mailing, Message, Route, WorkerJournal

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
DAY = NOW.date()


@dataclass
class Tenant:
    """Everything of one workspace. `mark` is part of every text, so that a leak is seen."""

    mark: str
    workspace: Workspace
    pool: Pool
    source: Source
    list: List
    recipient: Recipient
    template: Template
    draft: Campaign
    sending: Campaign
    mailing: Mailing
    message: Message
    objects: dict[type[models.Model], Any] = field(default_factory=dict)


def person(name: str, *, superuser: bool = False) -> User:
    user = User(username=name, is_staff=True, is_superuser=superuser)
    user.set_unusable_password()
    user.save()
    return user


def member(tenant: Tenant, role: Role) -> User:
    user = person(f"{role}-of-{tenant.workspace.slug}")
    Membership.objects.create(workspace=tenant.workspace, user=user, role=role)
    return user


def signed_in(user: User, **options: Any) -> Client:
    client = Client(**options)
    client.force_login(user)
    return client


def tenant(mark: str, *, reply: str = "550 no such user", mailing_name: str = "") -> Tenant:
    """One workspace with one of each, all of them named with `mark`."""
    workspace = Workspace.objects.create(name=f"{mark} workspace", slug=mark.lower())
    pool = Pool.objects.create(workspace=workspace, name=f"{mark} pool")
    source = Source.objects.create(pool=pool, name=f"{mark}-source", helo_name=f"{mark}.example")
    people = List.objects.create(workspace=workspace, name=f"{mark} list")
    address = f"{mark}@example.com"
    recipient = Recipient.objects.create(
        workspace=workspace,
        address=address,
        address_key=address.lower(),
        domain="example.com",
        attributes={"first_name": mark},
    )
    subscription = Subscription.objects.create(list=people, recipient=recipient, origin=mark)
    template = Template.objects.create(workspace=workspace, name=f"{mark} template")
    template.add_version(subject=f"{mark} subject", html="<p>Hi {{ first_name }}</p>")
    draft = campaign(workspace, people, template, pool, f"{mark} draft")
    sending = campaign(workspace, people, template, pool, mailing_name or f"{mark} sending")
    mailing, message, attempt, batch = engine_rows(sending, recipient, source, reply)
    imported = Import.objects.create(
        workspace=workspace, list=people, file_name=f"{mark}.csv", state="finished", rejected=1
    )
    RejectedRow.objects.create(import_run=imported, line=2, reason=mark, raw=f"{mark}(at)example")
    made = Tenant(
        mark,
        workspace,
        pool,
        source,
        people,
        recipient,
        template,
        draft,
        sending,
        mailing,
        message,
    )
    made.objects = {
        Workspace: workspace,
        Pool: pool,
        Source: source,
        List: people,
        Recipient: recipient,
        Subscription: subscription,
        Template: template,
        Campaign: draft,
        Mailing: mailing,
        Message: message,
        Attempt: attempt,
        Batch: batch,
        Import: imported,
        AuditEntry: AuditEntry.objects.create(
            workspace=workspace, actor=mark, action="campaign.launched", subject=f"{mark} entry"
        ),
        Hold: Hold.objects.create(
            workspace=workspace, reason=f"{mark} reason", held_by=mark, released_at=NOW
        ),
        Suppression: Suppression.objects.create(
            workspace=workspace, address_key=f"gone-{mark.lower()}@example.com", reason=mark
        ),
        Tally: Tally.objects.create(
            hour=NOW,
            workspace_id=workspace.pk,
            source_id=source.pk,
            provider=f"{mark}-provider",
            outcome="accepted",
            reason="",
            count=1,
        ),
        Membership: Membership.objects.create(
            workspace=workspace, user=person(f"{mark}-colleague"), role=Role.VIEWER
        ),
    }
    return made


def campaign(
    workspace: Workspace, people: List, template: Template, pool: Pool, name: str
) -> Campaign:
    made = Campaign.objects.create(
        workspace=workspace,
        name=name,
        template=template,
        pool=pool,
        from_header="News <news@example.com>",
    )
    made.lists.set([people])
    return made


def engine_rows(
    campaign: Campaign, recipient: Recipient, source: Source, reply: str
) -> tuple[Mailing, Message, Attempt, Batch]:
    """What the engine would have written for a campaign that is being sent, one refusal in."""
    partitions.ensure(DAY)
    mailing = Mailing.objects.create(
        workspace=campaign.workspace,
        day=DAY,
        kind="campaign",
        reference=f"campaign:{campaign.pk}",
        name=campaign.name,
        state="running",
        pool=campaign.pool,
        priority=2,
        retry={},
    )
    Expansion.objects.create(mailing=mailing, matched=3, excluded={"unsubscribed": 1}, done=True)
    message = Message.objects.create(
        mailing_day=DAY,
        mailing_id=mailing.pk,
        dedup_key=str(recipient.pk),
        recipient_id=recipient.pk,
        address=recipient.address,
        recipient_domain=recipient.domain,
        state="bounced",
        attempts=1,
        reason="no_such_user",
        queued_at=NOW,
        settled_at=NOW,
    )
    attempt = Attempt.objects.create(
        mailing_day=DAY,
        message_id=message.pk,
        attempt_no=1,
        mailing_id=mailing.pk,
        batch_id=1,
        at=NOW,
        source_id=source.pk,
        provider="gmail",
        mx_host=f"mx.{source.helo_name}"[:255],
        outcome="rejected",
        phase="rcpt",
        reply_code=550,
        enhanced="5.1.1",
        reply=reply,
        reason="no_such_user",
        scope="recipient",
        rule="",
    )
    batch = Batch.objects.create(
        mailing_day=DAY,
        mailing_id=mailing.pk,
        pool_id=campaign.pool_id,
        provider=f"{source.name}-lane",
        priority=2,
        ids=[message.pk + 1],
    )
    account.note(mailing.pk, {"bounced": 1, "waiting": 1, "attempts": 1})
    Campaign.objects.filter(pk=campaign.pk).update(
        state="sending", mailing_id=mailing.pk, launched_at=NOW
    )
    campaign.refresh_from_db()
    return mailing, message, attempt, batch


def installation_wide() -> dict[type[models.Model], Any]:
    """What belongs to no workspace: for superusers only."""
    interval = IntervalSchedule.objects.create(every=97, period="days")
    return {
        User: person("SYSTEMONLY-user"),
        Route: Route.objects.create(
            domain="systemonly.example",
            state="resolved",
            provider="other",
            resolved_at=NOW,
            expires_at=NOW,
        ),
        WorkerJournal: WorkerJournal.objects.create(id=uuid.uuid4(), host="SYSTEMONLY", pid=1),
        IntervalSchedule: interval,
        PeriodicTask: PeriodicTask.objects.create(
            name="SYSTEMONLY task", task="campaigns.settle", interval=interval
        ),
        CrontabSchedule: CrontabSchedule.objects.create(minute="7"),
        ClockedSchedule: ClockedSchedule.objects.create(clocked_time=NOW),
        SolarSchedule: SolarSchedule.objects.create(event="dusk", latitude=1, longitude=1),
    }
