"""Rows that hold the message ids of one lane: what a Celery task carries by its id.

Untaken, taken (by which journal, since when) or done. An untaken batch may be freed, split
or published again at any time without harm; a taken one belongs to its worker until that
worker is proved dead.
"""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now


class BatchState(models.TextChoices):
    UNTAKEN = "untaken"
    TAKEN = "taken"
    DONE = "done"


class Batch(models.Model):
    """`provider` is "" while the recipients' domains are not resolved yet."""

    mailing_day = models.DateField()
    mailing_id = models.BigIntegerField()
    pool_id = models.BigIntegerField()
    provider = models.CharField(max_length=60)
    priority = models.PositiveSmallIntegerField()
    ids = ArrayField(models.BigIntegerField())
    state = models.CharField(
        max_length=7, choices=BatchState, db_default=BatchState.UNTAKEN, default=BatchState.UNTAKEN
    )
    due_at = models.DateTimeField(null=True, help_text="Null: now.")
    waits_for = models.CharField(max_length=200, blank=True, db_default="", default="")
    source_id = models.BigIntegerField(null=True)
    published_at = models.DateTimeField(null=True)
    journal_id = models.UUIDField(null=True)
    host = models.CharField(max_length=255, blank=True, db_default="", default="")
    taken_at = models.DateTimeField(null=True)
    rescued = models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="How many workers have died with it."
    )
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name_plural = "batches"
        indexes = [
            models.Index(
                fields=["pool_id", "provider", "priority", "mailing_id", "id"],
                condition=models.Q(state="untaken", published_at__isnull=True),
                name="batch_to_dispatch",
            ),
            models.Index(
                fields=["published_at"],
                condition=models.Q(state="untaken", published_at__isnull=False),
                name="batch_published",
            ),
            models.Index(
                fields=["journal_id"], condition=models.Q(state="taken"), name="batch_taken_by"
            ),
            models.Index(
                fields=["mailing_id"], condition=~models.Q(state="done"), name="batch_open"
            ),
            models.Index(
                fields=["created_at"], condition=models.Q(state="done"), name="batch_done"
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(state__in=BatchState.values), name="batch_state_known"
            ),
            models.CheckConstraint(
                condition=~models.Q(state="taken") | models.Q(journal_id__isnull=False),
                name="batch_taken_by_someone",
            ),
        ]

    def __str__(self) -> str:
        return f"batch {self.pk}: {len(self.ids)} messages, {self.state}"


class WorkerJournal(models.Model):
    """Which process on which host writes a journal; ended when its outcomes are all recorded."""

    id = models.UUIDField(primary_key=True)
    host = models.CharField(max_length=255)
    pid = models.PositiveIntegerField()
    opened_at = models.DateTimeField(db_default=Now())
    ended_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(
                fields=["host"], condition=models.Q(ended_at__isnull=True), name="journal_open"
            )
        ]

    def __str__(self) -> str:
        return f"journal {self.id} of process {self.pid} on {self.host}"
