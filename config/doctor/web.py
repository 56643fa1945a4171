"""What answers over HTTP and DNS: the web process, Flower, the sandbox, the name server."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Iterator

from django.conf import settings

from config.doctor.finding import Check, Finding, error, ok, warning
from mailer.transport.mx import DnsFailure, dns_mx

HTTP_SECONDS = 4.0
DNS_SECONDS = 5.0
#: Any domain that takes mail; the sandbox knows it too.
KNOWN_DOMAIN = "gmail.com"


def _status(url: str) -> int | str:
    """The HTTP status, or why there is none."""
    try:
        with urllib.request.urlopen(url, timeout=HTTP_SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refusal:
        return refusal.code
    except (OSError, ValueError) as problem:
        return str(getattr(problem, "reason", problem))


def _web() -> Iterator[Finding]:
    url = f"{settings.POSTROAD_PUBLIC_URL}/health"
    status = _status(url)
    if status == 200:
        yield ok("web", f"{url} answers")
    else:
        advice = (
            "Links in mails lead there, also those to unsubscribe. Start the web process, or "
            "correct POSTROAD_PUBLIC_URL; 400 means that ALLOWED_HOSTS lacks its name."
        )
        yield error("web", f"{url}: {status}", advice)
    if not settings.POSTROAD_SANDBOX and not url.startswith("https://"):
        advice = "Use HTTPS: mailbox providers ask it of one-click unsubscribe (RFC 8058)."
        yield warning("web https", f"POSTROAD_PUBLIC_URL is {settings.POSTROAD_PUBLIC_URL}", advice)


def _flower() -> Iterator[Finding]:
    if not settings.POSTROAD_FLOWER_URL:
        yield ok("flower", "not looked for, since POSTROAD_FLOWER_URL is empty")
        return
    url = f"{settings.POSTROAD_FLOWER_URL.rstrip('/')}/healthcheck"
    status = _status(url)
    if status == 200:
        yield ok("flower", f"{settings.POSTROAD_FLOWER_URL} answers")
    else:
        advice = "Start Flower. It only shows: mail goes out without it."
        yield warning("flower", f"{url}: {status}", advice)


def _sandbox() -> Iterator[Finding]:
    if not settings.POSTROAD_SANDBOX:
        yield ok("sandbox", "off: this installation sends real mail")
        return
    if not settings.POSTROAD_DNS:
        yield error(
            "sandbox",
            "on, but POSTROAD_DNS is empty",
            "Start it with bin/start, or set POSTROAD_DNS to the sandbox's DNS server.",
        )
        return
    status = _status(settings.POSTROAD_SANDBOX_URL or "http://unset.invalid")
    if isinstance(status, int) and status < 500:
        yield ok("sandbox", f"{settings.POSTROAD_SANDBOX_URL} answers: no real mail is sent")
    else:
        advice = "Start the sandbox (python -m sandbox); bin/start does."
        yield error("sandbox", f"{settings.POSTROAD_SANDBOX_URL or 'no URL'}: {status}", advice)


def _dns() -> Iterator[Finding]:
    server = settings.POSTROAD_DNS or "the system's server"
    lookup = dns_mx(
        settings.POSTROAD_DNS or None,
        timeout_seconds=DNS_SECONDS,
        is_sandbox=settings.POSTROAD_SANDBOX,
    )
    found = asyncio.run(lookup.resolve(KNOWN_DOMAIN))
    if isinstance(found, DnsFailure):
        advice = (
            "Messages to domains that are not known yet wait until it answers. Start it, or "
            "correct POSTROAD_DNS; a resolver on this machine is best for high volume."
        )
        yield error("dns", f"{server}: {found.why}", advice)
    else:
        yield ok("dns", f"{server} answers")


def _port_25() -> Iterator[Finding]:
    if settings.POSTROAD_SANDBOX:
        yield ok("port 25", "not needed in the sandbox")
        return
    yield ok(
        "port 25",
        "not tried: a test connection would be noticed by whoever is at the other end",
        "Many hosting companies block it until asked; `manage.py submit --wait` to an own "
        "mailbox shows whether it is open.",
    )


CHECKS = (
    Check("web", _web),
    Check("flower", _flower),
    Check("sandbox", _sandbox),
    Check("dns", _dns),
    Check("port 25", _port_25),
)
