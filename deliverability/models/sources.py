"""Where mail leaves from: sources (a sending IP or a relay), in pools."""

from __future__ import annotations

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from deliverability.models.workspace import Workspace


class Pool(models.Model):
    """A named group of sources. Without a workspace it is shared by all of them."""

    workspace = models.ForeignKey(
        Workspace, models.CASCADE, null=True, blank=True, related_name="pools"
    )
    name = models.CharField(max_length=100)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "name"], name="pool_name_once", nulls_distinct=False
            )
        ]

    def __str__(self) -> str:
        return self.name


class SourceKind(models.TextChoices):
    DIRECT = "direct", "direct to the recipients' MX"
    RELAY = "relay", "through a relay (smarthost)"


class SourceState(models.TextChoices):
    NEW = "new"
    WARMING = "warming"
    ACTIVE = "active"
    COOLING = "cooling"
    QUARANTINED = "quarantined"


class TlsMode(models.TextChoices):
    NONE = "none", "never"
    OPPORTUNISTIC = "opportunistic", "when offered"
    REQUIRED = "required", "always, or the mail waits"


class Source(models.Model):
    """One sending IP with its HELO name, or one relay with its account."""

    pool = models.ForeignKey(Pool, models.CASCADE, related_name="sources")
    name = models.CharField(max_length=100, unique=True)
    kind = models.CharField(max_length=10, choices=SourceKind, default=SourceKind.DIRECT)
    state = models.CharField(max_length=12, choices=SourceState, default=SourceState.ACTIVE)
    state_reason = models.CharField(max_length=500, blank=True)
    state_since = models.DateTimeField(auto_now_add=True)

    source_address = models.GenericIPAddressField(
        null=True,
        blank=True,
        help_text="The local address to send from; empty: the system's choice.",
    )
    helo_name = models.CharField(
        max_length=255, help_text="What we say in EHLO: the name that the address's PTR gives."
    )
    host = models.CharField(
        max_length=255, blank=True, help_text="The machine that owns the address; empty: any."
    )
    tls = models.CharField(max_length=14, choices=TlsMode, default=TlsMode.OPPORTUNISTIC)

    relay_host = models.CharField(max_length=255, blank=True)
    relay_port = models.PositiveIntegerField(default=587)
    relay_username = models.CharField(max_length=255, blank=True)
    relay_password_sealed = models.BinaryField(default=b"", blank=True, editable=False)

    max_connections = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(1000)],
        help_text="At one provider at once, over all workers; empty: 10 × the priority's class.",
    )
    messages_per_connection = models.PositiveIntegerField(
        default=100, validators=[MinValueValidator(1)]
    )
    daily_cap = models.PositiveIntegerField(
        null=True, blank=True, help_text="Messages per sending day (UTC), hard; empty: no cap."
    )
    per_hour = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="Messages per hour to one provider, evenly; empty: no limit.",
    )

    class Meta:
        ordering = ["pool", "name"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(state__in=SourceState.values), name="source_state_known"
            ),
            models.CheckConstraint(
                condition=~models.Q(kind="relay") | ~models.Q(relay_host=""),
                name="relay_has_host",
                violation_error_message="A relay needs a host.",
            ),
        ]

    def __str__(self) -> str:
        return self.name
