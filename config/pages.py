"""Pages of docs/ that are made from the code: diagrams from tables, tables from data."""

from __future__ import annotations

from campaigns.core import lifecycle as campaign_lifecycle
from config.variables import VARIABLES
from deliverability.rules import reply_rules
from mailer.core import lifecycle
from mailer.core.retry import POLICIES, RetryPolicy

_MADE = "<!-- Made by `bin/manage write_docs`. Change the code, then run it. -->\n"


def pages() -> dict[str, str]:
    """File name in docs/ → content."""
    return {
        "states.md": _states(),
        "settings.md": _settings(),
        "replies.md": _replies(),
        "retry.md": _retry(),
    }


def _states() -> str:
    drawn = [
        ("A message", lifecycle.diagram()),
        ("A mailing", lifecycle.mailing_diagram()),
        ("A campaign", campaign_lifecycle.diagram()),
    ]
    body = "\n".join(f"## {title}\n\n```mermaid\n{text}```\n" for title, text in drawn)
    return f"{_MADE}# States\n\nDrawn from the tables that the code moves by.\n\n{body}"


def _settings() -> str:
    rows = "\n".join(f"| `{one.name}` | {one.default} | {one.meaning} |" for one in VARIABLES)
    return (
        f"{_MADE}# Settings\n\nAll settings are variables of the environment. `bin/start` sets "
        "what one machine needs.\n\n| variable | default | meaning |\n| --- | --- | --- |\n"
        f"{rows}\n"
    )


def _replies() -> str:
    reasons = sorted(reply_rules().reasons.values(), key=lambda one: (one.scope, one.name))
    rows = "\n".join(
        f"| `{one.name}` | {one.title} | {one.scope} | {one.transient.kind}, {one.transient.action}"
        f" | {one.permanent.kind}, {one.permanent.action} |"
        for one in reasons
    )
    return (
        f"{_MADE}# What replies mean\n\nEach reply of a server is read by rules "
        "(`deliverability/rules/replies.toml`), which name one of these reasons. Only the scope "
        "`recipient` can ever suppress a recipient.\n\n"
        "| reason | in words | scope | after a 4yz | after a 5yz |\n"
        "| --- | --- | --- | --- | --- |\n"
        f"{rows}\n"
    )


def _retry() -> str:
    rows = "\n".join(
        f"| `{name}` | {_waits(policy)} | {policy.max_age} |" for name, policy in POLICIES.items()
    )
    return (
        f"{_MADE}# Retry policies\n\nChosen per campaign, frozen at launch. A wait grows by up to "
        "its jitter, so that retries spread.\n\n| policy | waits | gives up after |\n"
        f"| --- | --- | --- |\n{rows}\n"
    )


def _waits(policy: RetryPolicy) -> str:
    waits = []
    for number in range(1, 9):
        wait = policy.delay_after(number)
        if wait is None:
            return ", ".join(waits) + ", then gives up"
        waits.append(str(wait))
    return ", ".join(waits) + ", …"
