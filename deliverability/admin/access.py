"""Workspaces, who may do what in them, and holds: what was stopped on purpose."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db import models
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST
from unfold.admin import TabularInline
from unfold.decorators import display

from deliverability.admin.scope import ScopedAdmin, SuperuserOnly, WorkspaceFilter
from deliverability.models import Hold, Membership, Role, Workspace


class MembershipInline(SuperuserOnly, TabularInline):
    model = Membership
    extra = 0
    autocomplete_fields = ("user",)


@admin.register(Workspace)
class WorkspaceAdmin(ScopedAdmin):
    workspace_lookup = "pk"
    list_display = ("name", "slug", "created_at")
    search_fields = ("name", "slug")
    prepopulated_fields = {"slug": ("name",)}
    empty_text = (
        "A workspace is a team, a brand or a customer: what belongs to one is not seen by others."
    )

    def workspace_id_of(self, obj: Any) -> int | None:
        return obj.pk

    def get_inlines(self, request: HttpRequest, obj: Any) -> list[Any]:
        return [MembershipInline] if request.user.is_superuser else []

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_superuser)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.is_superuser)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # all mail and everybody's consent would go with it


@admin.register(Membership)
class MembershipAdmin(SuperuserOnly, ScopedAdmin):
    list_display = ("user", "workspace", "role")
    list_select_related = ("user", "workspace")
    list_filter = ("role", WorkspaceFilter)
    search_fields = ("user__username", "workspace__name")
    autocomplete_fields = ("user", "workspace")
    empty_text = (
        "Give a user a role in a workspace: without one, nobody but a superuser sees anything."
    )


@admin.register(Hold)
class HoldAdmin(ScopedAdmin):
    """Stops take effect before the next message of every worker. A superuser stops everything."""

    change_role = Role.OPERATOR
    shows_shared = True
    fields = ("workspace", "reason")
    list_display = ("what", "reason", "held_by", "since", "status")
    list_filter = (WorkspaceFilter,)
    list_select_related = ("workspace",)
    ordering = (models.F("released_at").desc(nulls_first=True), "-since")
    change_form_template = "admin/deliverability/hold/change_form.html"
    empty_title = "Nothing is stopped"
    empty_text = (
        "Sending can be stopped here for a whole workspace, with a reason that everybody sees."
    )

    @display(description="stopped")
    def what(self, obj: Hold) -> str:
        return obj.workspace.name if obj.workspace else "Everything"

    @display(description="state", label={"in force": "danger", "released": "success"})
    def status(self, obj: Hold) -> str:
        return "released" if obj.released_at else "in force"

    def get_form(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, **kwargs)
        if "workspace" in form.base_fields and request.user.is_superuser:
            form.base_fields["workspace"].help_text = "Empty: everything, in all workspaces."
            form.base_fields["workspace"].empty_label = "Everything"
        return form

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Hold, form: Any, change: Any) -> None:
        obj.held_by = request.user.get_username()
        super().save_model(request, obj, form, change)

    def get_custom_urls(self) -> tuple[tuple[str, str, Any], ...]:
        return (("<path:object_id>/release/", "deliverability_hold_release", self.release),)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        hold = self.get_object(request, object_id)
        may = (
            hold is not None and hold.released_at is None and self.may(request, Role.OPERATOR, hold)
        )
        extra = {**(extra_context or {}), "may_release": may, "show_close": True}
        return super().change_view(request, object_id, form_url, extra)

    def release(self, request: HttpRequest, object_id: str, **_: Any) -> HttpResponse:
        return require_POST(self._release)(request, object_id)

    def _release(self, request: HttpRequest, object_id: str) -> HttpResponse:
        hold = self.found(request, object_id, Role.OPERATOR)
        rows = Hold.objects.filter(pk=hold.pk, released_at__isnull=True)
        if rows.update(released_at=timezone.now()):
            self.log_change(request, hold, "Released.")
            messages.success(request, "Released: sending goes on within seconds.")
        return HttpResponseRedirect(reverse("admin:deliverability_hold_changelist"))
