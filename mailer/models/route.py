"""Where a recipient domain's mail goes: its MX hosts and the provider that runs them, cached."""

from __future__ import annotations

from django.db import models


class RouteState(models.TextChoices):
    RESOLVED = "resolved"
    NULL_MX = "null_mx", "accepts no mail (RFC 7505)"
    NO_DOMAIN = "no_domain", "does not exist"
    FAILED = "failed", "DNS gave no answer"


class Route(models.Model):
    domain = models.CharField(max_length=255, primary_key=True)
    state = models.CharField(max_length=9, choices=RouteState)
    provider = models.CharField(max_length=60)
    hosts = models.JSONField(default=list, help_text="List of [preference, name].")
    detail = models.CharField(max_length=500, blank=True, default="")
    resolved_at = models.DateTimeField()
    expires_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(state__in=RouteState.values), name="route_state_known"
            )
        ]

    def __str__(self) -> str:
        return f"{self.domain}: {self.provider}"
