"""Reading the table of reply rules, and refusing one that could do harm.

Pure: takes the text of the file. Refused are: a rule that could suppress after a 4yz or for a
scope other than the recipient, rules out of the order of their tiers, unknown reasons or fields,
doubled ids, rules without a sample, and patterns that do not compile. So a mistake in the table
stops the start instead of costing somebody their subscribers.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any

from deliverability.core.classify import Meaning, Reason, ReplyRules, Rule
from deliverability.core.outcome import Action, OutcomeKind, Phase, Reply, Scope

TIERS = ("provider", "token", "text", "enhanced", "basic")

_RULE_FIELDS = {
    "id", "reason", "providers", "phases", "classes", "codes", "statuses", "pattern",
    "matches", "misses", "origin",
}  # fmt: skip
_NEEDED = {
    "provider": "providers",
    "token": "pattern",
    "text": "pattern",
    "enhanced": "statuses",
    "basic": "classes",
}
_SAMPLE = re.compile(r"(?s)(\w+) (\d{3})[ -](?:(\d\.\d{1,3}\.\d{1,3})(?: |$))?(.*)")


class InvalidReplyRules(ValueError):
    """The table cannot be used; the text names the rule and what is wrong with it."""


def load_rules(text: str) -> ReplyRules:
    """Read the table. Raises `InvalidReplyRules`."""
    try:
        table = tomllib.loads(text)
        reasons = {name: _reason(name, entry) for name, entry in table.pop("reason").items()}
        tiers = {tier: table.pop(tier) for tier in TIERS}
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise InvalidReplyRules(f"not a table of reply rules: {error!r}") from error
    if table:
        raise InvalidReplyRules(f"unknown parts: {', '.join(table)}")
    rules = tuple(
        _rule(tier, entry, reasons) for tier, entries in tiers.items() for entry in entries
    )
    ids = [rule.id for rule in rules]
    for rule_id in ids:
        if ids.count(rule_id) > 1:
            raise InvalidReplyRules(f"{rule_id}: there are two rules of this name")
    return ReplyRules(reasons, rules)


def parse_sample(sample: str) -> Reply:
    """Read a sample such as `rcpt 550 5.1.1 User unknown`."""
    found = _SAMPLE.fullmatch(sample)
    if found is None:
        raise InvalidReplyRules(f"{sample!r} is not 'phase code text'")
    phase, code, enhanced, text = found.groups()
    try:
        return Reply(int(code), enhanced or "", text, Phase(phase))
    except ValueError as error:
        raise InvalidReplyRules(f"{sample!r}: {error}") from error


def _reason(name: str, entry: Mapping[str, Any]) -> Reason:
    try:
        reason = Reason(
            name,
            str(entry["title"]),
            Scope(entry["scope"]),
            transient=_meaning(entry["after_4yz"]),
            permanent=_meaning(entry["after_5yz"]),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise InvalidReplyRules(f"reason {name}: {error!r}") from error
    ends_message = reason.transient.kind is OutcomeKind.REJECTED
    if ends_message or reason.transient.action is Action.SUPPRESS:
        raise InvalidReplyRules(f"reason {name}: a 4yz neither suppresses nor ends a message")
    if reason.permanent.action is Action.SUPPRESS and reason.scope is not Scope.RECIPIENT:
        raise InvalidReplyRules(f"reason {name}: only scope 'recipient' suppresses")
    return reason


def _meaning(words: list[str]) -> Meaning:
    kind, action = words
    return Meaning(OutcomeKind(kind), Action(action))


def _rule(tier: str, entry: Mapping[str, Any], reasons: Mapping[str, Reason]) -> Rule:
    rule_id = str(entry.get("id", "a rule without id"))
    if unknown := entry.keys() - _RULE_FIELDS:
        raise InvalidReplyRules(f"{rule_id}: unknown fields {', '.join(sorted(unknown))}")
    if _NEEDED[tier] not in entry or not entry.get("matches"):
        raise InvalidReplyRules(f"{rule_id}: a {tier} rule needs {_NEEDED[tier]} and a sample")
    try:
        return Rule(
            id=entry["id"],
            tier=tier,
            reason=reasons[entry["reason"]],
            providers=frozenset(entry.get("providers", ())),
            phases=frozenset(Phase(phase) for phase in entry.get("phases", ())),
            classes=frozenset(entry.get("classes", ())),
            codes=frozenset(entry.get("codes", ())),
            statuses=frozenset(entry.get("statuses", ())),
            pattern=_pattern(entry),
            matches=tuple(entry["matches"]),
            misses=tuple(entry.get("misses", ())),
            origin=str(entry["origin"]),
        )
    except (KeyError, ValueError, TypeError, re.error) as error:
        raise InvalidReplyRules(f"{rule_id}: {error!r}") from error


def _pattern(entry: Mapping[str, Any]) -> re.Pattern[str] | None:
    if "pattern" not in entry:
        return None
    return re.compile("|".join(f"(?:{part})" for part in entry["pattern"]), re.IGNORECASE)
