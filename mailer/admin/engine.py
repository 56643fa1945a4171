"""Mailings, batches, attempts, routes and journals: bounded reads, nothing editable."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db import models
from django.http import HttpRequest
from unfold.decorators import display
from unfold.views import ChangeList

from deliverability.admin.large import LargeChangeList, LargeTable
from deliverability.admin.scope import (
    ReadOnlyAdmin,
    SuperuserLooks,
    WorkspaceFilter,
    workspace_ids,
)
from deliverability.models import Role
from mailer.account import accounts_of
from mailer.models import Attempt, Batch, Mailing, Route, WorkerJournal

PRIORITIES = {1: "low", 2: "normal", 3: "high", 4: "urgent"}
MAILING_CHIPS = {
    "expanding": "info",
    "running": "warning",
    "paused": "danger",
    "cancelled": "danger",
    "finished": "success",
}
_RECENT = 20


def visible_mailings(request: HttpRequest, role: Any = Role.VIEWER) -> models.QuerySet[Mailing]:
    rows = Mailing.objects.all()
    if request.user.is_superuser:
        return rows
    return rows.filter(workspace_id__in=workspace_ids(request, role))


class OfMailing:
    """For tables that name their mailing by number only: mix in before an admin class."""

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
        return rows.filter(mailing_id__in=visible_mailings(request, role).values("pk"))

    def in_workspace(self, rows: models.QuerySet[Any], workspace_id: int) -> models.QuerySet[Any]:
        mailings = Mailing.objects.filter(workspace_id=workspace_id)
        return rows.filter(mailing_id__in=mailings.values("pk"))

    def workspace_id_of(self, obj: Any) -> int | None:
        rows = Mailing.objects.filter(pk=obj.mailing_id)
        return rows.values_list("workspace_id", flat=True).first()


class MailingFilter(admin.SimpleListFilter):
    """The latest mailings that the user may see, and the one that was asked for."""

    title = "mailing"
    parameter_name = "mailing"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        rows = visible_mailings(request).order_by("-pk")
        found = [(str(row.pk), row.name) for row in rows.only("pk", "name")[:_RECENT]]
        asked = request.GET.get(self.parameter_name, "")
        if asked.isdecimal() and asked not in dict(found):
            found += [(asked, row.name) for row in rows.filter(pk=asked)]
        return found or [("0", "none yet")]

    def queryset(
        self, request: HttpRequest, queryset: models.QuerySet[Any]
    ) -> models.QuerySet[Any] | None:
        value = self.value() or ""
        if not value.isdecimal():
            return None
        mailing = visible_mailings(request).filter(pk=value).first()
        if mailing is None:
            return queryset.none()
        return queryset.filter(mailing_day=mailing.day, mailing_id=mailing.pk)


class AskFirstChangeList(LargeChangeList):
    """Shows nothing until a mailing was chosen or something was searched for."""

    def get_queryset(self, request: HttpRequest, *args: Any, **kwargs: Any) -> models.QuerySet[Any]:
        rows: models.QuerySet[Any] = super().get_queryset(request, *args, **kwargs)
        is_asked = bool(self.query) or "mailing" in self.filter_params
        return rows if is_asked else rows.none()


class MailingChangeList(LargeChangeList):
    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        accounts = accounts_of([row.pk for row in self.result_list])
        for row in self.result_list:
            row.account = accounts[row.pk]


@admin.register(Mailing)
class MailingAdmin(LargeTable, ReadOnlyAdmin):
    list_display = ("name", "kind", "state_chip", "audience", "waiting", "day", "reference")
    list_filter = ("kind", WorkspaceFilter)
    search_fields = ("name", "reference")
    search_help_text = "Name, or reference such as campaign:12"
    ordering = ("-id",)
    fields = (
        "name",
        "workspace",
        "kind",
        "state",
        "reference",
        "day",
        "pool",
        "priority",
        "retry",
        "unsubscribe_scope",
        "created_at",
        "finished_at",
    )
    empty_text = "A mailing is a campaign as the engine sees it: frozen content and its messages."

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return MailingChangeList

    @display(description="state", label=MAILING_CHIPS)
    def state_chip(self, obj: Mailing) -> str:
        return obj.state

    @display(description="messages")
    def audience(self, obj: Any) -> int:
        return obj.account.audience

    @display(description="waiting")
    def waiting(self, obj: Any) -> int:
        return obj.account.states["waiting"]


class BatchStateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("open", "open"), ("taken", "taken by a worker"), ("done", "done")]

    def queryset(
        self, request: HttpRequest, queryset: models.QuerySet[Any]
    ) -> models.QuerySet[Any] | None:
        if self.value() == "open":
            return queryset.exclude(state="done")
        return queryset.filter(state=self.value()) if self.value() else None


@admin.register(Batch)
class BatchAdmin(OfMailing, LargeTable, ReadOnlyAdmin):
    list_display = (
        "id",
        "mailing_id",
        "lane",
        "size",
        "state",
        "why",
        "due_at",
        "host",
        "created_at",
    )
    list_filter = (BatchStateFilter, WorkspaceFilter)
    ordering = ("-id",)
    empty_title = "No batches"
    empty_text = "Messages travel in batches. Done ones are forgotten after a while."

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        rows = super().get_queryset(request)
        size = models.Func(models.F("ids"), function="cardinality", output_field=_NUMBER)
        return rows.annotate(n_messages=size)

    @display(description="lane")
    def lane(self, obj: Batch) -> str:
        return f"{obj.provider or 'not looked up yet'}, {PRIORITIES.get(obj.priority, '?')}"

    @display(description="messages")
    def size(self, obj: Any) -> int:
        return obj.n_messages

    @display(description="waits for")
    def why(self, obj: Batch) -> str:
        return obj.waits_for or "–"


_NUMBER = models.IntegerField()


class OutcomeFilter(admin.SimpleListFilter):
    title = "outcome"
    parameter_name = "outcome"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("not", "not accepted"), ("rejected", "rejected"), ("deferred", "deferred")]

    def queryset(
        self, request: HttpRequest, queryset: models.QuerySet[Any]
    ) -> models.QuerySet[Any] | None:
        if self.value() == "not":
            return queryset.exclude(outcome="accepted")
        return queryset.filter(outcome=self.value()) if self.value() else None


@admin.register(Attempt)
class AttemptAdmin(OfMailing, LargeTable, ReadOnlyAdmin):
    """A row has no page of its own: the message's page shows its attempts."""

    list_display = ("at", "message", "provider", "mx_host", "outcome", "reply_code", "reply_start")
    list_display_links = None
    list_filter = (MailingFilter, OutcomeFilter, WorkspaceFilter)
    empty_title = "Choose a mailing"
    empty_text = "Attempts are shown for one mailing at a time; a message's page shows all of its."

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return AskFirstChangeList

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        """The order of the index that fits: the primary key, or that of what was not accepted."""
        return ("-at",) if request.GET.get("outcome") else ("message_id", "attempt_no")

    @display(description="message")
    def message(self, obj: Attempt) -> str:
        return f"{obj.message_id}, attempt {obj.attempt_no}"

    @display(description="reply")
    def reply_start(self, obj: Attempt) -> str:
        return obj.reply[:120]

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return obj is None and super().has_view_permission(request)

    def get_object(self, request: HttpRequest, object_id: str, from_field: Any = None) -> Any:
        return None  # `message_id` is no key of this table


