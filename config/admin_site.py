"""What frames every admin page: the side bar, and links to the tools beside the admin."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse

from deliverability.admin.scope import workspace_ids
from deliverability.models import Role


def stylesheet(_request: HttpRequest) -> str:
    return static("campaigns/admin.css")


def icon(_request: HttpRequest) -> str:
    return static("campaigns/icon.svg")


def links(_request: HttpRequest) -> dict[str, str]:
    """Known to every admin template; empty where there is no such tool."""
    return {
        "flower_url": settings.POSTROAD_FLOWER_URL,
        "sandbox_url": settings.POSTROAD_SANDBOX_URL.rstrip("/"),
    }


def environment(_request: HttpRequest) -> list[str] | None:
    return ["Sandbox", "warning"] if settings.POSTROAD_SANDBOX else None


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """By what people want: to market, to look after sending, to run the installation."""
    is_superuser = request.user.is_superuser
    may_look = is_superuser or bool(workspace_ids(request, Role.VIEWER))
    groups: list[dict[str, Any]] = [
        {"items": [_item("Overview", "space_dashboard", "admin:index")]},
    ]
    if may_look:
        groups += [_MARKETING, _SENDING]
    if is_superuser:
        groups.append(_SYSTEM)
    return [{**group, "items": [_resolved(one) for one in group["items"]]} for group in groups]


def _item(title: str, icon: str, name: str) -> dict[str, str]:
    return {"title": title, "icon": icon, "name": name}


def _resolved(item: dict[str, str]) -> dict[str, str]:
    return {"title": item["title"], "icon": item["icon"], "link": reverse(item["name"])}


_MARKETING = {
    "title": "Marketing",
    "items": [
        _item("Campaigns", "campaign", "admin:campaigns_campaign_changelist"),
        _item("Templates", "article", "admin:campaigns_template_changelist"),
        _item("Lists", "format_list_bulleted", "admin:campaigns_list_changelist"),
        _item("Recipients", "group", "admin:campaigns_recipient_changelist"),
        _item("Subscriptions", "how_to_reg", "admin:campaigns_subscription_changelist"),
        _item("Imports", "upload_file", "admin:campaigns_import_changelist"),
        _item("Suppressions", "block", "admin:deliverability_suppression_changelist"),
        _item("Who did what", "history", "admin:campaigns_auditentry_changelist"),
    ],
}
_SENDING = {
    "title": "Sending",
    "separator": True,
    "items": [
        _item("Find a message", "search", "admin:mailer_message_changelist"),
        _item("Mailings", "outbox", "admin:mailer_mailing_changelist"),
        _item("Batches", "inventory_2", "admin:mailer_batch_changelist"),
        _item("Attempts", "swap_horiz", "admin:mailer_attempt_changelist"),
        _item("Pools", "hub", "admin:deliverability_pool_changelist"),
        _item("Sources", "dns", "admin:deliverability_source_changelist"),
        _item("What came of it", "query_stats", "admin:deliverability_tally_changelist"),
        _item("Stops", "front_hand", "admin:deliverability_hold_changelist"),
    ],
}
_SYSTEM = {
    "title": "System",
    "separator": True,
    "items": [
        _item("Workspaces", "workspaces", "admin:deliverability_workspace_changelist"),
        _item("Memberships", "badge", "admin:deliverability_membership_changelist"),
        _item("Users", "person", "admin:auth_user_changelist"),
        _item("Schedule (beat)", "schedule", "admin:django_celery_beat_periodictask_changelist"),
        _item("Workers", "memory", "admin:mailer_workerjournal_changelist"),
        _item("Routes", "alt_route", "admin:mailer_route_changelist"),
    ],
}
