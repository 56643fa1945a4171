"""Prepares everything a first campaign needs, and launches it, through the same code as ever.

Never runs outside of sandbox mode: the invented addresses may belong to real people.
"""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from django.db import transaction

from campaigns import conf, consent, imports, launch
from campaigns.demo import people
from campaigns.imports import Options, Report
from campaigns.launch import Next
from campaigns.models import Campaign, List, Recipient, Template
from deliverability import suppressions
from deliverability.models import Pool, Source, Workspace
from mailer import conf as mailer_conf

ACTOR = "manage.py demo"
_HERE = Path(__file__).parent
_SUBJECT = "{{ first_name | default('Hello') }}, one story, one number, one offer"
_SOURCES = (
    ("demo-1", "127.0.0.21", "mta1.harbour-notes.example"),
    ("demo-2", "127.0.0.22", "mta2.harbour-notes.example"),
)
#: Short waits, so that greylisting and retries can be watched within a minute.
_RETRY = {
    "kind": "exponential",
    "first_delay_seconds": 3,
    "growth_ratio": 1.2,
    "max_delay_seconds": 8,
    "max_age_seconds": 600,
}


class OnlyInSandbox(Exception):
    """The demo was asked for on an installation that sends real mail."""

    def __init__(self) -> None:
        super().__init__(
            "The demo only runs against the sandbox, since its invented addresses may belong to "
            "real people: start with bin/start, or set POSTROAD_SANDBOX=on."
        )


@dataclass(frozen=True, slots=True)
class Demo:
    campaign: Campaign
    next: Next
    report: Report


def prepare_and_launch(count: int, *, seed: int, now: datetime) -> Demo:
    """Prepare what is missing and launch a new campaign of the demo workspace."""
    if not mailer_conf.place().is_sandbox:
        raise OnlyInSandbox
    with transaction.atomic():
        workspace, _ = Workspace.objects.get_or_create(slug="demo", defaults={"name": "Demo"})
        pool = _pool(workspace)
        readers, _ = List.objects.get_or_create(workspace=workspace, name="Harbour Notes readers")
        template = _template(workspace)
    report = _imported(readers, count, seed)
    _exclude_some(readers, now)
    campaign = _campaign(workspace, pool, readers, template)
    next_ = launch.launch(campaign.pk, actor=ACTOR, now=now)
    campaign.refresh_from_db()
    return Demo(campaign, next_, report)


def _pool(workspace: Workspace) -> Pool:
    pool, _ = Pool.objects.get_or_create(workspace=workspace, name="Demo")
    for name, address, helo_name in _SOURCES:
        Source.objects.get_or_create(
            name=name,
            defaults={
                "pool": pool,
                "helo_name": helo_name,
                "source_address": address if _is_bindable(address) else None,
            },
        )
    return pool


def _is_bindable(address: str) -> bool:
    """Linux has all of 127.0.0.0/8, other systems only 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _template(workspace: Workspace) -> Template:
    content = {
        "subject": _SUBJECT,
        "html": (_HERE / "newsletter.html").read_text(encoding="utf-8"),
        "text": (_HERE / "newsletter.txt").read_text(encoding="utf-8"),
    }
    template, _ = Template.objects.get_or_create(workspace=workspace, name="Harbour Notes")
    latest = template.latest
    if latest is None or any(getattr(latest, name) != text for name, text in content.items()):
        template.add_version(**content)
    return template


def _imported(readers: List, count: int, seed: int) -> Report:
    path = conf.folders().demo / "recipients.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(people.csv_text(count, seed=seed), encoding="utf-8", newline="")
    return imports.import_file(path, readers, Options(origin="demo"))


def _exclude_some(readers: List, now: datetime) -> None:
    """Let some of them have unsubscribed, and some be suppressed, before the campaign."""
    workspace = readers.workspace
    for recipient in Recipient.objects.filter(
        workspace=workspace, address_key__in=people.UNSUBSCRIBED
    ):
        consent.unsubscribe(
            consent.Bearer(
                workspace,
                recipient.address,
                recipient.address_key,
                (f"list:{readers.pk}",),
                (readers.pk,),
            ),
            now=now,
            detail="demo",
        )
    for key in people.SUPPRESSED:
        suppressions.suppress(workspace.pk, key, reason="demo", detail="So that it shows.")


def _campaign(workspace: Workspace, pool: Pool, readers: List, template: Template) -> Campaign:
    earlier = Campaign.objects.filter(workspace=workspace, name__regex=r"^Demo( \d+)?$").count()
    campaign = Campaign.objects.create(
        workspace=workspace,
        name=f"Demo {earlier + 1}" if earlier else "Demo",
        template=template,
        from_header="Harbour Notes <news@harbour-notes.example>",
        pool=pool,
        retry_policy=json.dumps(_RETRY, separators=(",", ":")),
    )
    campaign.lists.set([readers])
    return campaign
