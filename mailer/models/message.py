"""One recipient's copy of one mailing: the row that tells what happened to it.

The table is range-partitioned by `mailing_day` (see mailer/partitions.py), has no foreign
keys, and is written when the message is made and once per outcome. Django takes `id` for the
primary key; the database's key is (mailing_day, id). Indexes live in the migration:
 - unique (mailing_day, mailing_id, dedup_key): one message per mailing and dedup key;
 - (due_at) where it is not null: what was deferred;
 - (mailing_id, state) for the exceptional states only: those that a person looks for.
"""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now


class Message(models.Model):
    mailing_day = models.DateField()
    mailing_id = models.BigIntegerField()
    dedup_key = models.CharField(
        max_length=200,
        help_text="The recipient for a campaign, the request for transactional mail.",
    )
    recipient_id = models.BigIntegerField(null=True)
    address = models.CharField(max_length=320)
    recipient_domain = models.CharField(max_length=255)
    content_id = models.BigIntegerField(null=True, help_text="Null: the mailing's content.")
    context = models.JSONField(default=dict)
    state = models.CharField(max_length=10, help_text="See mailer/core/lifecycle.py.")
    due_at = models.DateTimeField(null=True, help_text="Deferred until; null while in a batch.")
    queued_at = models.DateTimeField(db_default=Now())
    attempts = models.PositiveSmallIntegerField(default=0)
    failures = models.PositiveSmallIntegerField(
        default=0, help_text="Attempts that count against it: being throttled does not."
    )
    reason = models.CharField(max_length=60, default="", help_text="Of the last outcome.")
    settled_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"message {self.pk} to {self.address}"
