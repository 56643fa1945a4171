"""Rules as data, read once: reply classification and the table of mailbox providers.

The only place that opens the files. What they mean is in `deliverability.core`.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from deliverability.core.classify import ReplyRules, load_rules
from deliverability.core.provider import ProviderRules, load_provider_rules


@cache
def reply_rules() -> ReplyRules:
    """The rules that say what a server's reply means."""
    return load_rules(_text("replies.toml"))


@cache
def provider_rules() -> ProviderRules:
    """The table of mailbox providers."""
    return load_provider_rules(_text("providers.toml"))


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
