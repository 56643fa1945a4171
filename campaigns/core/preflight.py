"""What has to be right before a campaign is launched, and what somebody should know.

Pure: facts in, findings out. A blocking finding stops the launch; a warning does not. Each
says what is wrong and what to do about it. Never looks anything up.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

CLIPPED_BYTES = 102 * 1024  #: Gmail shows only this much of a message's HTML


class Severity(enum.StrEnum):
    BLOCKING = "blocking"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """`code` is stable, for programs; `message` and `advice` are for people."""

    code: str
    severity: Severity
    message: str
    advice: str

    @property
    def is_blocking(self) -> bool:
        return self.severity is Severity.BLOCKING


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found out about a campaign. An error is "" where there is none."""

    has_version: bool = True  #: the template has at least one version
    subject: str = ""
    html: str = ""
    text: str = ""
    template_errors: tuple[str, ...] = ()
    from_error: str = ""
    reply_to_error: str = ""
    retry_error: str = ""
    list_names: tuple[str, ...] = ()
    foreign_lists: tuple[str, ...] = ()  #: lists of other workspaces
    has_audience: bool = True
    absent_fields: frozenset[str] = frozenset()  #: used without a stand-in, nobody has them
    gap_ratios: Mapping[str, float] = field(default_factory=dict)  #: share of a sample without it
    known_fields: frozenset[str] = frozenset()
    pool_name: str = ""
    is_pool_foreign: bool = False
    sources_count: int = 0
    usable_sources_count: int = 0
    is_public_url_local: bool = False
    is_sandbox: bool = False


def judge(facts: Facts) -> tuple[Finding, ...]:
    """All findings, the blocking ones first."""
    found = [*_content(facts), *_merge_fields(facts), *_audience(facts), *_sending(facts)]
    return tuple(sorted(found, key=lambda finding: not finding.is_blocking))


def _content(facts: Facts) -> Iterator[Finding]:
    if not facts.has_version:
        yield _block("no_content", "The template has no content yet.", "Write its first version.")
        return
    if not facts.subject.strip():
        yield _block("empty_subject", "The subject is empty.", "Write one in the template.")
    if not (facts.html.strip() or facts.text.strip()):
        yield _block("empty_content", "The template has neither HTML nor text.", "Write one.")
    for error in facts.template_errors:
        yield _block("invalid_template", f"The template cannot be used: {error}", "Correct it.")
    if facts.from_error:
        yield _block("invalid_from", facts.from_error, "Correct the campaign's From.")
    if facts.reply_to_error:
        yield _block("invalid_reply_to", facts.reply_to_error, "Correct the campaign's Reply-To.")
    if "unsubscribe_url" not in facts.html + facts.text:
        yield _warn(
            "no_unsubscribe_link",
            "The content has no unsubscribe link.",
            "Mail programs offer one from the header, but readers look for it at the end: "
            "add {{ unsubscribe_url }}.",
        )
    size = len(facts.html.encode())
    if size > CLIPPED_BYTES:
        yield _warn(
            "clipped_html",
            f"The HTML has {size // 1024} KB; Gmail clips a message after 102 KB.",
            "Shorten it, or the end with the unsubscribe link is not shown.",
        )


def _merge_fields(facts: Facts) -> Iterator[Finding]:
    if facts.absent_fields:
        known = ", ".join(sorted(facts.known_fields)) or "none"
        yield _block(
            "unknown_field",
            f"No recipient has {_listed(facts.absent_fields)}.",
            f"Known fields are: {known}. Correct the name, or give it a stand-in such as "
            '{{ name | default("friend") }}.',
        )
    for name, ratio in sorted(facts.gap_ratios.items()):
        yield _warn(
            "field_gaps",
            f"{name} is empty for about {max(ratio, 0.01):.0%} of the recipients.",
            f'Give it a stand-in: {{{{ {name} | default("…") }}}}.',
        )


def _audience(facts: Facts) -> Iterator[Finding]:
    if not facts.list_names:
        yield _block("no_list", "The campaign has no list.", "Choose at least one.")
    elif facts.foreign_lists:
        yield _block(
            "foreign_list",
            f"{_listed(facts.foreign_lists)}: not of the campaign's workspace.",
            "Choose lists of this workspace.",
        )
    elif not facts.has_audience:
        yield _block(
            "empty_audience",
            f"Nobody is subscribed to {_listed(facts.list_names)}.",
            "Import recipients, or choose another list.",
        )


def _sending(facts: Facts) -> Iterator[Finding]:
    if facts.is_pool_foreign:
        yield _block(
            "foreign_pool",
            f"The pool {facts.pool_name} belongs to another workspace.",
            "Choose a pool of this workspace, or a shared one.",
        )
    elif facts.sources_count == 0:
        yield _block(
            "no_source", f"The pool {facts.pool_name} has no source.", "Add a source to the pool."
        )
    elif facts.usable_sources_count == 0:
        yield _block(
            "no_usable_source",
            f"All sources of the pool {facts.pool_name} are in quarantine.",
            "Look at the reason of each source, or choose another pool.",
        )
    if facts.retry_error:
        yield _block(
            "invalid_retry",
            f"The retry policy cannot be used: {facts.retry_error}",
            "Name one of the policies, or correct the JSON.",
        )
    if facts.is_public_url_local and not facts.is_sandbox:
        yield _warn(
            "local_links",
            "Links in the mails will point to this machine only.",
            "Set POSTROAD_PUBLIC_URL to the address that readers can reach.",
        )


def _listed(names: frozenset[str] | tuple[str, ...]) -> str:
    return ", ".join(f"“{name}”" for name in sorted(names))


def _block(code: str, message: str, advice: str) -> Finding:
    return Finding(code, Severity.BLOCKING, _ended(message), advice)


def _warn(code: str, message: str, advice: str) -> Finding:
    return Finding(code, Severity.WARNING, _ended(message), advice)


def _ended(message: str) -> str:
    """A sentence of its own: the advice follows it, and errors of parsers have no full stop."""
    return message if message.endswith((".", "!", "?")) else f"{message}."
