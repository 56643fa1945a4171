"""Launch, pause, resume, cancel, duplicate: the pages that ask, and the calls that act.

Translates only: what is legal is decided in `campaigns.launch`, and who may is checked before.
"""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
)
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone

from campaigns import launch, preflight, tasks
from campaigns.admin.list_counts import Count, subscribed_counts, together
from campaigns.core import lifecycle
from campaigns.core.lifecycle import Event
from campaigns.models import Campaign

TYPED_ABOVE = 10_000  #: from this audience on, "send" has to be typed
CANCEL_WORD = "cancel"
LAUNCH_WORD = "send"

_DONE = {
    Event.PAUSE: "Paused: it stops before the next message of every worker. Nothing is lost.",
    Event.RESUME: "Resumed: sending goes on within seconds.",
    Event.CANCEL: "Cancelled: what was waiting will not be sent.",
}


def only_post(request: HttpRequest) -> HttpResponse | None:
    """Nothing changes on a GET."""
    return None if request.method == "POST" else HttpResponseNotAllowed(["POST"])


def do(request: HttpRequest, campaign: Campaign, event: Event) -> bool:
    """Carry out the move, publish what follows, and tell the person. False: it was not legal."""
    actor, now = request.user.get_username(), timezone.now()
    try:
        if event is Event.PAUSE:
            following = launch.pause(campaign.pk, actor=actor)
        elif event is Event.RESUME:
            following = launch.resume(campaign.pk, actor=actor, now=now)
        else:
            following = launch.cancel(campaign.pk, actor=actor, now=now)
    except launch.IllegalMove as problem:
        messages.error(request, f"{campaign.name}: {problem}")
        return False
    tasks.publish(following)
    messages.success(request, f"{campaign.name}: {_DONE[event]}")
    return True


def review(
    model_admin: Any, request: HttpRequest, campaign: Campaign, error: str = ""
) -> HttpResponse:
    """The last page before a launch: what will be sent to whom, and what was found."""
    if not lifecycle.is_possible(campaign.state, Event.LAUNCH):
        messages.error(request, f"The campaign is {campaign.state}: it was launched already.")
        return _to(campaign)
    findings = preflight.check(campaign)
    counts = _counts(campaign)
    audience = together(counts.values())
    context = {
        **model_admin.admin_site.each_context(request),
        "title": f"Review and send: {campaign.name}",
        "opts": model_admin.opts,
        "original": campaign,
        "campaign": campaign,
        "version": campaign.template.latest,
        "blocking": [row for row in findings if row.is_blocking],
        "warnings": [row for row in findings if not row.is_blocking],
        "counts": [(row, counts[row.pk]) for row in campaign.lists.all()],
        "audience": audience,
        "word": LAUNCH_WORD if audience.number >= TYPED_ABOVE else "",
        "error": error,
        "sources": list(campaign.pool.sources.all()[:20]),
    }
    return TemplateResponse(request, "admin/campaigns/campaign/review.html", context)


def launch_confirmed(model_admin: Any, request: HttpRequest, campaign: Campaign) -> HttpResponse:
    word = LAUNCH_WORD if together(_counts(campaign).values()).number >= TYPED_ABOVE else ""
    if word and request.POST.get("typed", "").strip().lower() != word:
        return review(model_admin, request, campaign, error=f"Type “{word}” to confirm.")
    try:
        following = launch.launch(
            campaign.pk, actor=request.user.get_username(), now=timezone.now()
        )
    except launch.LaunchRefused:
        return review(model_admin, request, campaign, error="It was not launched: see below.")
    except launch.IllegalMove as problem:
        messages.error(request, str(problem))
        return _to(campaign)
    tasks.publish(following)
    messages.success(request, f"{campaign.name} was launched.")
    return _to(campaign)


def ask_to_cancel(
    model_admin: Any, request: HttpRequest, campaign: Campaign, error: str = ""
) -> HttpResponse:
    if not lifecycle.is_possible(campaign.state, Event.CANCEL):
        messages.error(request, f"The campaign is {campaign.state}: it cannot be cancelled.")
        return _to(campaign)
    context = {
        **model_admin.admin_site.each_context(request),
        "title": f"Cancel: {campaign.name}",
        "opts": model_admin.opts,
        "original": campaign,
        "campaign": campaign,
        "word": CANCEL_WORD,
        "error": error,
    }
    return TemplateResponse(request, "admin/campaigns/campaign/cancel.html", context)


def cancel_confirmed(model_admin: Any, request: HttpRequest, campaign: Campaign) -> HttpResponse:
    if request.POST.get("typed", "").strip().lower() != CANCEL_WORD:
        return ask_to_cancel(
            model_admin, request, campaign, error=f"Type “{CANCEL_WORD}” to confirm."
        )
    do(request, campaign, Event.CANCEL)
    return _to(campaign)


def duplicated(request: HttpRequest, campaign: Campaign) -> HttpResponse:
    """A new draft with the same settings."""
    refused = only_post(request)
    if refused is not None:
        return refused
    copy = Campaign.objects.create(
        workspace=campaign.workspace,
        name=f"{campaign.name} (copy)"[:200],
        template=campaign.template,
        from_header=campaign.from_header,
        reply_to=campaign.reply_to,
        pool=campaign.pool,
        priority=campaign.priority,
        retry_policy=campaign.retry_policy,
        created_by=request.user if request.user.pk else None,
    )
    copy.lists.set(campaign.lists.all())
    messages.success(request, "This is a new draft with the same settings.")
    return _to(copy)


def _counts(campaign: Campaign) -> dict[int, Count]:
    return subscribed_counts([row.pk for row in campaign.lists.all()])


def _to(campaign: Campaign) -> HttpResponse:
    return HttpResponseRedirect(reverse("admin:campaigns_campaign_change", args=[campaign.pk]))
