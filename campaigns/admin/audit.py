"""Who did what. Entries are written by the deeds themselves, and only read here."""

from __future__ import annotations

from django.contrib import admin
from unfold.decorators import display

from campaigns.models import AuditEntry
from deliverability.admin.large import LargeTable
from deliverability.admin.scope import ReadOnlyAdmin, WorkspaceFilter


@admin.register(AuditEntry)
class AuditEntryAdmin(LargeTable, ReadOnlyAdmin):
    list_display = ("at", "actor", "what", "subject", "workspace")
    list_select_related = ("workspace",)
    list_filter = (WorkspaceFilter,)
    search_fields = ("subject", "actor")
    search_help_text = "A name of a campaign or of a person"
    ordering = ("-id",)
    empty_title = "Nothing was done yet"
    empty_text = "Every launch, pause and cancellation is written down here, with who did it."

    @display(description="did")
    def what(self, obj: AuditEntry) -> str:
        return obj.action.replace(".", " ").replace("_", " ")
