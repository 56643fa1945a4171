"""How far a campaign is: its state and the account of its mailing, as people watch it.

Reads only, a few small rows; never counts messages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from campaigns.core.lifecycle import State
from campaigns.models import Campaign
from mailer import account
from mailer.account import STATES, Account

_RATE_WINDOW = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Progress:
    """`settled` counts messages that wait for nothing any more."""

    campaign: int
    name: str
    state: str
    mailing: int | None
    matched: int = 0
    excluded: Mapping[str, int] = field(default_factory=dict)
    audience: int = 0
    states: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(STATES, 0))
    attempts: int = 0
    expanded: bool = False
    settled: bool = False  #: nothing waits any more, and the whole audience is known
    rate_per_minute: int = 0  #: messages settled by sending

    @property
    def settled_count(self) -> int:
        return self.audience - self.states["waiting"]

    @property
    def sent_count(self) -> int:
        """Those that sending has settled, well or badly."""
        return self.settled_count - self.states["cancelled"] - self.states["suppressed"]

    @property
    def share_settled(self) -> float:
        """From 0 to 1; an audience that is not known to its end is not settled."""
        if not self.audience:
            return 1.0 if self.settled else 0.0
        share = self.settled_count / self.audience
        return share if self.expanded else min(share, 0.99)

    @property
    def is_over(self) -> bool:
        """Nothing will happen any more without a person."""
        if self.state == State.CANCELLED:
            return self.states["waiting"] == 0
        return self.settled or self.state in (State.DRAFT, State.FINISHED)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def of(campaign: Campaign, *, now: datetime) -> Progress:
    """The campaign's progress; its rate is the average since the launch."""
    seen = _without_rate(campaign)
    until = campaign.finished_at or now
    seconds = (until - campaign.launched_at).total_seconds() if campaign.launched_at else 0.0
    return replace(seen, rate_per_minute=_per_minute(seen.sent_count, seconds))


class Watch:
    """Looks again and again, and gives the rate of the last minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[datetime, int]] = deque()

    def look(self, campaign: Campaign, *, now: datetime) -> Progress:
        seen = _without_rate(campaign)
        self._seen.append((now, seen.sent_count))
        while now - self._seen[0][0] > _RATE_WINDOW:
            self._seen.popleft()
        since, before = self._seen[0]
        rate = _per_minute(seen.sent_count - before, (now - since).total_seconds())
        return replace(seen, rate_per_minute=rate)


def _per_minute(count: int, seconds: float) -> int:
    return round(60 * count / seconds) if seconds > 0 else 0


def _without_rate(campaign: Campaign) -> Progress:
    seen = Progress(campaign.pk, campaign.name, campaign.state, campaign.mailing_id)
    if campaign.mailing_id is None:
        return seen
    return _with_account(seen, account.account_of(campaign.mailing_id))


def _with_account(seen: Progress, of_mailing: Account) -> Progress:
    return replace(
        seen,
        matched=of_mailing.matched,
        excluded=of_mailing.excluded,
        audience=of_mailing.audience,
        states=of_mailing.states,
        attempts=of_mailing.attempts,
        expanded=of_mailing.is_expanded,
        settled=of_mailing.is_settled,
    )
