"""Campaigns: the list, the draft's form, and what is done to a campaign. Every deed is a POST."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db import connection, models
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import escape, format_html
from unfold.decorators import action, display
from unfold.views import ChangeList

from campaigns.admin import deeds, live, preview
from campaigns.core.lifecycle import Event, State
from campaigns.core.retry_choice import retry_from, retry_in_words
from campaigns.models import Campaign, TemplateVersion
from deliverability.admin.scope import (
    CountedOnce,
    SameWorkspaceForm,
    ScopedAdmin,
    WorkspaceFilter,
)
from deliverability.models import Role
from mailer.account import accounts_of
from mailer.core.content import InvalidHeader
from mailer.core.mailboxes import parse_mailbox
from mailer.core.retry import InvalidRetryPolicy
from mailer.models import Mailing


class CampaignForm(SameWorkspaceForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            # Help is shown as HTML, and ours has addresses in angle brackets.
            field.help_text = escape(field.help_text)

    def clean_from_header(self) -> str:
        return self._mailbox("from_header")

    def clean_reply_to(self) -> str:
        return self._mailbox("reply_to") if self.cleaned_data["reply_to"] else ""

    def clean_retry_policy(self) -> str:
        written = str(self.cleaned_data["retry_policy"])
        try:
            retry_from(written)
        except InvalidRetryPolicy as problem:
            raise forms.ValidationError(str(problem)) from problem
        return written

    def _mailbox(self, name: str) -> str:
        try:
            parse_mailbox(self.cleaned_data[name])
        except InvalidHeader as problem:
            raise forms.ValidationError(str(problem)) from problem
        return str(self.cleaned_data[name])


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state.value, state.value) for state in State]

    def queryset(
        self, request: HttpRequest, queryset: models.QuerySet[Any]
    ) -> models.QuerySet[Any] | None:
        return queryset.filter(state=self.value()) if self.value() else None


class CampaignChangeList(CountedOnce):
    """Fetches the accounts of the whole page at once."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        rows = self.result_list
        accounts = accounts_of([row.mailing_id for row in rows if row.mailing_id])
        for row in rows:
            row.seen = live.seen_in_list(row, accounts.get(row.mailing_id))


_SUBJECT = models.functions.Coalesce(
    models.Subquery(
        Mailing.objects.filter(pk=models.OuterRef("mailing_id")).values("content__subject")[:1]
    ),
    models.Subquery(
        TemplateVersion.objects.filter(template=models.OuterRef("template_id"))
        .order_by("-number")
        .values("subject")[:1]
    ),
    output_field=models.TextField(),
)


