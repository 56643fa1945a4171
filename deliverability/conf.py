"""Deliverability's settings, as objects. The only file of the app that reads Django's settings."""

from __future__ import annotations

from functools import cache

from django.conf import settings

from deliverability.counters import Counters, RedisCounters


@cache
def counters() -> Counters:
    return RedisCounters(settings.REDIS_URL)


def sealing_secrets() -> list[str]:
    """Secrets that stored credentials are sealed with: the first seals, all of them open."""
    return [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
