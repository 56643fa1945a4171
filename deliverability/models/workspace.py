"""Whose mail it is: the unit of fair share, isolation and permissions."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models


class Workspace(models.Model):
    name = models.CharField(max_length=200)
    slug = models.SlugField(unique=True, help_text="Short name for commands and addresses.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Role(models.TextChoices):
    VIEWER = "viewer", "may look"
    EDITOR = "editor", "may edit, but not send"
    SENDER = "sender", "may edit and send"
    OPERATOR = "operator", "may send and change sources and pools"


class Membership(models.Model):
    """What a user may do in a workspace. A superuser may do everything everywhere."""

    workspace = models.ForeignKey(Workspace, models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role, default=Role.EDITOR)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["workspace", "user"], name="membership_once")
        ]

    def __str__(self) -> str:
        return f"{self.user} in {self.workspace}: {self.get_role_display()}"


_AT_LEAST = {
    Role.VIEWER: tuple(Role),
    Role.EDITOR: (Role.EDITOR, Role.SENDER, Role.OPERATOR),
    Role.SENDER: (Role.SENDER, Role.OPERATOR),
    Role.OPERATOR: (Role.OPERATOR,),
}


def workspaces_for(user: Any, role: Role = Role.VIEWER) -> models.QuerySet[Workspace]:
    """The workspaces in which `user` has at least `role`."""
    if not user.is_active:
        return Workspace.objects.none()
    if user.is_superuser:
        return Workspace.objects.all()
    return Workspace.objects.filter(memberships__user=user, memberships__role__in=_AT_LEAST[role])


class Hold(models.Model):
    """We stopped on purpose. Without a workspace it holds everything: the global stop.

    Takes effect before the next SMTP window of every worker.
    """

    workspace = models.ForeignKey(Workspace, models.CASCADE, null=True, blank=True)
    reason = models.CharField(max_length=500)
    held_by = models.CharField(max_length=200, help_text="The person or the rule.")
    since = models.DateTimeField(auto_now_add=True)
    released_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [
            models.Index(
                fields=["workspace"],
                condition=models.Q(released_at__isnull=True),
                name="hold_in_force",
            )
        ]

    def __str__(self) -> str:
        return f"{self.workspace or 'everything'}: {self.reason}"
