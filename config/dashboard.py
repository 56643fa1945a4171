"""The admin's first page: what is being sent, what came of it today, and what waits for whom.

A fixed number of small queries; everything is limited to the user's workspaces.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import connection, models
from django.http import HttpRequest
from django.utils import timezone
from django_celery_beat.models import PeriodicTask

from campaigns.admin import live
from campaigns.core.lifecycle import State
from campaigns.models import Campaign, List, Template
from deliverability.admin.scope import workspace_ids
from deliverability.models import Hold, Role, Tally
from mailer.account import accounts_of
from mailer.admin.engine import PRIORITIES
from mailer.models import WorkerJournal

_BEAT_LATE = timedelta(seconds=60)


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    workspaces = None
    if not request.user.is_superuser:
        workspaces = sorted(workspace_ids(request, Role.VIEWER))
    operates = bool(request.user.is_superuser or workspace_ids(request, Role.OPERATOR))
    queue = _queue(workspaces)
    context |= {
        "title": "Overview",
        "sending": _sending(workspaces),
        "recent": _campaigns(workspaces, State.FINISHED, State.DRAFT)[:5],
        "today": _today(workspaces),
        "queue": queue,
        "queued": sum(row["messages"] for row in queue),
        "holds": _holds(workspaces),
        "may_stop": operates,
        "workers": _workers() if operates else None,
        "beat": _beat() if operates else None,
        "steps": _first_steps(workspaces),
        "has_workspace": workspaces is None or bool(workspaces),
    }
    return context


def _mine(rows: models.QuerySet[Any], workspaces: list[int] | None) -> models.QuerySet[Any]:
    return rows if workspaces is None else rows.filter(workspace_id__in=workspaces)


def _campaigns(workspaces: list[int] | None, *states: State) -> models.QuerySet[Any]:
    return _mine(Campaign.objects.filter(state__in=states), workspaces).order_by("-pk")


def _sending(workspaces: list[int] | None) -> list[dict[str, Any]]:
    rows = list(_campaigns(workspaces, State.SENDING, State.PAUSED)[:10])
    accounts = accounts_of([row.mailing_id for row in rows if row.mailing_id])
    found = []
    for row in rows:
        seen = live.seen_in_list(row, accounts.get(row.mailing_id or 0))
        found.append(
            {
                "campaign": row,
                "seen": seen,
                "percent": round(100 * seen.share_settled, 1),
                "chip": live.STATE_LABELS[State(row.state)],
            }
        )
    return found


def _today(workspaces: list[int] | None) -> dict[str, int]:
    midnight = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    rows = _mine(Tally.objects.filter(hour__gte=midnight), workspaces)
    totals = dict(rows.values_list("outcome").annotate(total=models.Sum("count")).order_by())
    later = sum(totals.get(name, 0) for name in ("deferred", "throttled", "unreached"))
    return {
        "delivered": totals.get("accepted", 0),
        "refused": totals.get("rejected", 0),
        "later": later,
        "in_doubt": totals.get("in_doubt", 0),
    }


def _queue(workspaces: list[int] | None) -> list[dict[str, Any]]:
    """Open batches by priority; `due` counts those that wait for a time to come."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT b.priority, count(*), coalesce(sum(cardinality(b.ids)), 0)::bigint,
                   count(*) FILTER (WHERE b.state = 'taken'),
                   count(*) FILTER (WHERE b.due_at > now()), min(b.created_at)
            FROM mailer_batch b JOIN mailer_mailing m ON m.id = b.mailing_id
            WHERE b.state <> 'done'
              AND (%(workspaces)s::bigint[] IS NULL OR m.workspace_id = ANY(%(workspaces)s))
            GROUP BY b.priority ORDER BY b.priority DESC
            """,
            {"workspaces": workspaces},
        )
        names = ("priority", "batches", "messages", "taken", "due", "oldest")
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return [{**row, "priority": PRIORITIES.get(row["priority"], "?")} for row in rows]


def _holds(workspaces: list[int] | None) -> list[Hold]:
    rows = Hold.objects.filter(released_at__isnull=True).select_related("workspace")
    if workspaces is not None:
        mine = models.Q(workspace__isnull=True) | models.Q(workspace__in=workspaces)
        rows = rows.filter(mine)
    return list(rows[:10])


def _workers() -> dict[str, Any]:
    """Open journals: processes that send, or that died and were not yet settled."""
    return WorkerJournal.objects.filter(ended_at__isnull=True).aggregate(
        n=models.Count("id"),
        hosts=models.Count("host", distinct=True),
        since=models.Min("opened_at"),
    )


def _beat() -> dict[str, Any]:
    last = PeriodicTask.objects.filter(enabled=True).aggregate(at=models.Max("last_run_at"))["at"]
    is_late = last is None or timezone.now() - last > _BEAT_LATE
    return {"last": last, "is_late": is_late}


def _first_steps(workspaces: list[int] | None) -> list[dict[str, Any]]:
    """What somebody new does first; empty once there is a campaign."""
    if _mine(Campaign.objects.all(), workspaces).exists():
        return []
    return [
        {
            "title": "Make a list and import people",
            "url": "admin:campaigns_list_add",
            "is_done": _mine(List.objects.all(), workspaces).exists(),
        },
        {
            "title": "Write a template",
            "url": "admin:campaigns_template_add",
            "is_done": _mine(Template.objects.all(), workspaces).exists(),
        },
        {
            "title": "Create a campaign, and send it to the sandbox first",
            "url": "admin:campaigns_campaign_add",
            "is_done": False,
        },
    ]
