"""The door into deliverability after sending: this happened.

`record` runs inside the transaction that records the outcomes, so that counters and
suppressions are exactly as durable as the outcomes themselves. One call per batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from deliverability import suppressions
from deliverability.core.outcome import Action, Scope
from deliverability.models import Tally


@dataclass(frozen=True, slots=True)
class Fact:
    """One outcome, as far as deliverability cares."""

    at: datetime
    source_id: int
    provider: str
    address_key: str
    outcome: str
    reason: str
    scope: Scope
    action: Action
    detail: str  #: the reply, for whoever asks why


def record(workspace_id: int, facts: Iterable[Fact]) -> None:
    """Count the outcomes and suppress whom a reply of recipient scope says to suppress."""
    facts = list(facts)
    _count(workspace_id, facts)
    suppressions.suppress_many(
        workspace_id,
        [
            (fact.address_key, fact.reason, fact.detail)
            for fact in facts
            # A reply about our address, domain or content never suppresses a recipient.
            if fact.action is Action.SUPPRESS and fact.scope is Scope.RECIPIENT
        ],
    )


def _count(workspace_id: int, facts: list[Fact]) -> None:
    counts = Counter(
        (
            fact.at.replace(minute=0, second=0, microsecond=0),
            fact.source_id,
            fact.provider,
            fact.outcome,
            fact.reason,
        )
        for fact in facts
    )
    Tally.objects.bulk_create(
        Tally(
            hour=hour,
            workspace_id=workspace_id,
            source_id=source_id,
            provider=provider,
            outcome=outcome,
            reason=reason,
            count=count,
        )
        for (hour, source_id, provider, outcome, reason), count in counts.items()
    )
