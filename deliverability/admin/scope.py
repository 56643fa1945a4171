"""The base of every admin page: nobody sees or changes anything of another workspace.

Decides from memberships alone (`workspaces_for`), never from Django's model permissions: rows,
choices of form fields, autocompletion, filters and actions are all limited in one place here.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import models
from django.http import Http404, HttpRequest
from unfold.admin import ModelAdmin, TabularInline
from unfold.views import ChangeList

from deliverability.models import Role, Workspace, workspaces_for


def workspace_ids(request: HttpRequest, role: Any) -> frozenset[int]:
    """The workspaces in which the user has at least `role`; asked once per request."""
    known: dict[Any, frozenset[int]] = request.__dict__.setdefault("_workspace_ids", {})
    if role not in known:
        rows = workspaces_for(request.user, role).order_by().values_list("pk", flat=True)
        known[role] = frozenset(rows)
    return known[role]


class SameWorkspaceForm(forms.ModelForm):
    """Refuses to join things of different workspaces, whoever asks."""

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        own = data.get("workspace") or getattr(self.instance, "workspace", None)
        expected = own.pk if own else None
        for name, value in list(data.items()):
            for workspace_id in _workspaces_of(value):
                if expected is None:
                    expected = workspace_id
                elif workspace_id != expected:
                    self.add_error(name, "This belongs to another workspace.")
                    break
        return data


def _workspaces_of(value: object) -> list[int]:
    rows: list[Any] = list(value) if isinstance(value, models.QuerySet) else [value]
    found = [getattr(row, "workspace_id", None) for row in rows if isinstance(row, models.Model)]
    return [workspace_id for workspace_id in found if workspace_id is not None]


class _ScopedFields:
    """Limits what a form may refer to. Shared rows are offered only where a field says so."""

    shared_choices: tuple[str, ...] = ()
    change_role = Role.EDITOR
    admin_site: Any

    def formfield_for_foreignkey(
        self, db_field: Any, request: HttpRequest, **kwargs: Any
    ) -> forms.ModelChoiceField | None:
        kwargs.setdefault("queryset", self._choices(db_field, request))
        field = super().formfield_for_foreignkey(db_field, request, **kwargs)  # type: ignore[misc]
        if field is not None and db_field.related_model is Workspace:
            self._require_workspace(field, request)
        return field

    def formfield_for_manytomany(
        self, db_field: Any, request: HttpRequest, **kwargs: Any
    ) -> forms.ModelMultipleChoiceField | None:
        kwargs.setdefault("queryset", self._choices(db_field, request))
        return super().formfield_for_manytomany(db_field, request, **kwargs)  # type: ignore[misc]

    def _choices(self, db_field: Any, request: HttpRequest) -> models.QuerySet[Any]:
        related = db_field.related_model
        rows: models.QuerySet[Any] = related._default_manager.all()
        if request.user.is_superuser:
            return rows
        related_admin = self.admin_site._registry.get(related)
        if not isinstance(related_admin, ScopedAdmin):
            return rows.none()
        return related_admin.limited(
            request, rows, self.change_role, with_shared=db_field.name in self.shared_choices
        )

    @staticmethod
    def _require_workspace(field: forms.ModelChoiceField, request: HttpRequest) -> None:
        """Only a superuser makes things that belong to no workspace; one choice is no question."""
        if not request.user.is_superuser:
            field.required = True
        if field.required:
            only = list(field.queryset[:2])
            if len(only) == 1:
                field.initial = only[0].pk


class ScopedInline(_ScopedFields, TabularInline):
    """An inline of a page whose own admin has already checked the workspace."""

    view_role = Role.VIEWER
    extra = 0

    def _may(self, request: HttpRequest, role: Any) -> bool:
        return request.user.is_superuser or bool(workspace_ids(request, role))

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, self.view_role)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, self.change_role)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, self.change_role)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, self.change_role)


class CountedOnce(ChangeList):
    """Counts the rows that match, and not once more those that do not."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.full_result_count = self.result_count
        self.result_list: Any = list(self.result_list)


