"""Recipients, lists, and who is subscribed to what: tables of millions, searched and not leafed."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from unfold.decorators import action, display
from unfold.views import ChangeList

from campaigns import consent
from campaigns.admin import life
from campaigns.admin.list_counts import subscribed_counts
from campaigns.core.addresses import InvalidAddress, parse_address
from campaigns.models import List, Recipient, Subscription
from deliverability.admin.large import LargeTable
from deliverability.admin.scope import (
    CountedOnce,
    SameWorkspaceForm,
    ScopedAdmin,
    ScopedInline,
    WorkspaceFilter,
    workspace_ids,
)
from deliverability.models import Role

CHIPS = {"subscribed": "success", "unconfirmed": "warning", "unsubscribed": "danger"}


class RecipientForm(SameWorkspaceForm):
    class Meta:
        labels = {"attributes": "Merge fields"}
        help_texts = {"address": "", "attributes": 'As JSON, such as {"first_name": "Ada"}.'}

    def clean_address(self) -> str:
        try:
            self.parsed = parse_address(self.cleaned_data["address"])
        except InvalidAddress as problem:
            raise forms.ValidationError(str(problem)) from problem
        return self.parsed.address

    def clean_attributes(self) -> dict[str, Any]:
        fields = self.cleaned_data["attributes"]
        if not isinstance(fields, dict):
            raise forms.ValidationError('Write merge fields as {"first_name": "Ada"}.')
        return fields

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        workspace = data.get("workspace") or getattr(self.instance, "workspace", None)
        if workspace and data.get("address"):
            same = Recipient.objects.filter(workspace=workspace, address_key=self.parsed.key)
            if same.exclude(pk=self.instance.pk).exists():
                self.add_error("address", "This address is there already.")
            self.instance.address_key = self.parsed.key
            self.instance.domain = self.parsed.domain
        return data


class SubscriptionInline(ScopedInline):
    """A person is added to a list here; leaving one is done in Subscriptions, with its trace."""

    model = Subscription
    fields = ("list", "state", "origin", "changed_at")
    readonly_fields = ("state", "origin", "changed_at")
    autocomplete_fields = ("list",)
    can_delete = False
    verbose_name_plural = "lists"

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        return super().get_queryset(request).select_related("list").order_by("list__name")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Recipient)
class RecipientAdmin(LargeTable, ScopedAdmin):
    form = RecipientForm
    list_display = ("address", "fields_short", "workspace", "created_at")
    list_select_related = ("workspace",)
    list_filter = (WorkspaceFilter,)
    search_fields = ("address_key",)
    search_help_text = "The whole address, or how it begins"
    ordering = ("-id",)
    inlines = (SubscriptionInline,)
    fields = ("workspace", "address", "attributes")
    change_form_outer_after_template = "admin/campaigns/recipient/life.html"
    empty_title = "No recipients found"
    empty_text = "Import a file of recipients into a list, or look for the whole address."

    @display(description="merge fields")
    def fields_short(self, obj: Recipient) -> str:
        parts = [f"{key}: {value}" for key, value in list(obj.attributes.items())[:3]]
        return ", ".join(parts)[:80]

    def get_search_results(
        self, request: HttpRequest, queryset: models.QuerySet[Any], search_term: str
    ) -> tuple[models.QuerySet[Any], bool]:
        term = search_term.strip().lower()
        if not term:
            return queryset, False
        if "@" in term:
            return queryset.filter(address_key=term), False
        return queryset.filter(address_key__startswith=term), False

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        recipient = self.get_object(request, object_id)
        extra = dict(extra_context or {})
        if recipient is not None:
            extra["messages_sent"] = life.messages_to(recipient)
            extra["suppressions"] = life.suppressions_of(recipient)
        return super().change_view(request, object_id, form_url, extra)

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: Any) -> None:
        for row in formset.save(commit=False):
            row.state = "subscribed"
            row.origin = f"added by {request.user.get_username()}"[:200]
            if row.list.workspace_id == form.instance.workspace_id:
                row.save()
            else:
                messages.error(request, f"{row.list}: this list belongs to another workspace.")
        formset.save_m2m()


class ListChangeList(CountedOnce):
    """Counts the people of the whole page at once, and not further than is cheap."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        counts = subscribed_counts([row.pk for row in self.result_list])
        for row in self.result_list:
            row.people = counts[row.pk]


