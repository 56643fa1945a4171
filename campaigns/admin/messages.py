"""Finds messages by the address of a recipient, which the mailer alone could not do cheaply."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.db import models
from django.http import HttpRequest

from campaigns.admin import life
from campaigns.models import Recipient
from deliverability.admin.scope import workspace_ids
from deliverability.models import Role
from mailer.admin.messages import MessageAdmin as EngineMessageAdmin
from mailer.models import Message

_FOUND_AT_MOST = 200

admin.site.unregister(Message)


@admin.register(Message)
class MessageAdmin(EngineMessageAdmin):
    def ids_for_address(self, request: HttpRequest, address: str) -> Sequence[int]:
        """Mail of campaigns by the recipient's id; what was asked for singly, as before."""
        recipients: models.QuerySet[Any] = Recipient.objects.filter(address_key=address.lower())
        workspaces = None
        if not request.user.is_superuser:
            workspaces = sorted(workspace_ids(request, Role.VIEWER))
            recipients = recipients.filter(workspace__in=workspaces)
        ids = list(recipients.values_list("pk", flat=True)[:50])
        rows = life.found(ids, workspaces, _FOUND_AT_MOST) if ids else []
        return [row["id"] for row in rows] + list(super().ids_for_address(request, address))
