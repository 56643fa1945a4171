"""Pools and sources. A relay's password goes in, is sealed, and never comes out again."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from django import forms
from django.contrib import admin
from django.db import models
from django.http import HttpRequest
from django.utils import timezone
from unfold.decorators import display
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldBooleanSwitchWidget

from deliverability.admin.scope import (
    SameWorkspaceForm,
    ScopedAdmin,
    ScopedInline,
    WorkspaceFilter,
)
from deliverability.models import Pool, Role, Source
from deliverability.sealing import seal

STATE_LABELS = {
    "new": "info",
    "warming": "warning",
    "active": "success",
    "cooling": "warning",
    "quarantined": "danger",
}


class SourceInline(ScopedInline):
    """The sources of a pool, to look at; each has a page of its own."""

    model = Source
    fields = readonly_fields = ("name", "kind", "state", "helo_name", "daily_cap", "per_hour")
    show_change_link = True
    max_num = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Pool)
class PoolAdmin(ScopedAdmin):
    change_role = delete_role = Role.OPERATOR
    shows_shared = True
    ordering = ("name",)
    list_display = ("name", "belongs_to", "sources_count", "quarantined_count")
    list_filter = (WorkspaceFilter,)
    search_fields = ("name",)
    inlines = (SourceInline,)
    empty_title = "No pools yet"
    empty_text = "A pool is a group of sending addresses. A campaign is sent through one pool."

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Pool]:
        quarantined = models.Q(sources__state="quarantined")
        return (
            super()
            .get_queryset(request)
            .select_related("workspace")
            .annotate(
                n_sources=models.Count("sources"),
                n_quarantined=models.Count("sources", filter=quarantined),
            )
        )

    @display(description="belongs to")
    def belongs_to(self, obj: Pool) -> str:
        return obj.workspace.name if obj.workspace else "shared by all"

    @display(description="sources")
    def sources_count(self, obj: Any) -> int:
        return obj.n_sources

    @display(description="in quarantine")
    def quarantined_count(self, obj: Any) -> int:
        return obj.n_quarantined


_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?"
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.IGNORECASE)

#: Who could read the relay's password, once one of these is changed.
_PASSWORD_GOES_TO = ("relay_host", "relay_port", "tls", "kind")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


class SourceForm(SameWorkspaceForm):
    class Meta:
        labels = {
            "helo_name": "EHLO name",
            "host": "Machine",
            "tls": "TLS",
            "max_connections": "Connections at most",
            "per_hour": "Messages per hour",
        }

    relay_password = forms.CharField(
        label="New relay password",
        required=False,
        strip=False,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
        help_text="Kept sealed and never shown. Empty: the password stays as it is.",
    )
    forget_password = forms.BooleanField(
        label="Forget the relay password", required=False, widget=UnfoldBooleanSwitchWidget()
    )

    def clean_helo_name(self) -> str:
        name = str(self.cleaned_data["helo_name"])
        literal = name[1:-1].removeprefix("IPv6:") if name[:1] + name[-1:] == "[]" else ""
        if not (_HOST_NAME.fullmatch(name) or _is_address(literal)):
            raise forms.ValidationError("Write a host name, such as mail.example.com.")
        return name

    def clean_relay_host(self) -> str:
        host = str(self.cleaned_data["relay_host"])
        if host and not (_HOST_NAME.fullmatch(host) or _is_address(host)):
            raise forms.ValidationError("Write a host name, such as smtp.example.com, or an IP.")
        return host

    def clean_relay_port(self) -> int:
        port = int(self.cleaned_data["relay_port"])
        if not 1 <= port <= 65_535:
            raise forms.ValidationError("A port lies between 1 and 65535.")
        return port

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        if data.get("relay_password") and data.get("forget_password"):
            self.add_error("forget_password", "Either a new password or none: not both.")
        if self._would_tell_the_password():
            self.add_error(
                "relay_password",
                "Where the password is sent was changed: enter it again, or have it forgotten.",
            )
        return data

    def _would_tell_the_password(self) -> bool:
        """A kept password goes where it was meant to go, or its sender could have it read."""
        if not (self.instance.pk and self.instance.relay_password_sealed):
            return False
        entered = self.cleaned_data.get("relay_password") or self.cleaned_data.get(
            "forget_password"
        )
        return not entered and any(name in self.changed_data for name in _PASSWORD_GOES_TO)

    def save(self, commit: bool = True) -> Any:
        if self.cleaned_data.get("forget_password"):
            self.instance.relay_password_sealed = b""
        elif self.cleaned_data.get("relay_password"):
            self.instance.relay_password_sealed = seal(self.cleaned_data["relay_password"])
        return super().save(commit)


_RELAY_FIELDS = ("relay_host", "relay_port", "relay_username")
_PASSWORD_FIELDS = ("relay_password", "forget_password")


@admin.register(Source)
class SourceAdmin(ScopedAdmin):
    form = SourceForm
    workspace_lookup = "pool__workspace"
    change_role = delete_role = Role.OPERATOR
    shows_shared = True
    list_display = ("name", "pool", "kind", "state_chip", "sends_from", "limits")
    list_filter = ("state", "kind", WorkspaceFilter)
    list_select_related = ("pool__workspace",)
    search_fields = ("name", "helo_name", "source_address")
    readonly_fields = ("state_since", "password_state")
    empty_title = "No sources yet"
    empty_text = "A source is one sending IP address, or one relay (smarthost) with its account."

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """The account at a relay is for those who may change it."""
        may_change = (
            self.has_change_permission(request, obj) if obj else self.has_add_permission(request)
        )
        state = ("state", "state_reason", "state_since") if obj else ("state", "state_reason")
        groups = [
            (None, {"fields": ("pool", "name", "kind", *state)}),
            (
                "Who we are to the receiver",
                {"fields": ("helo_name", "source_address", "host", "tls")},
            ),
            (
                "Limits",
                {
                    "fields": (
                        "max_connections",
                        "messages_per_connection",
                        "daily_cap",
                        "per_hour",
                    ),
                    "description": "Limits are shared by all workers, and never passed.",
                },
            ),
        ]
        if may_change:
            password = ("password_state", *_PASSWORD_FIELDS) if obj else ("relay_password",)
            groups.append(("Relay", {"fields": (*_RELAY_FIELDS, *password)}))
        return groups

    @display(description="state", ordering="state", label=STATE_LABELS)
    def state_chip(self, obj: Source) -> str:
        return obj.state

    @display(description="sends from")
    def sends_from(self, obj: Source) -> str:
        if obj.kind == "relay":
            return "a relay"
        return obj.source_address or "the system's choice"

    @display(description="limits")
    def limits(self, obj: Source) -> str:
        parts = []
        if obj.daily_cap is not None:
            parts.append(f"{obj.daily_cap:,} a day")
        if obj.per_hour is not None:
            parts.append(f"{obj.per_hour:,} an hour to one provider")
        return ", ".join(parts) or "none"

    @display(description="relay password")
    def password_state(self, obj: Source) -> str:
        return "is set" if obj.relay_password_sealed else "none"

    def save_model(self, request: HttpRequest, obj: Source, form: Any, change: Any) -> None:
        if change and "state" in form.changed_data:
            obj.state_since = timezone.now()
        super().save_model(request, obj, form, change)
