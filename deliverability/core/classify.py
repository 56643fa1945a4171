"""What a server's reply means: whose fault it is, what follows, and which rule said so.

Pure. `classify` goes through rules in five tiers and takes the first that fits:

1. provider: a rule for this provider's own way of saying things
2. token: a code that only one provider uses, such as [TSS04] or (S3150), whoever relays it
3. text: words that mean the same everywhere
4. enhanced: the RFC 3463 status code, when the text said nothing
5. basic: the class of the reply (RFC 5321 section 4.2.1)

A rule only names a reason. What a reason means (its scope, and what follows after a 4yz or a 5yz)
stands once, in the table of reasons, so that no two rules can disagree.

Three promises hold whatever the rules say, because the loader refuses rules that break them and
the matching leaves out what does not apply: a 4yz never suppresses; only scope `recipient`
suppresses; a reply given before RCPT says nothing about the recipient.

The rules are data (`rules/replies.toml`), each with samples that must match and must not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from deliverability.core.outcome import Action, OutcomeKind, Phase, Reply, Scope, Verdict

#: Replies to these steps may speak of the recipient. A 550 to MAIL speaks of the sender.
RECIPIENT_PHASES: Final = frozenset({Phase.RCPT, Phase.DATA, Phase.CONTENT, Phase.ROUTE})

_ABOUT_RECIPIENT: Final = frozenset({Scope.RECIPIENT, Scope.RECIPIENT_DOMAIN})

#: What a server that has not yet seen a sender can speak of. Unclear replies are left to the
#: basic tier then, which tries another source instead of ending the message.
_BEFORE_MAIL: Final = frozenset({Phase.CONNECT, Phase.GREETING, Phase.EHLO, Phase.TLS})
_ABOUT_US: Final = frozenset({Scope.PATH, Scope.SOURCE, Scope.PROVIDER, Scope.ROUTE})

_ADDRESS = re.compile(r"[^\s<>:;,()\[\]\"']+@[^\s<>:;,()\[\]\"']+")
_LINE_START = re.compile(r"(?m)^\s*(?:\d{3}[ ,-]\s*)?(?:[245]\.\d{1,3}\.\d{1,3}[ ,:-]\s*)?")
_STATUS = re.compile(r"(?<![\d.])([245])\.([0-7])\.(\d{1,3})(?![\d.]*\d)")


class NoRuleFits(LookupError):
    """The table of rules is not complete. Never for the shipped one, as its tests prove."""


@dataclass(frozen=True, slots=True)
class Meaning:
    kind: OutcomeKind
    action: Action


@dataclass(frozen=True, slots=True)
class Reason:
    """A word of the taxonomy and what it means."""

    name: str
    title: str  #: for people
    scope: Scope
    transient: Meaning  #: after a 4yz
    permanent: Meaning  #: after a 5yz


@dataclass(frozen=True, slots=True)
class Rule:
    """One way to know a reason. Empty sets and a `None` pattern mean "any"."""

    id: str
    tier: str
    reason: Reason
    providers: frozenset[str]
    phases: frozenset[Phase]
    classes: frozenset[int]  #: first digit of the code
    codes: frozenset[int]
    statuses: frozenset[str]  #: subject and detail of the enhanced code, such as "1.1"
    pattern: re.Pattern[str] | None
    matches: tuple[str, ...]  #: samples that this rule must decide
    misses: tuple[str, ...]  #: samples that it must not
    origin: str

    def fits(self, seen: Seen) -> bool:
        if not self._may_speak(seen):
            return False
        return (
            (not self.providers or seen.provider in self.providers)
            and (not self.phases or seen.phase in self.phases)
            and (not self.classes or seen.code // 100 in self.classes)
            and (not self.codes or seen.code in self.codes)
            and (not self.statuses or seen.status in self.statuses)
            and (self.pattern is None or self.pattern.search(seen.text) is not None)
        )

    def _may_speak(self, seen: Seen) -> bool:
        scope = self.reason.scope
        if scope in _ABOUT_RECIPIENT:
            return seen.phase in RECIPIENT_PHASES
        if seen.phase in _BEFORE_MAIL and seen.code // 100 == 5:
            return scope in _ABOUT_US
        return True


@dataclass(frozen=True, slots=True)
class Seen:
    """A reply, normalised for matching."""

    provider: str
    phase: Phase
    code: int
    status: str  #: "1.1" for an enhanced code of 5.1.1; "" if there is none
    text: str  #: one line, without codes and addresses


@dataclass(frozen=True, slots=True)
class ReplyRules:
    """The reasons, and the rules in the order in which they are tried."""

    reasons: Mapping[str, Reason]
    rules: tuple[Rule, ...]


def classify(reply: Reply, provider: str, rules: ReplyRules) -> Verdict:
    """Say what the reply means. Always answers; what no rule knows follows the reply's class."""
    if reply.code == 0:
        return _silence(reply.phase)
    if reply.code // 100 == 2 and reply.phase is Phase.CONTENT:
        return Verdict(
            OutcomeKind.ACCEPTED, "accepted", Scope.RECIPIENT, Action.NONE, "accepted-after-content"
        )
    if is_refusal(reply):
        return decide(seen_in(reply, provider), rules)
    # A 2yz or 3yz where none was asked for, or a number outside SMTP: somebody is confused.
    return Verdict(
        OutcomeKind.DEFERRED, "protocol_error", Scope.ROUTE, Action.ALARM, "unexpected-reply"
    )


