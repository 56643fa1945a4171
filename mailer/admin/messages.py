"""Messages: found by id or address, listed for one mailing, and each with its whole life."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from unfold.decorators import display
from unfold.views import ChangeList

from deliverability.admin.large import LargeTable
from deliverability.admin.scope import ReadOnlyAdmin
from mailer.admin.engine import AskFirstChangeList, MailingFilter, OfMailing, visible_mailings
from mailer.core.lifecycle import MessageState
from mailer.models import Mailing, MailingKind, Message
from mailer.trace import trace

CHIPS = {
    "waiting": "info",
    "delivered": "success",
    "bounced": "danger",
    "expired": "danger",
    "suppressed": "warning",
    "cancelled": "warning",
    "in_doubt": "warning",
    "dead": "danger",
}
_SINGLE_MAIL_DAYS = 3
_DAYS_AT_MOST = 1_000


class MessageStateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state.value, state.value.replace("_", " ")) for state in MessageState]

    def queryset(
        self, request: HttpRequest, queryset: models.QuerySet[Any]
    ) -> models.QuerySet[Any] | None:
        return queryset.filter(state=self.value()) if self.value() else None


@admin.register(Message)
class MessageAdmin(OfMailing, LargeTable, ReadOnlyAdmin):
    list_display = ("address", "state_chip", "why", "attempts", "settled_at", "due_at", "id")
    list_filter = (MailingFilter, MessageStateFilter)
    search_fields = ("id",)
    search_help_text = "A message's number, or a whole address"
    #: The order of the unique key, so that a page is read from it without sorting.
    ordering = ("mailing_day", "mailing_id", "dedup_key")
    change_form_template = "admin/mailer/message/change_form.html"
    empty_title = "Look for a message"
    empty_text = (
        "Search for a whole address or a message's number, or choose a mailing under Filters. "
        "Mail is not listed without either: there may be millions."
    )

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return AskFirstChangeList

    @display(description="state", label=CHIPS)
    def state_chip(self, obj: Message) -> str:
        return obj.state

    @display(description="reason")
    def why(self, obj: Message) -> str:
        return obj.reason.replace("_", " ")

    def get_object(self, request: HttpRequest, object_id: str, from_field: Any = None) -> Any:
        if not object_id.isdecimal() or int(object_id) >= 2**63:
            return None
        return self._by_ids(self.get_queryset(request), [int(object_id)]).first()

    def get_search_results(
        self, request: HttpRequest, queryset: models.QuerySet[Any], search_term: str
    ) -> tuple[models.QuerySet[Any], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        if term.isdecimal() and int(term) < 2**63:
            return self._by_ids(queryset, [int(term)]), False
        if "@" in term:
            return self._by_ids(queryset, self.ids_for_address(request, term)), False
        return queryset.none(), False

    def ids_for_address(self, request: HttpRequest, address: str) -> Sequence[int]:
        """Messages that were asked for singly: those mailings are small, and the last days do."""
        recent = timezone.now().date() - timedelta(days=_SINGLE_MAIL_DAYS)
        mailings = visible_mailings(request).filter(kind=MailingKind.TRANSACTIONAL, day__gte=recent)
        found: list[int] = []
        for mailing_id, day in mailings.values_list("pk", "day").order_by("-pk")[:50]:
            rows = Message.objects.filter(mailing_day=day, mailing_id=mailing_id, address=address)
            found += rows.values_list("pk", flat=True)[:50]
        return found

    @staticmethod
    def _by_ids(rows: models.QuerySet[Any], ids: Sequence[int]) -> models.QuerySet[Any]:
        """By number; with the days there are, since the key of every partition begins with one."""
        days = Mailing.objects.order_by("-day").values_list("day", flat=True).distinct()
        return rows.filter(mailing_day__in=list(days[:_DAYS_AT_MOST]), pk__in=list(ids))

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        message = self.get_object(request, object_id)
        extra = {**(extra_context or {}), "show_close": True}
        if message is not None:
            found = trace(message.pk)
            extra |= {
                "title": f"Message to {message.address}",
                "trace": found,
                "chip": CHIPS.get(message.state, ""),
                "host": found["hosts"][0][1] if found["hosts"] else "",
            }
        return super().change_view(request, object_id, form_url, extra)
