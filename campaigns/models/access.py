"""Who did what: one append-only row for every sending action."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from deliverability.models import Workspace


class AuditEntry(models.Model):
    workspace = models.ForeignKey(Workspace, models.CASCADE, related_name="+")
    at = models.DateTimeField(db_default=Now(), editable=False)
    actor = models.CharField(max_length=200, help_text="A user's name, or the command that ran.")
    action = models.CharField(max_length=60, help_text="Object and past tense: campaign.launched.")
    subject = models.CharField(max_length=300)
    detail = models.JSONField(default=dict)

    class Meta:
        verbose_name_plural = "audit entries"
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.actor} {self.action} {self.subject}"
