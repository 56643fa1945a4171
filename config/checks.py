"""Start-up checks of the installation as a whole: what is wrong, and what to do about it."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register


@register()
def secret_key_is_set(**_: Any) -> list[CheckMessage]:
    if settings.SECRET_KEY:
        return []
    return [
        Error(
            "SECRET_KEY is empty.",
            hint="bin/start makes one and keeps it in var/; elsewhere set SECRET_KEY to 50 random "
            "characters and keep it: unsubscribe links are signed with it.",
            id="config.E001",
        )
    ]


@register()
def database_is_postgresql(**_: Any) -> list[CheckMessage]:
    if settings.DATABASES["default"].get("NAME"):
        return []
    return [
        Error(
            "DATABASE_URL names no database.",
            hint="Use postgres://user:password@host:5432/name.",
            id="config.E002",
        )
    ]