def is_refusal(reply: Reply) -> bool:
    return reply.code // 100 in (4, 5)


def decide(seen: Seen, rules: ReplyRules) -> Verdict:
    """Say what a refusal means: as the first rule says that fits."""
    for rule in rules.rules:
        if rule.fits(seen):
            reason = rule.reason
            meaning = reason.transient if seen.code // 100 == 4 else reason.permanent
            return Verdict(meaning.kind, reason.name, reason.scope, meaning.action, rule.id)
    raise NoRuleFits(f"a {seen.code} at {seen.phase}")


def seen_in(reply: Reply, provider: str) -> Seen:
    """Normalise a reply. Addresses go, since a local part may hold any word that a rule seeks."""
    text = " ".join(_LINE_START.sub("", reply.text).split())
    status = _STATUS.search(reply.enhanced) or _status_in(reply)
    return Seen(
        provider=provider,
        phase=reply.phase,
        code=reply.code,
        status=f"{status[2]}.{int(status[3])}" if status else "",
        text=_ADDRESS.sub("@", text),
    )


def template_of(text: str) -> str:
    """The reply text without what differs from message to message, to count like with like."""
    result = " ".join(_LINE_START.sub("", text).split())
    for pattern, replacement in _VARIABLE_PARTS:
        result = pattern.sub(replacement, result)
    return result[:300]


_VARIABLE_PARTS: Final = (
    (re.compile(r"https?://\S+"), "<url>"),
    (_ADDRESS, "<address>"),
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b"), "<ip>"),
    (re.compile(r"(?i)\b[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){3,7}\b"), "<ip>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?(?:\.\d+)?Z?)?"), "<time>"),
    (re.compile(r"(?<![\w<])(?=[\w.-]*\d)(?=[\w.-]*[A-Za-z])[\w.-]{8,}(?![\w>])"), "<id>"),
    (re.compile(r"\d{5,}"), "<number>"),
)


def _status_in(reply: Reply) -> re.Match[str] | None:
    """The enhanced code in the text, where the server put it elsewhere than at the start."""
    for found in _STATUS.finditer(reply.text):
        if int(found[1]) == reply.code // 100:
            return found
    return None


def _silence(phase: Phase) -> Verdict:
    """No reply came. What that means depends on how far the conversation had got."""
    match phase:
        case Phase.CONTENT:
            kind, reason, scope = OutcomeKind.IN_DOUBT, "reply_lost", Scope.UNKNOWN
        case Phase.ROUTE:
            kind, reason, scope = OutcomeKind.UNREACHED, "dns_failure", Scope.RECIPIENT_DOMAIN
        case Phase.CONNECT:
            kind, reason, scope = OutcomeKind.UNREACHED, "host_down", Scope.PATH
        case Phase.TLS:
            kind, reason, scope = OutcomeKind.UNREACHED, "tls_failed", Scope.PATH
        case _:
            kind, reason, scope = OutcomeKind.UNREACHED, "timeout", Scope.PATH
    return Verdict(kind, reason, scope, Action.NONE, f"no-reply-at-{phase}")
