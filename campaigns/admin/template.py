"""Templates. Saving changed content writes the next version; earlier ones stay as they are."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db import models
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_POST
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from campaigns.admin import preview
from campaigns.models import Template, TemplateVersion
from deliverability.admin.scope import SameWorkspaceForm, ScopedAdmin, WorkspaceFilter
from deliverability.models import Role
from mailer.core import content

_PARTS = ("subject", "html", "text")
_CODE = {"spellcheck": "false"}


class CodeWidget(UnfoldAdminTextareaWidget):
    """The theme's text area, in a type for code."""

    def __init__(self, attrs: dict[str, Any]) -> None:
        super().__init__(attrs)
        self.attrs["class"] = f"{self.attrs['class']} pr-code"


class TemplateForm(SameWorkspaceForm):
    subject = forms.CharField(
        max_length=998,
        widget=UnfoldAdminTextInputWidget(),
        help_text="Merge fields work here as well: Hello {{ first_name }}",
    )
    html = forms.CharField(
        label="HTML",
        required=False,
        strip=False,
        widget=CodeWidget(attrs={**_CODE, "rows": 22}),
        help_text="End it with a link to {{ unsubscribe_url }}.",
    )
    text = forms.CharField(
        label="Plain text",
        required=False,
        strip=False,
        widget=CodeWidget(attrs={**_CODE, "rows": 8}),
        help_text="Empty: made from the HTML.",
    )

    class Media:
        js = ("campaigns/preview.js",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.latest = self.instance.latest if self.instance.pk else None
        if self.latest:
            for part in _PARTS:
                self.initial[part] = getattr(self.latest, part)

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        for part in _PARTS:
            if data.get(part):
                # Browsers write line ends of their own; a version should not differ by those.
                data[part] = data[part].replace("\r\n", "\n")
        if not self.errors and not (data["html"].strip() or data["text"].strip()):
            self.add_error("html", "Write HTML or plain text.")
        for part in _PARTS:
            if data.get(part):
                self._check(part, data[part])
        return data

    def _check(self, part: str, written: str) -> None:
        alone: dict[str, Any] = {"subject": "", "html": "", "text": "", part: written}
        if part == "subject":
            alone["text"] = " "
        anybody = content.Mailbox("nobody@example.com")
        try:
            content.compile(content.ContentSource(mailing_id=0, from_header=anybody, **alone))
        except (content.InvalidTemplate, content.InvalidHeader) as problem:
            self.add_error(part, str(problem))

    @property
    def has_new_content(self) -> bool:
        return self.latest is None or any(
            self.cleaned_data.get(part, "") != getattr(self.latest, part).replace("\r\n", "\n")
            for part in _PARTS
        )


@admin.register(Template)
class TemplateAdmin(ScopedAdmin):
    form = TemplateForm
    list_display = ("name", "subject", "version", "workspace", "changed")
    list_select_related = ("workspace",)
    list_filter = (WorkspaceFilter,)
    search_fields = ("name",)
    fieldsets = (
        (None, {"fields": ("workspace", "name")}),
        ("Content", {"fields": _PARTS}),
    )
    change_form_template = "admin/campaigns/template/change_form.html"
    empty_title = "No templates yet"
    empty_text = (
        "A template is what a campaign says. Merge fields such as {{ first_name }} fill in."
    )
    sortable_by = ("name",)

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        latest = TemplateVersion.objects.filter(template=models.OuterRef("pk")).order_by("-number")
        return (
            super()
            .get_queryset(request)
            .annotate(
                subject=models.Subquery(latest.values("subject")[:1]),
                version=models.Subquery(latest.values("number")[:1]),
                changed=models.Subquery(latest.values("created_at")[:1]),
            )
        )

    @display(description="subject")
    def subject(self, obj: Any) -> str:
        return obj.subject or "–"

    @display(description="version")
    def version(self, obj: Any) -> str:
        return f"v{obj.version}" if obj.version else "none yet"

    @display(description="changed")
    def changed(self, obj: Any) -> Any:
        return obj.changed

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if obj is not None and obj.campaigns.exists():
            return False
        return super().has_delete_permission(request, obj)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        super().save_model(request, obj, form, change)
        if form.has_new_content:
            data = form.cleaned_data
            version = obj.add_version(
                subject=data["subject"], html=data["html"], text=data["text"], author=request.user
            )
            messages.info(
                request,
                f"Saved as version {version.number}. Campaigns that were launched keep theirs.",
            )

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        template = self.get_object(request, object_id)
        extra = dict(extra_context or {})
        if template is not None:
            versions = template.versions.select_related("author").defer("html", "text")
            extra |= {"versions": list(versions[:30]), "template_row": template}
        return super().change_view(request, object_id, form_url, extra)

    def get_custom_urls(self) -> tuple[tuple[str, str, Any], ...]:
        return (
            ("<path:object_id>/preview/", "campaigns_template_preview", self.preview_page),
            (
                "<path:object_id>/versions/<int:number>/",
                "campaigns_template_version",
                self.version_page,
            ),
        )

    def preview_page(self, request: HttpRequest, object_id: str, **_: Any) -> HttpResponse:
        """Render what is in the form, saved or not. Writes nothing."""
        return require_POST(self._preview)(request, object_id)

    def _preview(self, request: HttpRequest, object_id: str) -> HttpResponse:
        template = self.found(request, object_id, Role.VIEWER)
        asked = request.POST.get("recipient", "")
        recipient = preview.sample_recipient(template.workspace_id, asked)
        if asked.strip() and recipient is None:
            return JsonResponse({"error": "No recipient of this workspace has this address."})
        written = {part: request.POST.get(part, "").replace("\r\n", "\n") for part in _PARTS}
        shown = preview.show(**written, recipient=recipient)
        return JsonResponse(
            {
                "to": shown.to,
                "subject": shown.subject,
                "html": shown.html,
                "text": shown.text,
                "error": shown.error,
            }
        )

    def version_page(
        self, request: HttpRequest, object_id: str, number: int, **_: Any
    ) -> HttpResponse:
        """An earlier version as it looked, in a page that can do nothing."""
        template = self.found(request, object_id, Role.VIEWER)
        version = template.versions.filter(number=number).first()
        if version is None:
            raise Http404("There is no such version.")
        shown = preview.show(
            subject=version.subject,
            html=version.html,
            text=version.text,
            recipient=preview.sample_recipient(template.workspace_id),
        )
        return preview.as_document(shown)
