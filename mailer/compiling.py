"""Stored content, compiled once per process and mailing."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from mailer.core import content
from mailer.core.mailboxes import parse_mailbox
from mailer.models import Content


def source_of(stored: Content, *, mailing_id: int, workspace: str) -> content.ContentSource:
    """The content as the core knows it. Feedback-ID is mailing:workspace:postroad (see Gmail's
    feedback loop, where the last field names the sender)."""
    return content.ContentSource(
        mailing_id=mailing_id,
        subject=stored.subject,
        html=stored.html,
        text=stored.text,
        from_header=parse_mailbox(stored.from_header),
        reply_to=parse_mailbox(stored.reply_to) if stored.reply_to else None,
        headers=tuple((name, value) for name, value in stored.headers),
        boundary_seed=stored.digest,
        feedback_id=f"{mailing_id}:{workspace}:postroad",
    )


@lru_cache(maxsize=200)
def compiled(content_id: int, mailing_id: int) -> tuple[Content, content.CompiledContent]:
    """Content never changes once stored, so what was compiled stays true."""
    stored = Content.objects.select_related("workspace").get(pk=content_id)
    source = source_of(stored, mailing_id=mailing_id, workspace=stored.workspace.slug)
    return stored, content.compile(source)


def missing_fields(stored: Content, context: Mapping[str, object]) -> list[str]:
    """The fields that the content shows without a stand-in and that `context` does not give."""
    source = source_of(stored, mailing_id=0, workspace=stored.workspace.slug)
    return sorted(content.fields_used(source).unguarded - context.keys())
