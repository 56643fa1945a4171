"""Pages for recipients. Nothing changes on a GET; no cookie is set; nothing is loaded from
elsewhere. RFC 8058: one POST from the mail program is the whole unsubscribe.
"""

from __future__ import annotations

from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from campaigns import consent
from mailer import conf
from mailer.core import tokens
from mailer.core.tokens import InvalidToken, Purpose


@csrf_exempt  # the token is the permission; a mail program has no cookie (RFC 8058, 3.1)
@require_http_methods(["GET", "HEAD", "POST"])
def unsubscribe(request: HttpRequest, token: str) -> HttpResponse:
    try:
        read = tokens.read(conf.token_keys(), token, purpose=Purpose.UNSUBSCRIBE)
    except InvalidToken:
        return _page(request, "unknown_link", status=404)
    bearer = consent.bearer_of(read)
    if bearer is None:
        return _page(request, "unknown_link", status=404)
    facts = {"sender": bearer.workspace.name, "address": _masked(bearer.address)}
    if request.method != "POST":
        return _page(request, "unsubscribe", **facts)
    how = "one click" if _is_one_click(request) else "unsubscribe page"
    consent.unsubscribe(bearer, now=timezone.now(), detail=f"{how}, mailing {read.mailing_id}")
    return _page(request, "unsubscribed", **facts)


def _is_one_click(request: HttpRequest) -> bool:
    """Only for the record: a POST unsubscribes whatever its body says, or fails to say."""
    try:
        return "List-Unsubscribe" in request.POST
    except (MultiPartParserError, SuspiciousOperation, UnreadablePostError):
        return False


def _page(request: HttpRequest, name: str, status: int = 200, **facts: str) -> HttpResponse:
    response = render(request, f"campaigns/{name}.html", facts, status=status)
    response["Cache-Control"] = "no-store"
    response["X-Robots-Tag"] = "noindex"
    response["Referrer-Policy"] = "no-referrer"
    response["Content-Security-Policy"] = (
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    )
    return response


def _masked(address: str) -> str:
    """Enough for the owner to know it, not for whoever a mail was forwarded to."""
    local, _, domain = address.rpartition("@")
    shown = local[0] + "…" + (local[-1] if len(local) > 3 else "")
    return f"{shown}@{domain}"
