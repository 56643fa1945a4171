"""Imports: a file goes in, its progress is watched, and what was set aside can be fetched."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db import models
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.urls import reverse
from django.utils.html import format_html
from unfold.decorators import display
from unfold.widgets import UnfoldAdminFileFieldWidget

from campaigns import imports, tasks, uploads
from campaigns.import_report import ImportRefused
from campaigns.models import Import, ImportState, UpdateMode
from deliverability.admin.scope import SameWorkspaceForm, ScopedAdmin, WorkspaceFilter
from deliverability.models import Role

CHIPS = {"waiting": "info", "running": "warning", "finished": "success", "failed": "danger"}
_SHOWN_ROWS = 50
#: A spreadsheet takes a cell that begins so for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class UploadForm(SameWorkspaceForm):
    class Meta:
        labels = {"mode": "Fields of people who are there already", "list": "Add to the list"}

    file = forms.FileField(
        label="File",
        widget=UnfoldAdminFileFieldWidget(),
        help_text="CSV with a header; one column is the address, the others become merge fields.",
    )
    kept: Path | None = None

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        if not self.errors:
            self._keep(data)
        return data

    def _keep(self, data: dict[str, Any]) -> None:
        """Put the file aside and look at its beginning, so that a wrong one is refused at once."""
        try:
            self.kept = uploads.keep(data["file"].chunks())
        except uploads.UploadFailed as problem:
            self.add_error("file", str(problem))
            return
        try:
            imports.examine(self.kept, self.options())
        except ImportRefused as problem:
            uploads.discard(self.kept)
            self.add_error("file", str(problem).replace(str(self.kept), "The file"))
        except BaseException:
            uploads.discard(self.kept)  # nobody else will: it is people's data
            raise

    def options(self) -> imports.Options:
        data = self.cleaned_data
        return imports.Options(
            data.get("encoding", ""), data.get("delimiter", ""), UpdateMode(data["mode"])
        )


@admin.register(Import)
class ImportAdmin(ScopedAdmin):
    workspace_lookup = "workspace"
    list_display = (
        "file_name",
        "list",
        "state_chip",
        "how_far",
        "created",
        "updated",
        "rejected",
        "started_by",
        "started_at",
    )
    list_select_related = ("list", "started_by")
    list_filter = ("state", WorkspaceFilter)
    search_fields = ("file_name",)
    autocomplete_fields = ("list",)
    sortable_by = ()
    change_form_template = "admin/campaigns/import/change_form.html"
    empty_title = "Nothing was imported yet"
    empty_text = "Upload a CSV file: people are added to a list, and those who left it stay away."
    fields = (
        "list",
        "mode",
        "not_resubscribed",
        "started_by",
        "started_at",
        "finished_at",
    )

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return (
                (None, {"fields": ("list", "file", "mode")}),
                ("If the file is read wrongly", {"fields": ("encoding", "delimiter")}),
            )
        return super().get_fieldsets(request, obj)

    def get_form(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        if obj is None:
            kwargs["form"] = UploadForm
        return super().get_form(request, obj, **kwargs)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.fields if obj else ()

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # the history says where people came from

    @display(description="state", label=CHIPS)
    def state_chip(self, obj: Import) -> str:
        return obj.state

    @display(description="read")
    def how_far(self, obj: Import) -> str:
        share = 100 if obj.state == ImportState.FINISHED else _percent(obj)
        return format_html(
            '<span class="pr-bar"><span style="width:{}%"></span></span>'
            '<span class="pr-bar-words">{} rows</span>',
            share,
            f"{obj.rows:,}",
        )

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        if form.kept is None:
            raise forms.ValidationError("There is no file.")
        run = imports.start(
            form.cleaned_data["list"],
            form.kept,
            file_name=Path(form.cleaned_data["file"].name).name,
            options=form.options(),
            by=request.user,
        )
        obj.__dict__.update(run.__dict__)
        tasks.publish_import(run.pk)

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        extra = {"show_save_and_add_another": False, "show_save_and_continue": False}
        return super().add_view(request, form_url, {**extra, **(extra_context or {})})

    def response_add(
        self, request: HttpRequest, obj: Any, post_url_continue: Any = None
    ) -> HttpResponse:
        """To its own page: the file only begins to be read."""
        messages.info(request, f"{obj.file_name} is being read. This page shows how far it is.")
        return HttpResponseRedirect(reverse("admin:campaigns_import_change", args=[obj.pk]))

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        run = self.get_object(request, object_id)
        extra = {**(extra_context or {}), "show_close": True}
        if run is not None:
            extra |= {
                "run": run,
                "is_running": run.state in (ImportState.WAITING, ImportState.RUNNING),
                "percent": 100 if run.state == ImportState.FINISHED else _percent(run),
                "rejected_rows": list(run.rejected_rows.all()[:_SHOWN_ROWS]),
                "shown_rows": _SHOWN_ROWS,
                "chip": CHIPS[run.state],
            }
        return super().change_view(request, object_id, form_url, extra)

    def get_custom_urls(self) -> tuple[tuple[str, str, Any], ...]:
        return (("<path:object_id>/rejected/", "campaigns_import_rejected", self.rejected_page),)

    def rejected_page(self, request: HttpRequest, object_id: str, **_: Any) -> HttpResponse:
        """The rows that were set aside, each with its line and its reason, as CSV."""
        run = self.found(request, object_id, Role.VIEWER)
        response = StreamingHttpResponse(
            _csv(run.rejected_rows.all()), content_type="text/csv; charset=utf-8"
        )
        response["Content-Disposition"] = f'attachment; filename="rejected-{run.pk}.csv"'
        return response


def _percent(run: Import) -> int:
    return min(99, round(100 * run.read_bytes / run.size_bytes)) if run.size_bytes else 0


def _csv(rows: models.QuerySet[Any]) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["line", "reason", "row"])
    for line, reason, raw in rows.values_list("line", "reason", "raw").iterator():
        writer.writerow([line, _harmless(reason), _harmless(raw)])
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue()


def _harmless(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell
