"""Tallies: what came of the mail, per source, provider and hour. To look at only."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.contrib import admin
from django.db import models
from django.http import HttpRequest
from django.utils import timezone
from unfold.decorators import display

from deliverability.admin.large import LargeTable
from deliverability.admin.scope import ReadOnlyAdmin, WorkspaceFilter, workspace_ids
from deliverability.core.outcome import OutcomeKind
from deliverability.models import Source, Tally


class OutcomeFilter(admin.SimpleListFilter):
    title = "outcome"
    parameter_name = "outcome"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(kind.value, kind.value.replace("_", " ")) for kind in OutcomeKind]

    def queryset(
        self, request: HttpRequest, queryset: models.QuerySet[Any]
    ) -> models.QuerySet[Any] | None:
        return queryset.filter(outcome=self.value()) if self.value() else None


class RecentFilter(admin.SimpleListFilter):
    title = "time"
    parameter_name = "since"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("1", "the last hour"), ("24", "the last day"), ("168", "the last week")]

    def queryset(
        self, request: HttpRequest, queryset: models.QuerySet[Any]
    ) -> models.QuerySet[Any] | None:
        if self.value() not in {"1", "24", "168"}:
            return None
        return queryset.filter(hour__gte=_hours_ago(int(self.value() or 0)))


def _hours_ago(hours: int) -> datetime:
    return timezone.now() - timedelta(hours=hours)


@admin.register(Tally)
class TallyAdmin(LargeTable, ReadOnlyAdmin):
    workspace_lookup = "workspace_id"
    list_display = ("hour", "source_name", "provider", "outcome", "reason", "count")
    list_filter = (RecentFilter, OutcomeFilter, WorkspaceFilter)
    ordering = ("-id",)
    empty_title = "Nothing was counted yet"
    empty_text = "Here is what came of the mail: for each source, provider and hour."

    def limited(
        self,
        request: HttpRequest,
        rows: models.QuerySet[Any],
        role: Any,
        *,
        with_shared: bool = False,
    ) -> models.QuerySet[Any]:
        if request.user.is_superuser:
            return rows
        return rows.filter(workspace_id__in=workspace_ids(request, role))

    def workspace_id_of(self, obj: Any) -> int | None:
        return obj.workspace_id

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        name = Source.objects.filter(pk=models.OuterRef("source_id")).values("name")[:1]
        return super().get_queryset(request).annotate(source=models.Subquery(name))

    @display(description="source")
    def source_name(self, obj: Any) -> str:
        return obj.source or f"source {obj.source_id}, which is gone"
