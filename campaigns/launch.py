"""A campaign's moves: launch, pause, resume, cancel, finish.

Each is one transaction that moves the campaign by compare-and-set, moves its mailing, and
notes who did it. Of two people who press at once one wins; the other gets `IllegalMove` with
the state as it is now. Never publishes anything: what to publish is returned.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction

from campaigns import audit, preflight
from campaigns.core import lifecycle
from campaigns.core.lifecycle import Event, IllegalMove, State
from campaigns.core.retry_choice import retry_from
from campaigns.models import Campaign, TemplateVersion
from campaigns.preflight import Finding, Severity
from mailer import outbox
from mailer.core.content import InvalidHeader, InvalidTemplate
from mailer.models import Expansion, Mailing

__all__ = [
    "IllegalMove",
    "LaunchRefused",
    "Next",
    "cancel",
    "finish",
    "launch",
    "pause",
    "resume",
]


class LaunchRefused(Exception):
    """Preflight found something that has to be put right first."""

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        self.findings = findings
        blocking = [f"{row.message} {row.advice}" for row in findings if row.is_blocking]
        super().__init__("\n".join(blocking))


@dataclass(frozen=True, slots=True)
class Next:
    """What the caller's shell publishes after the commit. `warnings` are for the person."""

    mailing_id: int
    expands: bool = False  #: campaigns.expand for the mailing
    dispatches: bool = False  #: a dispatch, since messages may wait
    warnings: tuple[Finding, ...] = ()


def launch(campaign_id: int, *, actor: str, now: datetime) -> Next:
    """Freeze the campaign into a mailing and begin. Raises `LaunchRefused` or `IllegalMove`."""
    campaign = _loaded(campaign_id)
    lifecycle.move(campaign.state, Event.LAUNCH)
    findings = preflight.check(campaign)
    if any(finding.is_blocking for finding in findings):
        raise LaunchRefused(findings)
    with transaction.atomic():
        _move(campaign, Event.LAUNCH, launched_at=now, expand_published_at=now)
        mailing = _frozen(campaign, now)
        Campaign.objects.filter(pk=campaign.pk).update(mailing_id=mailing.pk)
        audit.record(
            campaign,
            actor=actor,
            action="campaign.launched",
            mailing=mailing.pk,
            lists=[row.name for row in campaign.lists.all()],
            pool=campaign.pool.name,
            warnings=[dataclasses.asdict(finding) for finding in findings],
        )
    return Next(mailing.pk, expands=True, warnings=findings)


def pause(campaign_id: int, *, actor: str) -> Next:
    """Stop before the next SMTP window of every worker; nothing is lost."""
    campaign = _loaded(campaign_id)
    with transaction.atomic():
        _move(campaign, Event.PAUSE)
        outbox.pause(_mailing_id(campaign))
        audit.record(campaign, actor=actor, action="campaign.paused")
    return Next(_mailing_id(campaign))


def resume(campaign_id: int, *, actor: str, now: datetime) -> Next:
    campaign = _loaded(campaign_id)
    with transaction.atomic():
        _move(campaign, Event.RESUME, expand_published_at=now)
        mailing_id = _mailing_id(campaign)
        outbox.resume(mailing_id)
        audit.record(campaign, actor=actor, action="campaign.resumed")
        is_open = Expansion.objects.filter(mailing_id=mailing_id, done=False).exists()
    return Next(mailing_id, expands=is_open, dispatches=True)


def cancel(campaign_id: int, *, actor: str, now: datetime) -> Next:
    """Cancel for good what is still waiting. What was sent stays in the account.

    The mailing follows after the commit, since a large one takes a while; should this process
    die in between, `settle` does it.
    """
    campaign = _loaded(campaign_id)
    with transaction.atomic():
        _move(campaign, Event.CANCEL, finished_at=now)
        audit.record(campaign, actor=actor, action="campaign.cancelled")
    outbox.cancel(_mailing_id(campaign))
    return Next(_mailing_id(campaign))


def finish(campaign: Campaign, *, actor: str, now: datetime, **detail: Any) -> bool:
    """Note that nothing is left to do; False when somebody else was faster."""
    with transaction.atomic():
        try:
            _move(campaign, Event.FINISH, finished_at=now)
        except IllegalMove:
            return False
        audit.record(campaign, actor=actor, action="campaign.finished", **detail)
    return True


def _loaded(campaign_id: int) -> Campaign:
    return Campaign.objects.select_related("workspace", "template", "pool").get(pk=campaign_id)


def _move(campaign: Campaign, event: Event, **changes: Any) -> None:
    """Move by compare-and-set, or raise `IllegalMove` with the state that is there now."""
    before, after = campaign.state, lifecycle.move(campaign.state, event)
    rows = Campaign.objects.filter(pk=campaign.pk, state=before)
    if not rows.update(state=after, **changes):
        now_there = Campaign.objects.values_list("state", flat=True).get(pk=campaign.pk)
        raise IllegalMove(State(now_there), event)
    campaign.state = after


def _mailing_id(campaign: Campaign) -> int:
    if campaign.mailing_id is None:
        raise LookupError(f"{campaign} is {campaign.state} but has no mailing")
    return campaign.mailing_id


def _frozen(campaign: Campaign, now: datetime) -> Mailing:
    try:
        return _mailing_of(campaign, now)
    except (InvalidTemplate, InvalidHeader) as problem:
        # Edited between the check and now.
        finding = Finding("invalid_template", Severity.BLOCKING, str(problem), "Correct it.")
        raise LaunchRefused((finding,)) from problem


def _mailing_of(campaign: Campaign, now: datetime) -> Mailing:
    version = TemplateVersion.objects.filter(template=campaign.template_id).latest("number")
    content = outbox.freeze_content(
        campaign.workspace,
        subject=version.subject,
        html=version.html,
        text=version.text,
        from_header=campaign.from_header,
        reply_to=campaign.reply_to,
    )
    return outbox.open_mailing(
        campaign.workspace,
        reference=f"campaign:{campaign.pk}",
        name=campaign.name,
        content=content,
        pool=campaign.pool,
        priority=campaign.priority,
        retry=retry_from(campaign.retry_policy),
        unsubscribe_scope=unsubscribe_scope(campaign),
        day=now.date(),
    )


def unsubscribe_scope(campaign: Campaign) -> str:
    """What an unsubscribe from this campaign's mail is about: its list, or, where it has
    several, the campaign, which stands for all of them."""
    list_ids = list(campaign.lists.values_list("pk", flat=True)[:2])
    return f"list:{list_ids[0]}" if len(list_ids) == 1 else f"campaign:{campaign.pk}"