@admin.register(List)
class ListAdmin(ScopedAdmin):
    list_display = ("name", "people", "description", "workspace", "created_at")
    list_select_related = ("workspace",)
    list_filter = (WorkspaceFilter,)
    list_per_page = 25
    search_fields = ("name",)
    fields = ("workspace", "name", "description")
    empty_title = "No lists yet"
    empty_text = (
        "A list holds the people who agreed to hear from you. Make one, then import a file."
    )

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return ListChangeList

    @display(description="subscribed")
    def people(self, obj: Any) -> str:
        return str(obj.people)


class ListFilter(admin.SimpleListFilter):
    """The user's lists, the newest first; a list's own page links here as well."""

    title = "list"
    parameter_name = "list"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        rows = List.objects.order_by("-pk")
        if not request.user.is_superuser:
            rows = rows.filter(workspace__in=workspace_ids(request, Role.VIEWER))
        found = [(str(pk), name) for pk, name in rows.values_list("pk", "name")[:20]]
        asked = request.GET.get(self.parameter_name, "")
        if asked.isdecimal() and asked not in dict(found):
            found += [(asked, row.name) for row in rows.filter(pk=asked)]
        return found

    def queryset(
        self, request: HttpRequest, queryset: models.QuerySet[Any]
    ) -> models.QuerySet[Any] | None:
        value = self.value() or ""
        return queryset.filter(list_id=value) if value.isdecimal() else None


class ConsentFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in CHIPS]

    def queryset(
        self, request: HttpRequest, queryset: models.QuerySet[Any]
    ) -> models.QuerySet[Any] | None:
        return queryset.filter(state=self.value()) if self.value() in CHIPS else None


@admin.register(Subscription)
class SubscriptionAdmin(LargeTable, ScopedAdmin):
    workspace_lookup = "list__workspace"
    list_display = ("recipient", "list", "state_chip", "origin", "changed_at")
    list_select_related = ("recipient", "list")
    list_filter = (ListFilter, ConsentFilter, WorkspaceFilter)
    search_fields = ("recipient__address_key",)
    search_help_text = "The whole address"
    ordering = ("list_id", "recipient_id")
    autocomplete_fields = ("list", "recipient")
    fields = ("list", "recipient", "state", "origin", "changed_at")
    readonly_fields = ("state", "origin", "changed_at")
    actions = ("unsubscribe", "subscribe_again")
    empty_title = "No subscriptions found"
    empty_text = "Choose a list, or search for the whole address."

    @display(description="state", label=CHIPS)
    def state_chip(self, obj: Subscription) -> str:
        return obj.state

    def get_search_results(
        self, request: HttpRequest, queryset: models.QuerySet[Any], search_term: str
    ) -> tuple[models.QuerySet[Any], bool]:
        term = search_term.strip().lower()
        return (queryset.filter(recipient__address_key=term) if term else queryset), False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # it is the record of somebody's consent, or of its end

    def has_edit_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, Role.EDITOR, obj)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        obj.origin = f"added by {request.user.get_username()}"[:200]
        super().save_model(request, obj, form, change)

    @action(description="Unsubscribe", permissions=["edit"])
    def unsubscribe(self, request: HttpRequest, queryset: models.QuerySet[Any]) -> None:
        rows = self._own(request, queryset)
        for row in rows:
            scope = (f"list:{row.list_id}",)
            person = row.recipient
            bearer = consent.Bearer(
                row.list.workspace, person.address, person.address_key, scope, (row.list_id,)
            )
            detail = f"by {request.user.get_username()}"
            consent.unsubscribe(bearer, now=timezone.now(), detail=detail)
        messages.success(request, f"{len(rows)} unsubscribed: nothing more is sent to them.")

    @action(description="Subscribe again, as the person wishes", permissions=["edit"])
    def subscribe_again(self, request: HttpRequest, queryset: models.QuerySet[Any]) -> None:
        rows = self._own(request, queryset)
        origin = f"the person's wish, entered by {request.user.get_username()}"
        for row in rows:
            consent.subscribe(row.recipient, row.list, origin=origin, now=timezone.now())
        messages.success(request, f"{len(rows)} subscribed again.")

    def _own(self, request: HttpRequest, queryset: models.QuerySet[Any]) -> list[Any]:
        """The chosen rows of workspaces in which the user may edit; one page at most."""
        rows = self.limited(request, queryset, Role.EDITOR)
        return list(rows.select_related("list__workspace", "recipient__workspace")[:500])
