"""Who did what: writes one row for every sending action, in the action's own transaction."""

from __future__ import annotations

from typing import Any

from campaigns.models import AuditEntry, Campaign


def record(campaign: Campaign, *, actor: str, action: str, **detail: Any) -> None:
    """Note that `actor` (a user's name, a command, a rule) did `action` to the campaign."""
    AuditEntry.objects.create(
        workspace_id=campaign.workspace_id,
        actor=actor[:200],
        action=action,
        subject=f"campaign {campaign.pk}: {campaign.name}"[:300],
        detail=detail,
    )
