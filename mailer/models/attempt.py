"""One try to deliver one message: append-only, partitioned like messages.

Unique by (mailing_day, message_id, attempt_no) in the database, so that replaying a journal
inserts nothing twice. Django takes `message_id` for the primary key only because it wants one.
"""

from __future__ import annotations

import uuid

from django.db import models


class Attempt(models.Model):
    message_id = models.BigIntegerField(primary_key=True)
    mailing_day = models.DateField()
    attempt_no = models.PositiveSmallIntegerField()
    mailing_id = models.BigIntegerField()
    batch_id = models.BigIntegerField()
    journal_id = models.UUIDField(default=uuid.uuid4)
    at = models.DateTimeField()
    source_id = models.BigIntegerField(null=True)
    provider = models.CharField(max_length=60)
    mx_host = models.CharField(max_length=255)
    outcome = models.CharField(max_length=12)
    phase = models.CharField(max_length=8)
    reply_code = models.PositiveSmallIntegerField()
    enhanced = models.CharField(max_length=12)
    reply = models.CharField(max_length=2000)
    reason = models.CharField(max_length=60)
    scope = models.CharField(max_length=16)
    rule = models.CharField(max_length=80)

    def __str__(self) -> str:
        return f"attempt {self.attempt_no} of message {self.message_id}: {self.outcome}"
