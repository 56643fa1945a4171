"""Turns a campaign's audience into messages, page by page, inside PostgreSQL.

Decides who belongs to the audience: everybody who is subscribed to at least one of the
campaign's lists; who is on them but not subscribed to any is counted as an exclusion. Copies
only those merge fields into a message that the content uses. Each page is one transaction
with its cursor, so that a step may die, run twice or run in parallel: no page is taken twice
and none is left out. Suppressions are the mailer's to add.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection

from campaigns import launch
from campaigns.core.lifecycle import State
from campaigns.models import Campaign
from mailer import outbox
from mailer.models import Expansion, Mailing
from mailer.outbox import MailingNotOpen, PageReport

PAGE = 10_000
FIRST_PAGE = 1_000  #: a small one, so that the first mail goes out at once
STALLED_AFTER = timedelta(seconds=30)

# The n smallest recipients of each list are enough to know the n smallest of all, and with
# them every row of theirs: a recipient's rank within one list is never above that in all.
AUDIENCE_SQL = """
SELECT r.id AS recipient_id, r.address, r.address_key, r.domain,
       CASE WHEN %(fields)s::text[] IS NULL THEN r.attributes
            ELSE coalesce((SELECT jsonb_object_agg(f, r.attributes -> f)
                           FROM unnest(%(fields)s::text[]) AS f WHERE r.attributes ? f), '{}')
       END AS context,
       seen.exclusion
FROM (
    SELECT s.recipient_id,
           CASE WHEN bool_or(s.state = 'subscribed') THEN NULL
                WHEN bool_or(s.state = 'unconfirmed') THEN 'unconfirmed'
                ELSE 'unsubscribed' END AS exclusion
    FROM unnest(%(lists)s::bigint[]) AS l(id)
    CROSS JOIN LATERAL (
        SELECT recipient_id, state FROM campaigns_subscription
        WHERE list_id = l.id AND recipient_id > %(cursor)s
        ORDER BY recipient_id LIMIT %(page)s) s
    GROUP BY s.recipient_id ORDER BY s.recipient_id LIMIT %(page)s) seen
CROSS JOIN LATERAL (  -- by index, one by one: never a scan of all recipients for a page
    SELECT * FROM campaigns_recipient WHERE id = seen.recipient_id OFFSET 0) r
ORDER BY recipient_id
"""


@dataclass(frozen=True, slots=True)
class Step:
    """What a step came to. `has_more`: publish another one."""

    mailing_id: int
    has_more: bool
    added: int = 0


def expand_step(
    mailing_id: int,
    budget_seconds: float,
    *,
    on_page: Callable[[PageReport], None] = lambda _page: None,
    page: int = PAGE,
) -> Step:
    """Expand until the audience is through or the budget is spent.

    `on_page` is told of every page once it has committed.
    """
    mailing = Mailing.objects.select_related("content").filter(pk=mailing_id).first()
    campaign = Campaign.objects.filter(mailing_id=mailing_id).first()
    if mailing is None or campaign is None:
        return Step(mailing_id, has_more=False)
    params = _params(mailing, campaign)
    until = time.monotonic() + budget_seconds
    size, added = min(FIRST_PAGE, page), 0
    while True:
        try:
            report = outbox.accept_page(mailing, AUDIENCE_SQL, params, page=size)
        except MailingNotOpen:
            return Step(mailing_id, has_more=False, added=added)
        added += report.added
        on_page(report)
        if report.done:
            return Step(mailing_id, has_more=False, added=added)
        if time.monotonic() >= until:
            return Step(mailing_id, has_more=True, added=added)
        size = page


def note_published(mailing_id: int, *, now: datetime) -> None:
    """Note that the expansion was handed to a worker, so that `settle` waits before doing so."""
    Campaign.objects.filter(mailing_id=mailing_id).update(expand_published_at=now)


@dataclass(frozen=True, slots=True)
class Settled:
    """What `settle` found. `to_expand`: mailings whose expansion is to be published again."""

    finished: tuple[int, ...]
    to_expand: tuple[int, ...]


def settle(*, now: datetime) -> Settled:
    """Finish campaigns whose mailing is finished; find expansions that stand still.

    May run late, twice or in parallel: every change is a compare-and-set.
    """
    _carry_out_cancellations()
    finished = tuple(
        campaign.pk
        for campaign in _whose_mailing_is("finished", State.SENDING, State.PAUSED)
        if launch.finish(campaign, actor="campaigns.settle", now=now)
    )
    return Settled(finished, _claim_stalled(now))


def _whose_mailing_is(mailing_state: str, *states: State) -> list[Campaign]:
    open_ones = list(Campaign.objects.filter(state__in=states, mailing_id__isnull=False))
    ids = Mailing.objects.filter(
        pk__in=[row.mailing_id for row in open_ones], state=mailing_state
    ).values_list("pk", flat=True)
    return [row for row in open_ones if row.mailing_id in set(ids)]


def _carry_out_cancellations() -> None:
    """A process that died while it cancelled leaves a mailing that is still open."""
    open_mailings = Mailing.objects.exclude(state__in=["cancelled", "finished"])
    cancelled = Campaign.objects.filter(
        state=State.CANCELLED, mailing_id__in=list(open_mailings.values_list("pk", flat=True))
    )
    for mailing_id in cancelled.values_list("mailing_id", flat=True):
        outbox.cancel(mailing_id)


def _claim_stalled(now: datetime) -> tuple[int, ...]:
    """Expansions that nobody was handed for a while; each is claimed by one caller only."""
    waiting = Expansion.objects.filter(done=False).exclude(
        mailing__state__in=["cancelled", "finished"]
    )
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE campaigns_campaign SET expand_published_at = %(now)s
            WHERE mailing_id = ANY(%(ids)s) AND state IN ('sending', 'paused')
              AND (expand_published_at IS NULL OR expand_published_at <= %(before)s)
            RETURNING mailing_id
            """,
            {
                "now": now,
                "before": now - STALLED_AFTER,
                "ids": list(waiting.values_list("mailing_id", flat=True)),
            },
        )
        return tuple(row[0] for row in cursor.fetchall())


def _params(mailing: Mailing, campaign: Campaign) -> dict[str, object]:
    content = mailing.content
    return {
        "lists": list(campaign.lists.values_list("pk", flat=True)),
        "fields": None if content is None or content.fields is None else list(content.fields),
    }
