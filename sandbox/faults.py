"""Faults are addresses: which local part makes a server misbehave, and how.

Decides only what a recipient asks for; `reception` carries it out. A fault is named by the
whole local part or by its beginning up to a hyphen, in any case, and a `+tag` is ignored:
`unknown@`, `Unknown-17@` and `unknown+news@` all mean the same. Where a fault takes a number
it follows the name: `tempfail-3@`, `tempfail-3-anna@`.

docs/sandbox.md shows this table; a test keeps the two in step.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass


class Effect(enum.Enum):
    """What the server does. The first four happen at RCPT, the others around the content."""

    DEFER_RECIPIENT = enum.auto()
    REFUSE_RECIPIENT = enum.auto()
    CLOSE_AT_RECIPIENT = enum.auto()
    GREYLIST = enum.auto()
    RATE_LIMIT = enum.auto()
    CUT_IN_CONTENT = enum.auto()
    LOSE_REPLY = enum.auto()
    DELAY_REPLY = enum.auto()
    REFUSE_CONTENT = enum.auto()
    DEFER_CONTENT = enum.auto()


AT_RECIPIENT = frozenset(
    {
        Effect.DEFER_RECIPIENT,
        Effect.REFUSE_RECIPIENT,
        Effect.CLOSE_AT_RECIPIENT,
        Effect.GREYLIST,
        Effect.RATE_LIMIT,
    }
)


@dataclass(frozen=True, slots=True)
class FaultRule:
    """One row of the table."""

    name: str
    effect: Effect
    says: str  #: name of the reply in `providers.Texts`; "" where the server says nothing special
    meaning: str  #: for people
    number: str = ""  #: what the number counts; "" where the fault takes none
    number_by_default: int = 0
    number_at_most: int = 1000


@dataclass(frozen=True, slots=True)
class Fault:
    """What one recipient asks for. `number` is None where the address gives none."""

    rule: FaultRule
    number: int | None

    @property
    def count(self) -> int:
        """The number, or its default."""
        return self.rule.number_by_default if self.number is None else self.number


FAULTS = (
    FaultRule(
        "tempfail-data",
        Effect.DEFER_CONTENT,
        "temporary_failure",
        "451 4.3.2 after the content, the first N times for this recipient and Message-ID",
        number="N",
        number_by_default=1,
    ),
    FaultRule(
        "tempfail",
        Effect.DEFER_RECIPIENT,
        "temporary_failure",
        "451 4.3.2 at RCPT, the first N times, then accepted; the next message starts anew",
        number="N",
        number_by_default=1,
    ),
    FaultRule(
        "ratelimit",
        Effect.RATE_LIMIT,
        "rate_limited",
        "the provider's words for too much mail (421 4.7.28 and the like) at RCPT, N times, "
        "then accepted; the next message starts anew. A 421 closes the connection",
        number="N",
        number_by_default=1,
    ),
    FaultRule(
        "greylist",
        Effect.GREYLIST,
        "greylisted",
        "451 4.7.1 until a few seconds after the first try of (client, sender, recipient)",
    ),
    FaultRule(
        "full",
        Effect.REFUSE_RECIPIENT,
        "over_quota",
        "552 5.2.2 at RCPT: the mailbox is over its quota",
    ),
    FaultRule(
        "unknown",
        Effect.REFUSE_RECIPIENT,
        "unknown_recipient",
        "550 5.1.1 at RCPT: no such mailbox",
    ),
    FaultRule(
        "421",
        Effect.CLOSE_AT_RECIPIENT,
        "closing",
        "421 at RCPT, and the connection is closed, every time",
    ),
    FaultRule(
        "disconnect-in-data",
        Effect.CUT_IN_CONTENT,
        "",
        "the connection is cut while the content is read; the message is not kept",
    ),
    FaultRule(
        "lost-reply",
        Effect.LOSE_REPLY,
        "",
        "the content is accepted and kept, but the connection is cut before the 250",
    ),
    FaultRule(
        "slow",
        Effect.DELAY_REPLY,
        "",
        "accepted and kept at once, but the final 250 takes 5 seconds, or N",
        number="N",
        number_at_most=3600,
    ),
    FaultRule(
        "reject-data",
        Effect.REFUSE_CONTENT,
        "content_refused",
        "554 5.7.1 after the content: it looks like spam",
    ),
)

_BY_NAME = {rule.name: rule for rule in FAULTS}
_PATTERN = re.compile(
    "(?P<name>{})(?:-(?P<number>[0-9]{{1,6}}))?(?:-.*)?".format(
        "|".join(re.escape(name) for name in sorted(_BY_NAME, key=len, reverse=True))
    ),
    re.DOTALL,
)


def fault_for(recipient: str) -> Fault | None:
    """Say which fault the recipient's address asks for, if any."""
    local_part = recipient.rpartition("@")[0].partition("+")[0].lower()
    match = _PATTERN.fullmatch(local_part)
    if match is None:
        return None
    rule = _BY_NAME[match["name"]]
    if not rule.number or match["number"] is None:
        return Fault(rule, None)
    return Fault(rule, min(int(match["number"]), rule.number_at_most))


def table_in_markdown() -> str:
    """The table as docs/sandbox.md shows it."""
    lines = ["| Recipient | What happens |", "| --- | --- |"]
    for rule in FAULTS:
        address = f"`{rule.name}@`"
        if rule.number:
            address += f", `{rule.name}-{rule.number}@`"
        lines.append(f"| {address} | {rule.meaning} |")
    return "\n".join(lines)
