"""Rules as data, read once: reply classification and the table of mailbox providers.

The only place that opens the files. What they mean is in `deliverability.core`.
"""

from __future__ import annotations

from functools import cache, lru_cache
from importlib.resources import files

from deliverability.core.classify import ReplyRules, Seen, decide, is_refusal, seen_in
from deliverability.core.classify import classify as classify_by
from deliverability.core.outcome import Reply, Verdict
from deliverability.core.provider import ProviderRules, load_provider_rules
from deliverability.core.reply_rules import load_rules


@cache
def reply_rules() -> ReplyRules:
    """The rules that say what a server's reply means."""
    return load_rules(_text("replies.toml"))


@cache
def provider_rules() -> ProviderRules:
    """The table of mailbox providers."""
    return load_provider_rules(_text("providers.toml"))


def classify(reply: Reply, provider: str) -> Verdict:
    """Say what a reply means by the rules that are shipped."""
    if is_refusal(reply):
        return _decided(seen_in(reply, provider))
    return classify_by(reply, provider, reply_rules())


# A hundred patterns cost a quarter of a millisecond, and a provider says the same thing, but for
# the address, to thousands of messages in a row.
@lru_cache(maxsize=4096)
def _decided(seen: Seen) -> Verdict:
    return decide(seen, reply_rules())


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
