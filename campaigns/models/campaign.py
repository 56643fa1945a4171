"""What a marketer plans and reads reports about."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from campaigns.models.audience import List
from campaigns.models.template import Template
from deliverability.models import Pool, Workspace


class CampaignPriority(models.IntegerChoices):
    LOW = 1
    NORMAL = 2
    HIGH = 3


class Campaign(models.Model):
    """Its states are those of campaigns/core/lifecycle.py. Once launched it has a mailing."""

    workspace = models.ForeignKey(Workspace, models.CASCADE, related_name="campaigns")
    name = models.CharField(max_length=200)
    state = models.CharField(max_length=10, default="draft", editable=False)
    lists = models.ManyToManyField(List, related_name="campaigns", blank=True)
    template = models.ForeignKey(Template, models.PROTECT, related_name="campaigns")
    from_header = models.CharField(
        "from", max_length=320, help_text="Such as: Acme News <news@acme.example>"
    )
    reply_to = models.CharField(max_length=320, blank=True)
    pool = models.ForeignKey(Pool, models.PROTECT, related_name="campaigns")
    priority = models.PositiveSmallIntegerField(
        choices=CampaignPriority, default=CampaignPriority.NORMAL
    )
    retry_policy = models.CharField(
        max_length=200,
        default="exponential",
        help_text="exponential, ladder-3, ladder-24h, or a policy as JSON.",
    )
    mailing_id = models.BigIntegerField(null=True, editable=False, unique=True)
    expand_published_at = models.DateTimeField(
        null=True, editable=False, help_text="When the expansion was last handed to a worker."
    )
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, editable=False, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    launched_at = models.DateTimeField(null=True, editable=False)
    finished_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(
                    state__in=["draft", "sending", "paused", "cancelled", "finished"]
                ),
                name="campaign_state_known",
            )
        ]
        indexes = [models.Index(fields=["workspace", "-created_at"], name="campaign_recent")]

    def __str__(self) -> str:
        return self.name
