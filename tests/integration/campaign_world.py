"""A small world for tests of campaigns: one workspace that is ready to launch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from campaigns.core.addresses import parse_address
from campaigns.models import Campaign, List, Recipient, Subscription, Template
from deliverability.models import Pool, Source, Workspace

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
HTML = '<p>Hello {{ first_name | default("there") }}</p><a href="{{ unsubscribe_url }}">out</a>'


@dataclass
class World:
    workspace: Workspace
    pool: Pool
    template: Template

    def list(self, name: str = "Readers", *people: Recipient) -> List:
        made = List.objects.create(workspace=self.workspace, name=name)
        self.subscribe(made, people)
        return made

    def recipient(self, address: str, **attributes: str) -> Recipient:
        parsed = parse_address(address)
        return Recipient.objects.create(
            workspace=self.workspace,
            address=parsed.address,
            address_key=parsed.key,
            domain=parsed.domain,
            attributes=attributes,
        )

    def subscribe(self, to: List, people: Iterable[Recipient], state: str = "subscribed") -> None:
        Subscription.objects.bulk_create(
            Subscription(list=to, recipient=person, state=state) for person in people
        )

    def campaign(self, *lists: List, **changes: object) -> Campaign:
        given = {"name": "Spring", "from_header": "Acme News <news@acme.example>", **changes}
        campaign = Campaign.objects.create(
            **{
                "workspace": self.workspace,
                "template": self.template,
                "pool": self.pool,
                **given,
            }
        )
        campaign.lists.set(lists)
        return campaign


def make_world(slug: str = "acme") -> World:
    workspace = Workspace.objects.create(slug=slug, name=f"{slug.title()} & Co")
    pool = Pool.objects.create(workspace=workspace, name="Main")
    Source.objects.create(pool=pool, name=f"{slug}-1", helo_name=f"mta1.{slug}.example")
    template = Template.objects.create(workspace=workspace, name="Newsletter")
    template.add_version(subject="News", html=HTML)
    return World(workspace, pool, template)
