"""An import of recipients: how far it is, and each row that was set aside with its reason."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from campaigns.models.audience import List
from deliverability.models import Workspace


class ImportState(models.TextChoices):
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"


class UpdateMode(models.TextChoices):
    """What happens to the merge fields of recipients that are there already."""

    OVERWRITE = "overwrite", "overwrite with the values of the file that are not empty"
    FILL = "fill", "fill only what is empty"
    SKIP = "skip", "leave as they are"


class Import(models.Model):
    """One file. Running it again from the beginning changes nothing that it has done."""

    workspace = models.ForeignKey(Workspace, models.CASCADE, related_name="imports")
    list = models.ForeignKey(List, models.CASCADE, related_name="imports")
    file_name = models.CharField(max_length=300)
    path = models.CharField(
        max_length=1000, blank=True, editable=False, help_text="Where the uploaded file waits."
    )
    encoding = models.CharField(
        max_length=40, blank=True, help_text="Empty: found by looking at the file."
    )
    delimiter = models.CharField(
        max_length=20, blank=True, help_text="Empty: found by looking at the file."
    )
    mode = models.CharField(max_length=10, choices=UpdateMode, default=UpdateMode.OVERWRITE)
    state = models.CharField(
        max_length=10, choices=ImportState, default=ImportState.RUNNING, editable=False
    )
    size_bytes = models.PositiveBigIntegerField(default=0, editable=False)
    read_bytes = models.PositiveBigIntegerField(default=0, editable=False)
    rows = models.PositiveBigIntegerField(default=0)
    created = models.PositiveBigIntegerField(default=0)
    updated = models.PositiveBigIntegerField(default=0)
    unchanged = models.PositiveBigIntegerField(default=0)
    duplicates = models.PositiveBigIntegerField(default=0)
    rejected = models.PositiveBigIntegerField(default=0)
    not_resubscribed = models.PositiveBigIntegerField(
        default=0, help_text="Rows of people who had unsubscribed from the list, and stay so."
    )
    notes = models.TextField(
        blank=True, help_text="What a person should know about the file, one line each."
    )
    started_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+"
    )
    started_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=1000, blank=True)

    class Meta:
        ordering = ["-started_at"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(state__in=ImportState.values), name="import_state_known"
            ),
            models.CheckConstraint(
                condition=models.Q(mode__in=UpdateMode.values), name="import_mode_known"
            ),
        ]

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
