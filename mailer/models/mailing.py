"""A mailing: a campaign's frozen content and policy, as the mailer sees it; and its account."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from deliverability.models import Pool, Workspace


class MailingKind(models.TextChoices):
    CAMPAIGN = "campaign"
    TRANSACTIONAL = "transactional"


class Mailing(models.Model):
    """`day` is the partition of its messages. A standing (transactional) mailing rolls daily."""

    workspace = models.ForeignKey(Workspace, models.PROTECT, related_name="+")
    day = models.DateField()
    kind = models.CharField(max_length=13, choices=MailingKind)
    reference = models.CharField(
        max_length=100, help_text="Who asked for it, such as campaign:12; unique per day."
    )
    name = models.CharField(max_length=300)
    state = models.CharField(max_length=10, default="expanding")
    pool = models.ForeignKey(Pool, models.PROTECT, related_name="+")
    priority = models.PositiveSmallIntegerField(help_text="1 low, 2 normal, 3 high, 4 urgent.")
    content = models.ForeignKey("mailer.Content", models.PROTECT, null=True, related_name="+")
    retry = models.JSONField(help_text="The retry policy's spec, see mailer/core/retry.py.")
    unsubscribe_scope = models.CharField(max_length=60, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "reference", "day"], name="mailing_reference_once"
            ),
            models.CheckConstraint(
                condition=models.Q(
                    state__in=["expanding", "running", "paused", "cancelled", "finished"]
                ),
                name="mailing_state_known",
            ),
            models.CheckConstraint(
                condition=models.Q(priority__gte=1, priority__lte=4), name="mailing_priority_known"
            ),
        ]
        indexes = [
            models.Index(
                fields=["id"],
                condition=~models.Q(state__in=["cancelled", "finished"]),
                name="mailing_open",
            )
        ]

    def __str__(self) -> str:
        return self.name


class Expansion(models.Model):
    """How far a mailing's audience has been turned into messages, page by page.

    `matched` is what the pages saw, committed with their cursor; `excluded` counts each
    exclusion by its reason. matched = audience + all exclusions, always.
    """

    mailing = models.OneToOneField(Mailing, models.CASCADE, primary_key=True)
    cursor = models.BigIntegerField(default=0, help_text="The last recipient seen.")
    matched = models.BigIntegerField(default=0)
    excluded = models.JSONField(default=dict)
    done = models.BooleanField(default=False)

    def __str__(self) -> str:
        return f"{self.mailing}: {self.matched} matched"


class MailingDelta(models.Model):
    """A change of a mailing's account, appended in the outcome's own transaction.

    `entry` is a message state or "attempts". Folded into `MailingCount` later, so that no
    row is hot. The account is the sum of both.
    """

    mailing_id = models.BigIntegerField(db_index=True)
    entry = models.CharField(max_length=12)
    delta = models.BigIntegerField()

    def __str__(self) -> str:
        return f"{self.mailing_id} {self.entry} {self.delta:+}"


class MailingCount(models.Model):
    mailing_id = models.BigIntegerField()
    entry = models.CharField(max_length=12)
    count = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["mailing_id", "entry"], name="mailing_count_once")
        ]

    def __str__(self) -> str:
        return f"{self.mailing_id} {self.entry}: {self.count}"
