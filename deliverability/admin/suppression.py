"""Who we will not send to. Entries are added and removed, never edited: they are evidence."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.core.validators import validate_email
from django.db import models
from django.http import HttpRequest
from unfold.decorators import display

from deliverability import suppressions
from deliverability.admin.large import LargeTable
from deliverability.admin.scope import SameWorkspaceForm, ScopedAdmin, WorkspaceFilter
from deliverability.models import EVERYTHING, Role, Suppression


class SuppressionForm(SameWorkspaceForm):
    def clean_address_key(self) -> str:
        key = str(self.cleaned_data["address_key"]).strip().lower()
        validate_email(key)
        return key

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        if data.get("workspace") and data.get("address_key"):
            known = Suppression.objects.filter(
                workspace=data["workspace"], address_key=data["address_key"], scope=EVERYTHING
            )
            if known.exists():
                raise forms.ValidationError("This address is suppressed already.")
        return data


@admin.register(Suppression)
class SuppressionAdmin(LargeTable, ScopedAdmin):
    form = SuppressionForm
    delete_role = Role.OPERATOR
    list_display = ("address_key", "reason", "extent", "detail", "until", "created_at")
    list_filter = (WorkspaceFilter,)
    search_fields = ("address_key",)
    search_help_text = "The whole address"
    ordering = ("-id",)
    fields = ("workspace", "address_key", "reason", "detail", "until")
    empty_title = "Nobody is suppressed here"
    empty_text = (
        "Addresses that bounced for good, complained or unsubscribed appear here by themselves. "
        "Search wants the whole address."
    )

    @display(description="no mail of")
    def extent(self, obj: Suppression) -> str:
        return "the whole workspace" if obj.scope == EVERYTHING else obj.scope.replace(":", " ")

    def get_search_results(
        self, request: HttpRequest, queryset: models.QuerySet[Any], search_term: str
    ) -> tuple[models.QuerySet[Any], bool]:
        if not search_term:
            return queryset, False
        return queryset.filter(address_key=search_term.strip().lower()), False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Suppression, form: Any, change: Any) -> None:
        suppressions.suppress(
            obj.workspace_id,
            obj.address_key,
            reason=obj.reason,
            detail=obj.detail or f"added by {request.user.get_username()}",
            until=obj.until,
        )
        stored = Suppression.objects.get(
            workspace=obj.workspace, address_key=obj.address_key, scope=EVERYTHING
        )
        obj.__dict__.update(stored.__dict__)