@admin.register(Campaign)
class CampaignAdmin(ScopedAdmin):
    form = CampaignForm
    shared_choices = ("pool",)
    list_display = (
        "name_and_subject",
        "state_chip",
        "audience",
        "how_far",
        "delivered",
        "bounced",
        "waiting",
        "when",
    )
    list_filter = (StateFilter, WorkspaceFilter)
    search_fields = ("name", "template__versions__subject")
    search_help_text = "Name or subject"
    list_select_related = ("workspace",)
    sortable_by = ()
    autocomplete_fields = ("lists", "template")
    actions = ("pause_selected",)
    fieldsets = (
        (None, {"fields": ("workspace", "name", "lists", "template")}),
        ("Sender", {"fields": ("from_header", "reply_to")}),
        ("How it is sent", {"fields": ("pool", "priority", "retry_policy")}),
    )
    readonly_fields = ("retries",)
    change_form_template = "admin/campaigns/campaign/change_form.html"
    empty_title = "No campaigns yet"
    empty_text = (
        "A campaign sends one template to the people on your lists. Import recipients, write a "
        "template, then create a campaign: nothing is sent before you launch it."
    )

    # The list --------------------------------------------------------------------------

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return CampaignChangeList

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Campaign]:
        rows = super().get_queryset(request).annotate(subject=_SUBJECT)
        return rows.prefetch_related("lists")

    @display(description="campaign", header=True)
    def name_and_subject(self, obj: Any) -> list[str]:
        return [obj.name, obj.subject or "no subject yet"]

    @display(description="state", label={state.value: live.STATE_LABELS[state] for state in State})
    def state_chip(self, obj: Campaign) -> str:
        return obj.state

    @display(description="lists")
    def audience(self, obj: Campaign) -> str:
        names = [row.name for row in obj.lists.all()]
        more = f" and {len(names) - 2} more" if len(names) > 2 else ""
        return ", ".join(names[:2]) + more if names else "none yet"

    @display(description="progress")
    def how_far(self, obj: Any) -> str:
        seen = obj.seen
        if obj.mailing_id is None:
            return "–"
        share = round(100 * seen.share_settled, 1)
        return format_html(
            '<span class="pr-bar" title="{} of {}"><span style="width:{}%"></span></span>'
            '<span class="pr-bar-words">{} of {}</span>',
            f"{seen.settled_count:,}",
            f"{seen.audience:,}",
            share,
            f"{seen.settled_count:,}",
            f"{seen.audience:,}" + ("" if seen.expanded else "+"),
        )

    @display(description="delivered")
    def delivered(self, obj: Any) -> str:
        sent = obj.seen.sent_count
        return f"{100 * obj.seen.states['delivered'] / sent:.1f} %" if sent > 0 else "–"

    @display(description="bounced")
    def bounced(self, obj: Any) -> str:
        return f"{obj.seen.states['bounced']:,}" if obj.mailing_id else "–"

    @display(description="waiting")
    def waiting(self, obj: Any) -> str:
        return f"{obj.seen.states['waiting']:,}" if obj.mailing_id else "–"

    @display(description="launched")
    def when(self, obj: Campaign) -> str:
        if obj.launched_at:
            return date_format(timezone.localtime(obj.launched_at), "DATETIME_FORMAT")
        return f"made {date_format(timezone.localtime(obj.created_at), 'DATE_FORMAT')}"

    @action(description="Pause", permissions=["send"])
    def pause_selected(self, request: HttpRequest, queryset: models.QuerySet[Campaign]) -> None:
        for campaign in queryset:
            if self.may(request, Role.SENDER, campaign):
                deeds.do(request, campaign, Event.PAUSE)
            else:
                messages.error(request, f"{campaign.name}: you may not send in its workspace.")

    @display(description="retry policy")
    def retries(self, obj: Campaign) -> str:
        try:
            return retry_in_words(obj.retry_policy)
        except InvalidRetryPolicy:  # not written here, and refused at launch: shown as it is
            return obj.retry_policy

    # Who may what ----------------------------------------------------------------------

    def has_send_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, Role.SENDER, obj)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """The policy in words, where it is only read."""
        if obj is None or self.has_change_permission(request, obj):
            return self.fieldsets
        *others, (title, _) = self.fieldsets
        return (*others, (title, {"fields": ("pool", "priority", "retries")}))

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """What was launched is history; its settings are shown, not changed."""
        if obj is not None and obj.state != State.DRAFT:
            return False
        return super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if obj is not None and obj.state != State.DRAFT:
            return False
        return super().has_delete_permission(request, obj)

    def get_object(self, request: HttpRequest, object_id: str, from_field: Any = None) -> Any:
        """A draft that is being saved cannot be launched in between, nor the other way round."""
        if request.method == "POST" and connection.in_atomic_block:
            pk = object_id if object_id.isdecimal() else "0"
            list(Campaign.objects.filter(pk=pk).order_by().select_for_update().values("pk"))
        return super().get_object(request, object_id, from_field)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        if change:
            written = {"name", "template", "from_header", "reply_to", "pool", "priority"}
            obj.save(update_fields=[*written, "retry_policy"])
            return
        obj.created_by = request.user
        super().save_model(request, obj, form, change)

    # Its page --------------------------------------------------------------------------

    def get_custom_urls(self) -> tuple[tuple[str, str, Any], ...]:
        names = ("live", "launch", "pause", "resume", "cancel", "duplicate", "content")
        return tuple(
            (
                f"<path:object_id>/{name}/",
                f"campaigns_campaign_{name}",
                getattr(self, f"{name}_page"),
            )
            for name in names
        )

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        extra = {"title": "New campaign", "show_save_and_add_another": False}
        return super().add_view(request, form_url, {**extra, **(extra_context or {})})

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        campaign = self.get_object(request, object_id) if object_id.isdecimal() else None
        extra: dict[str, Any] = {"show_save_and_add_another": False, **(extra_context or {})}
        if campaign is not None:
            extra |= self._page(request, campaign)
        return super().change_view(request, object_id, form_url, extra)

    def _page(self, request: HttpRequest, campaign: Campaign) -> dict[str, Any]:
        may_send = self.may(request, Role.SENDER, campaign)
        events = live.events_for(campaign)
        return {
            "title": campaign.name,
            "campaign": campaign,
            "events": [event.value for event in events] if may_send else [],
            "may_send": may_send,
            "may_duplicate": self.may(request, Role.EDITOR, campaign),
            "state_label": live.STATE_LABELS[State(campaign.state)],
            "snapshot": live.snapshot(campaign, now=timezone.now())
            if campaign.mailing_id
            else None,
            "mailing": Mailing.objects.filter(pk=campaign.mailing_id).first(),
        }

    def live_page(self, request: HttpRequest, object_id: str, **_: Any) -> HttpResponse:
        campaign = self.found(request, object_id, Role.VIEWER)
        response = JsonResponse(live.snapshot(campaign, now=timezone.now()))
        response["Cache-Control"] = "no-store"
        return response

    def content_page(self, request: HttpRequest, object_id: str, **_: Any) -> HttpResponse:
        """What is being sent, or would be, as its newest recipient sees it."""
        campaign = self.found(request, object_id, Role.VIEWER)
        mailing = Mailing.objects.select_related("content").filter(pk=campaign.mailing_id).first()
        source: Any = mailing.content if mailing else campaign.template.latest
        recipient = preview.sample_recipient(campaign.workspace_id)
        if source is None:
            return preview.as_document(preview.Shown("", error="The template has no content yet."))
        shown = preview.show(
            subject=source.subject, html=source.html, text=source.text, recipient=recipient
        )
        return preview.as_document(shown)

    def launch_page(self, request: HttpRequest, object_id: str, **_: Any) -> HttpResponse:
        campaign = self.found(request, object_id, Role.SENDER)
        if request.method == "POST":
            return deeds.launch_confirmed(self, request, campaign)
        return deeds.review(self, request, campaign)

    def pause_page(self, request: HttpRequest, object_id: str, **_: Any) -> HttpResponse:
        return self._deed(request, object_id, Event.PAUSE)

    def resume_page(self, request: HttpRequest, object_id: str, **_: Any) -> HttpResponse:
        return self._deed(request, object_id, Event.RESUME)

    def cancel_page(self, request: HttpRequest, object_id: str, **_: Any) -> HttpResponse:
        campaign = self.found(request, object_id, Role.SENDER)
        if request.method == "POST":
            return deeds.cancel_confirmed(self, request, campaign)
        return deeds.ask_to_cancel(self, request, campaign)

    def duplicate_page(self, request: HttpRequest, object_id: str, **_: Any) -> HttpResponse:
        campaign = self.found(request, object_id, Role.EDITOR)
        return deeds.duplicated(request, campaign)

    def _deed(self, request: HttpRequest, object_id: str, event: Event) -> HttpResponse:
        campaign = self.found(request, object_id, Role.SENDER)
        refused = deeds.only_post(request)
        if refused is not None:
            return refused
        deeds.do(request, campaign, event)
        return HttpResponseRedirect(reverse("admin:campaigns_campaign_change", args=[campaign.pk]))
