"""What came of it: outcomes rolled up per source, provider and hour, read by evaluation."""

from __future__ import annotations

from django.db import models


class Tally(models.Model):
    """Outcomes of one batch, appended in the outcome's own transaction; never one hot row.

    A beat task folds rows of the same key into one. No foreign keys: written once per batch.
    """

    hour = models.DateTimeField(help_text="Start of the hour, UTC.")
    workspace_id = models.BigIntegerField()
    source_id = models.BigIntegerField()
    provider = models.CharField(max_length=60)
    outcome = models.CharField(max_length=12)
    reason = models.CharField(max_length=60)
    count = models.IntegerField()

    class Meta:
        indexes = [models.Index(fields=["source_id", "hour"], name="tally_by_source")]

    def __str__(self) -> str:
        return f"{self.hour} {self.provider} {self.outcome}: {self.count}"
