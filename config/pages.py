"""Pages of docs/ that are made from the code: diagrams from tables, tables from data."""

from __future__ import annotations

import json
from datetime import timedelta

from campaigns.core import lifecycle as campaign_lifecycle
from config.variables import VARIABLES
from deliverability.rules import reply_rules
from mailer.core import lifecycle
from mailer.core.retry import POLICIES, Exponential, Ladder, RetryPolicy

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
        f"| --- | --- | --- |\n{rows}\n\n{_written_policies()}"
    )


_EXAMPLES = (
    RetryPolicy(
        Exponential(timedelta(minutes=1), 3.0, timedelta(hours=1)), timedelta(hours=12), 0.2
    ),
    RetryPolicy(
        Ladder((timedelta(minutes=2), timedelta(minutes=10)), repeats_last=True),
        timedelta(hours=6),
    ),
)
_USUAL, _USUAL_STEPS = RetryPolicy(), Exponential()
#: Key, of which kind, default, meaning.
RETRY_KEYS = (
    ("kind", "both", "required", "`exponential` or `ladder`"),
    ("first_delay_seconds", "exponential", _USUAL_STEPS.first_delay, "wait after the first try"),
    (
        "growth_ratio",
        "exponential",
        _USUAL_STEPS.growth,
        "each further wait is so many times the last: 1 to 10",
    ),
    ("max_delay_seconds", "exponential", _USUAL_STEPS.max_delay, "no wait is longer"),
    (
        "delays_seconds",
        "ladder",
        "required",
        "list of the waits, none shorter than the last",
    ),
    (
        "repeats_last",
        "ladder",
        False,
        "`true`: goes on at the last wait's pace; `false`: gives up after the last",
    ),
    ("max_age_seconds", "both", _USUAL.max_age, "gives up when the next try would be later"),
    (
        "jitter_ratio",
        "both",
        _USUAL.jitter,
        "each wait grows by up to this share, by chance: 0 to 1",
    ),
)


def _written_policies() -> str:
    """How to write a policy of one's own, from the policies' own JSON."""
    rows = "\n".join(
        f"| `{key}` | {kind} | {_as_json(usual)} | {meaning} |"
        for key, kind, usual, meaning in RETRY_KEYS
    )
    written = "\n".join(f"```json\n{json.dumps(one.spec())}\n```\n" for one in _EXAMPLES)
    return (
        "## A policy of one's own\n\nWhere a policy is chosen (in a campaign, or by `--retry`), "
        "JSON can stand instead of a\nname. A key that is left out has its default; one that is "
        "not in the table is refused.\n\n"
        f"| key | kind | default | meaning |\n| --- | --- | --- | --- |\n{rows}\n\n"
        f"One of each kind:\n\n{written}\n"
        "On the command line it stands in single quotation marks:\n\n"
        f"    bin/manage campaign create … --retry '{_SHORT}'\n"
    )


_SHORT = '{"kind": "ladder", "delays_seconds": [10, 60]}'


def _as_json(usual: object) -> str:
    if isinstance(usual, timedelta):
        return f"`{usual.total_seconds():.0f}` ({usual})"
    return usual if isinstance(usual, str) else f"`{json.dumps(usual)}`"


def _waits(policy: RetryPolicy) -> str:
    waits = []
    for number in range(1, 9):
        wait = policy.delay_after(number)
        if wait is None:
            return ", ".join(waits) + ", then gives up"
        waits.append(str(wait))
    return ", ".join(waits) + ", …"
