"""Consent: who said that we may write, and that it was taken back.

An unsubscribe is written down twice in one transaction: in the subscription, which people
read, and in the suppressions, which delivery reads, so that even mail that is already waiting
does not go out. It covers the lists of the mailing it came from, or everything where the
mailing is gone. Repeating it changes nothing. A GET never comes here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db import transaction

from campaigns.core.addresses import InvalidAddress, parse_address
from campaigns.models import Campaign, List, Recipient, Subscription, SubscriptionState
from deliverability import suppressions
from deliverability.models import EVERYTHING, Suppression, Workspace
from mailer.core.tokens import Token
from mailer.models import Mailing, Message

REASON = "unsubscribed"


@dataclass(frozen=True, slots=True)
class Bearer:
    """Whom a token speaks for, and what it is about."""

    workspace: Workspace
    address: str
    address_key: str
    scopes: tuple[str, ...]
    list_ids: tuple[int, ...]


def bearer_of(token: Token) -> Bearer | None:
    """Find out whom a genuine token speaks for; None when nothing is left of them."""
    recipient = (
        Recipient.objects.select_related("workspace").filter(pk=token.recipient_id).first()
        if token.recipient_id
        else None
    )
    mailing = Mailing.objects.select_related("workspace").filter(pk=token.mailing_id).first()
    if mailing is None:
        # The strictest reading: from this workspace nothing more.
        return recipient and _bearer(
            recipient.workspace, recipient.address, recipient.address_key, (EVERYTHING,), ()
        )
    if recipient is not None and recipient.workspace_id == mailing.workspace_id:
        address, key = recipient.address, recipient.address_key
    else:
        found = _written_on_message(token)
        if found is None:
            return None
        address, key = found
    return _bearer(mailing.workspace, address, key, *_coverage(mailing))


def unsubscribe(bearer: Bearer, *, now: datetime, detail: str = "") -> bool:
    """Take the consent back; False when there was nothing left to take back."""
    with transaction.atomic():
        changed = (
            Subscription.objects.filter(
                list_id__in=bearer.list_ids,
                recipient__workspace=bearer.workspace,
                recipient__address_key=bearer.address_key,
            )
            .exclude(state=SubscriptionState.UNSUBSCRIBED)
            .update(state=SubscriptionState.UNSUBSCRIBED, changed_at=now)
        )
        is_new = [
            suppressions.suppress(
                bearer.workspace.pk, bearer.address_key, scope=scope, reason=REASON, detail=detail
            )
            for scope in bearer.scopes
        ]
    return bool(changed) or any(is_new)


def subscribe(recipient: Recipient, into: List, *, origin: str, now: datetime) -> None:
    """Subscribe by the recipient's own wish, even after an unsubscribe from this list."""
    with transaction.atomic():
        Subscription.objects.update_or_create(
            list=into,
            recipient=recipient,
            defaults={
                "state": SubscriptionState.SUBSCRIBED,
                "origin": origin[:200],
                "changed_at": now,
            },
        )
        Suppression.objects.filter(
            workspace=recipient.workspace,
            address_key=recipient.address_key,
            scope=f"list:{into.pk}",
            reason=REASON,
        ).delete()


def _bearer(
    workspace: Workspace,
    address: str,
    address_key: str,
    scopes: tuple[str, ...],
    list_ids: tuple[int, ...],
) -> Bearer:
    return Bearer(workspace, address, address_key, scopes, list_ids)


def _coverage(mailing: Mailing) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The scopes and lists that an unsubscribe from this mailing is about."""
    campaign = Campaign.objects.filter(mailing_id=mailing.pk).first()
    list_ids = tuple(campaign.lists.order_by("pk").values_list("pk", flat=True)) if campaign else ()
    scopes = [f"list:{list_id}" for list_id in list_ids]
    # The mailing's own scope is what stops those of its messages that still wait.
    own = mailing.unsubscribe_scope or EVERYTHING
    return tuple(dict.fromkeys([*scopes, own])), list_ids


def _written_on_message(token: Token) -> tuple[str, str] | None:
    address = (
        Message.objects.filter(
            mailing_day=token.mailing_day, mailing_id=token.mailing_id, pk=token.message_id
        )
        .values_list("address", flat=True)
        .first()
    )
    try:
        return (address, parse_address(address).key) if address else None
    except InvalidAddress:
        return None
