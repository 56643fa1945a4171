"""Who we will not send to, with the reason, the scope and until when."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from deliverability.models.workspace import Workspace

EVERYTHING = "workspace"  #: the scope that covers all mail of the workspace


class Suppression(models.Model):
    workspace = models.ForeignKey(Workspace, models.CASCADE, related_name="suppressions")
    address_key = models.CharField(max_length=320, help_text="The address, normalised.")
    scope = models.CharField(
        max_length=60, default=EVERYTHING, help_text="workspace, or list:ID, or topic:NAME."
    )
    reason = models.CharField(max_length=60)
    detail = models.CharField(max_length=1000, blank=True, help_text="The reply, or who asked.")
    until = models.DateTimeField(null=True, blank=True, help_text="Exclusive; empty: for good.")
    created_at = models.DateTimeField(auto_now_add=True, db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "address_key", "scope"], name="suppressed_once_per_scope"
            )
        ]

    def __str__(self) -> str:
        return f"{self.address_key} ({self.reason})"
