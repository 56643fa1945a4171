"""A campaign's retry policy as a person writes it, and as a person reads it.

Pure. It is written as a name or as JSON, and read in words. Decides only how the text is read
and shown; `mailer.core.retry` says what a policy may be.
"""

from __future__ import annotations

import json
from datetime import timedelta

from mailer.core.retry import Exponential, InvalidRetryPolicy, Ladder, policy_from


def retry_from(text: str) -> str | dict[str, object]:
    """Read the text and check the policy; raises `InvalidRetryPolicy` in words for people."""
    written = text.strip()
    policy: str | dict[str, object] = written
    if written.startswith("{"):
        try:
            policy = dict(json.loads(written))
        except ValueError as problem:
            raise InvalidRetryPolicy(f"the policy is not valid JSON: {problem}") from problem
    policy_from(policy)
    return policy


def retry_in_words(text: str) -> str:
    """What `retry_from` reads, said for people; raises `InvalidRetryPolicy` where it does."""
    choice = retry_from(text)
    policy = policy_from(choice)
    name = f"{choice}: " if isinstance(choice, str) else ""
    end = f"gives up after {_duration(policy.max_age)}"
    match policy.schedule:
        case Exponential(first, growth, longest):
            steps = f"first after {_duration(first)}, ×{growth:g}, at most {_duration(longest)}"
            return f"{name}{steps}, {end}"
        case Ladder(delays, repeats_last):
            steps = "after " + ", ".join(map(_duration, delays))
            last = f"then every {_duration(delays[-1])}, {end}"
            return f"{name}{steps}, {last if repeats_last else f'then gives up; {end} anyway'}"


_UNITS = (
    ("day", "days", timedelta(days=1)),
    ("h", "h", timedelta(hours=1)),
    ("min", "min", timedelta(minutes=1)),
)


def _duration(span: timedelta) -> str:
    """Exact: 90 minutes are "1 h 30 min"."""
    parts = []
    for one, many, unit in _UNITS:
        count, span = divmod(span, unit)
        if count:
            parts.append(f"{count} {one if count == 1 else many}")
    if span or not parts:
        parts.append(f"{span.total_seconds():g} s")
    return " ".join(parts)
