"""An import of recipients: how far it is, and each row that was set aside with its reason."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from campaigns.models.audience import List
from deliverability.models import Workspace


class Import(models.Model):
    workspace = models.ForeignKey(Workspace, models.CASCADE, related_name="imports")
    list = models.ForeignKey(List, models.CASCADE, related_name="imports")
    file_name = models.CharField(max_length=300)
    state = models.CharField(max_length=10, default="running")
    rows = models.PositiveBigIntegerField(default=0)
    created = models.PositiveBigIntegerField(default=0)
    updated = models.PositiveBigIntegerField(default=0)
    unchanged = models.PositiveBigIntegerField(default=0)
    duplicates = models.PositiveBigIntegerField(default=0)
    rejected = models.PositiveBigIntegerField(default=0)
    started_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+"
    )
    started_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=1000, blank=True)

    class Meta:
        ordering = ["-started_at"]

    def __str__(self) -> str:
        return f"{self.file_name} into {self.list}"


class RejectedRow(models.Model):
    """A row that could not be imported, kept as it was."""

    import_run = models.ForeignKey(Import, models.CASCADE, related_name="rejected_rows")
    line = models.PositiveBigIntegerField(help_text="Line of the file where the row begins.")
    reason = models.CharField(max_length=300)
    raw = models.TextField(help_text="The row, at most 2,000 characters of it.")

    class Meta:
        ordering = ["line"]

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"
