"""Templates and their versions: an edit makes a new version, a launched one never changes."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from deliverability.models import Workspace


class Template(models.Model):
    workspace = models.ForeignKey(Workspace, models.CASCADE, related_name="templates")
    name = models.CharField(max_length=200)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["workspace", "name"], name="template_name_once")
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def latest(self) -> TemplateVersion | None:
        return self.versions.order_by("-number").first()

    def add_version(
        self, *, subject: str, html: str, text: str = "", author: object = None
    ) -> TemplateVersion:
        """Write the next version; the earlier ones stay as they are."""
        latest = self.latest
        return TemplateVersion.objects.create(
            template=self,
            number=latest.number + 1 if latest else 1,
            subject=subject,
            html=html,
            text=text,
            author=author if getattr(author, "pk", None) else None,
        )


class TemplateVersion(models.Model):
    template = models.ForeignKey(Template, models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    subject = models.CharField(max_length=998)
    html = models.TextField(blank=True)
    text = models.TextField(blank=True, help_text="Empty: made from the HTML.")
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.UniqueConstraint(fields=["template", "number"], name="template_version_once")
        ]

    def __str__(self) -> str:
        return f"{self.template} v{self.number}"
