"""A campaign's retry policy as a person writes it: a name, or a policy as JSON.

Pure. Decides only how the text is read; `mailer.core.retry` says what a policy may be.
"""

from __future__ import annotations

import json

from mailer.core.retry import InvalidRetryPolicy, policy_from


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
