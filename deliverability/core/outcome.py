"""The words in which one delivery attempt is told: reply, phase, outcome, verdict.

Pure values. The transport fills in what it saw (`Reply`, `Phase`), `classify` says what
that means (`Verdict`), and the mailer decides what happens to the message. Nothing here
decides anything by itself.

RFC 5321 section 4.2 (replies), RFC 3463 (enhanced status codes).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Phase(enum.StrEnum):
    """The step of the SMTP conversation at which a reply, or silence, was met."""

    ROUTE = "route"  #: before any connection: DNS said something about the domain
    CONNECT = "connect"  #: TCP
    GREETING = "greeting"  #: the 220 banner
    EHLO = "ehlo"
    TLS = "tls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"  #: the answer to DATA, before any content
    CONTENT = "content"  #: after the final dot (or BDAT LAST)


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server said, kept whole. `code` 0 means that no reply came; `text` says why."""

    code: int
    enhanced: str  #: RFC 3463 status such as "5.1.1"; "" when the server gave none
    text: str  #: all lines joined by "\n", without codes; at most 2,000 characters
    phase: Phase


class OutcomeKind(enum.StrEnum):
    """What an attempt led to."""

    ACCEPTED = "accepted"  #: 250 after the content
    DEFERRED = "deferred"  #: 4yz: the same message may pass later
    REJECTED = "rejected"  #: refused for good
    UNREACHED = "unreached"  #: no server answered before any content went out
    THROTTLED = "throttled"  #: asked for less, by us or by the provider; not a failure
    IN_DOUBT = "in_doubt"  #: the content went out and the reply was lost
    BROKEN = "broken"  #: our own fault: the message could not be rendered or handled


class Scope(enum.StrEnum):
    """What a failure says something about. Only RECIPIENT may ever suppress a recipient."""

    RECIPIENT = "recipient"
    RECIPIENT_DOMAIN = "recipient_domain"
    PATH = "path"  #: this source at this provider
    SOURCE = "source"
    SENDER_DOMAIN = "sender_domain"
    CAMPAIGN = "campaign"
    MESSAGE = "message"
    PROVIDER = "provider"
    ROUTE = "route"
    UNKNOWN = "unknown"


class Action(enum.StrEnum):
    """What follows for the recipient or the path, beside the retry of the message."""

    NONE = "none"
    SUPPRESS = "suppress"  #: never write to this recipient again
    SLOW_PATH = "slow_path"  #: send less from this source to this provider
    OTHER_SOURCE = "other_source"  #: the message may pass from another source
    ALARM = "alarm"  #: a person must mend our set-up


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reply means."""

    kind: OutcomeKind
    reason: str  #: a word of the taxonomy in `rules/replies.toml`, such as "unknown_recipient"
    scope: Scope
    action: Action
    rule: str  #: id of the rule that decided, so that a person can find and change it
