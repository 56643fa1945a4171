"""Recipients, lists, and who is subscribed to what."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from deliverability.models import Workspace


class Recipient(models.Model):
    """A person on a list. `address_key` (normalised) is unique per workspace."""

    workspace = models.ForeignKey(Workspace, models.CASCADE, related_name="recipients")
    address = models.CharField(max_length=320, help_text="As it was written, trimmed.")
    address_key = models.CharField(max_length=320, editable=False)
    domain = models.CharField(max_length=255, editable=False)
    attributes = models.JSONField(default=dict, blank=True, help_text="Merge fields, as JSON.")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "address_key"], name="recipient_once_per_workspace"
            )
        ]

    def __str__(self) -> str:
        return self.address


class List(models.Model):
    workspace = models.ForeignKey(Workspace, models.CASCADE, related_name="lists")
    name = models.CharField(max_length=200)
    description = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["workspace", "name"], name="list_name_once")]

    def __str__(self) -> str:
        return self.name


class SubscriptionState(models.TextChoices):
    SUBSCRIBED = "subscribed"
    UNCONFIRMED = "unconfirmed"
    UNSUBSCRIBED = "unsubscribed"


class Subscription(models.Model):
    list = models.ForeignKey(List, models.CASCADE, related_name="subscriptions")
    recipient = models.ForeignKey(Recipient, models.CASCADE, related_name="subscriptions")
    state = models.CharField(
        max_length=12, choices=SubscriptionState, default=SubscriptionState.SUBSCRIBED
    )
    origin = models.CharField(max_length=200, blank=True, help_text="Where the consent came from.")
    changed_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            # Expansion walks a list by recipient: this index is its road.
            models.UniqueConstraint(fields=["list", "recipient"], name="subscription_once"),
            models.CheckConstraint(
                condition=models.Q(state__in=SubscriptionState.values),
                name="subscription_state_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.recipient} on {self.list}: {self.state}"
