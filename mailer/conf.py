"""The mailer's settings, as objects. The only file of the app that reads Django's settings."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path

from django.conf import settings


@dataclass(frozen=True, slots=True)
class DeliveryPolicy:
    batch_size: int  #: messages in a batch when it is laid
    dispatch_ahead: int  #: bulk batches that may be published or taken at once
    connections_per_batch: int
    patience: timedelta  #: after this a task ends; replies still due are awaited by the loop
    republish_after: timedelta  #: a published batch nobody took: its task may be lost
    keep_done_batches: timedelta


@dataclass(frozen=True, slots=True)
class Place:
    """Where this process runs and what it may reach."""

    host: str
    journals: Path
    fsync: str
    is_sandbox: bool
    nameserver: str | None
    verifies_relays: bool
    delivers_privately: bool  #: whether recipients' MX may lie in private networks
    public_url: str


@cache
def delivery_policy() -> DeliveryPolicy:
    return DeliveryPolicy(
        batch_size=settings.POSTROAD_BATCH_SIZE,
        dispatch_ahead=settings.POSTROAD_DISPATCH_AHEAD,
        connections_per_batch=settings.POSTROAD_CONNECTIONS_PER_BATCH,
        patience=timedelta(seconds=settings.POSTROAD_BATCH_SECONDS),
        republish_after=timedelta(seconds=settings.POSTROAD_REPUBLISH_SECONDS),
        keep_done_batches=timedelta(hours=1),
    )


@cache
def place() -> Place:
    return Place(
        host=settings.POSTROAD_HOST,
        journals=Path(settings.POSTROAD_JOURNALS),
        fsync=settings.POSTROAD_FSYNC,
        is_sandbox=settings.POSTROAD_SANDBOX,
        nameserver=settings.POSTROAD_DNS or None,
        verifies_relays=settings.POSTROAD_TLS_VERIFY_RELAYS,
        delivers_privately=settings.POSTROAD_PRIVATE_NETWORKS,
        public_url=settings.POSTROAD_PUBLIC_URL,
    )


def token_keys() -> list[bytes]:
    """Keys of links in mails: the first signs, all of them are accepted."""
    secrets = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    return [hmac.digest(s.encode(), b"postroad tokens", "sha256") for s in secrets]