@admin.register(Route)
class RouteAdmin(SuperuserLooks, LargeTable, ReadOnlyAdmin):
    """Where domains' mail goes. Names domains of everybody's recipients: superusers only."""

    list_display = ("domain", "provider", "state", "first_host", "detail", "resolved_at")
    list_filter = ("state",)
    search_fields = ("domain",)
    search_help_text = "The whole domain"
    ordering = ("domain",)
    empty_text = "The provider behind a domain is looked up when mail for it is made."

    @display(description="MX")
    def first_host(self, obj: Route) -> str:
        return str(obj.hosts[0][1]) if obj.hosts else "–"

    def get_search_results(
        self, request: HttpRequest, queryset: models.QuerySet[Any], search_term: str
    ) -> tuple[models.QuerySet[Any], bool]:
        term = search_term.strip().lower()
        return (queryset.filter(domain=term) if term else queryset), False


@admin.register(WorkerJournal)
class WorkerJournalAdmin(SuperuserLooks, LargeTable, ReadOnlyAdmin):
    list_display = ("host", "pid", "opened_at", "ended_at", "id")
    ordering = (models.F("ended_at").desc(nulls_first=True), "-opened_at")
    empty_title = "No worker has started yet"
    empty_text = "Each worker process that sends mail opens a journal."

    has_add_permission = ReadOnlyAdmin.has_add_permission
    has_change_permission = ReadOnlyAdmin.has_change_permission
    has_delete_permission = ReadOnlyAdmin.has_delete_permission