class ScopedAdmin(_ScopedFields, ModelAdmin):
    """`workspace_lookup` is the way from the model to its workspace."""

    form = SameWorkspaceForm
    workspace_lookup = "workspace"
    shows_shared = False  #: rows of no workspace are seen by all, and changed by superusers only
    view_role = Role.VIEWER
    change_role = Role.EDITOR
    delete_role = Role.EDITOR
    empty_title = "Nothing here yet"
    empty_text = ""

    list_per_page = 50
    list_filter_submit = False
    show_facets = admin.ShowFacets.NEVER
    show_full_result_count = False
    change_list_template = "admin/postroad_change_list.html"

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return CountedOnce

    # What can be seen ------------------------------------------------------------------

    def limited(
        self,
        request: HttpRequest,
        rows: models.QuerySet[Any],
        role: Any,
        *,
        with_shared: bool = False,
    ) -> models.QuerySet[Any]:
        """Those of `rows` that lie in workspaces where the user has at least `role`."""
        if request.user.is_superuser:
            return rows
        ids = workspace_ids(request, role)
        mine = models.Q(**{f"{self.workspace_lookup}__in": ids})
        if with_shared and ids:
            mine |= models.Q(**{f"{self.workspace_lookup}__isnull": True})
        return rows.filter(mine)

    def in_workspace(self, rows: models.QuerySet[Any], workspace_id: int) -> models.QuerySet[Any]:
        return rows.filter(**{self.workspace_lookup: workspace_id})

    def workspace_id_of(self, obj: Any) -> int | None:
        *path, last = self.workspace_lookup.split("__")
        for step in path:
            obj = getattr(obj, step)
        workspace_id: int | None = getattr(obj, f"{last}_id")
        return workspace_id

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        rows = super().get_queryset(request)
        return self.limited(request, rows, self.view_role, with_shared=self.shows_shared)

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        """Only what the page offers as a filter can be asked for in its address."""
        offered = {self.model._meta.pk.name if self.model._meta.pk else "id", "workspace"}
        for one in self.get_list_filter(request) if request else self.list_filter:
            if isinstance(one, type):
                offered.add(getattr(one, "parameter_name", ""))
            else:
                offered.add(one[0] if isinstance(one, (list, tuple)) else str(one))
        return lookup.split("__")[0] in offered and super().lookup_allowed(lookup, value, request)

    # What can be done ------------------------------------------------------------------

    def may(self, request: HttpRequest, role: Any, obj: Any = None) -> bool:
        """Say whether the user has at least `role` in the object's workspace, or in any."""
        if request.user.is_superuser:
            return True
        ids = workspace_ids(request, role)
        if obj is None:
            return bool(ids)
        return self.workspace_id_of(obj) in ids

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if obj is not None and self.shows_shared and self.workspace_id_of(obj) is None:
            return self.may(request, self.view_role)
        return self.may(request, self.view_role, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.may(request, self.change_role)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, self.change_role, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, self.delete_role, obj)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.may(request, self.view_role)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Nothing is deleted by the page: tables here hold people and what they agreed to."""
        actions: dict[str, Any] = super().get_actions(request)
        actions.pop("delete_selected", None)
        return actions

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = tuple(super().get_readonly_fields(request, obj))
        has_workspace = any(field.name == "workspace" for field in self.model._meta.fields)
        return (*fields, "workspace") if obj and has_workspace else fields

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[str], dict[str, int], set[str], list[str]]:
        """Name the objects alone: what hangs on them may be millions of rows."""
        rows = list(objs)
        lacking = {
            str(self.opts.verbose_name)
            for row in rows
            if not self.has_delete_permission(request, row)
        }
        names = [f"{str(self.opts.verbose_name).capitalize()}: {row}" for row in rows]
        return names, {str(self.opts.verbose_name_plural): len(rows)}, lacking, []

    def found(self, request: HttpRequest, object_id: str, role: Any) -> Any:
        """The object for a page of its own, or 404; 403 where the role is too small for it."""
        obj = self.get_object(request, object_id)
        if obj is None:
            raise Http404(f"There is no such {self.opts.verbose_name}.")
        if not self.may(request, role, obj) and not (
            role is self.view_role and self.has_view_permission(request, obj)
        ):
            raise PermissionDenied
        return obj


class ReadOnlyAdmin(ScopedAdmin):
    """Nothing can be added, changed or deleted by hand."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class SuperuserLooks:
    """For what belongs to the whole installation: mix in before an admin class."""

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        # Past `limited`, since there is no workspace to limit these rows by.
        rows: models.QuerySet[Any] = self.model._default_manager.all()  # type: ignore[attr-defined]
        ordering = self.get_ordering(request)  # type: ignore[attr-defined]
        rows = rows.order_by(*ordering) if ordering else rows
        return rows if self.has_view_permission(request) else rows.none()

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.is_active and request.user.is_superuser)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)


class SuperuserOnly(SuperuserLooks):
    """As above, and a superuser may change it."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_view_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_view_permission(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_view_permission(request)


class WorkspaceFilter(admin.SimpleListFilter):
    """Offers the user's own workspaces, and only where there is a choice."""

    title = "workspace"
    parameter_name = "workspace"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        rows = workspaces_for(request.user).values_list("pk", "name")[:50]
        return [(str(pk), name) for pk, name in rows] if len(rows) > 1 else []

    def queryset(
        self, request: HttpRequest, queryset: models.QuerySet[Any]
    ) -> models.QuerySet[Any] | None:
        value = self.value()
        if not value or not value.isdecimal():
            return None
        return self.model_admin.in_workspace(queryset, int(value))

    def __init__(self, request: HttpRequest, params: Any, model: Any, model_admin: Any) -> None:
        self.model_admin = model_admin
        super().__init__(request, params, model, model_admin)
