"""Frozen content: what was launched cannot be changed by editing a template."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from deliverability.models import Workspace


class Content(models.Model):
    """Templates and headers as they were at launch. Stored once; never copied into messages."""

    workspace = models.ForeignKey(Workspace, models.PROTECT, related_name="+")
    digest = models.CharField(max_length=64, help_text="SHA-256 of all fields.")
    subject = models.TextField()
    html = models.TextField(blank=True)
    text = models.TextField(blank=True)
    from_header = models.CharField(max_length=998)
    reply_to = models.CharField(max_length=998, blank=True)
    return_path = models.CharField(max_length=254)
    headers = models.JSONField(default=list, help_text="List of [name, value template].")
    fields = models.JSONField(
        null=True, help_text="The merge fields it uses; null: looked up dynamically, keep them all."
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["workspace", "digest"], name="content_stored_once")
        ]

    def __str__(self) -> str:
        return self.subject
