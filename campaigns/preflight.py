"""Finds out what `core/preflight.py` judges: the campaign's content, audience and pool.

Reads only. Cheap on lists of millions: the audience is sampled, and searched as a whole only
for a field that the sample does not have.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from django.db import connection

from campaigns.core import preflight as core
from campaigns.core.preflight import Facts, Finding, Severity
from campaigns.core.retry_choice import retry_from
from campaigns.models import Campaign, List, Subscription, TemplateVersion
from deliverability.models import SourceState
from mailer import conf
from mailer.core import content
from mailer.core.mailboxes import parse_mailbox
from mailer.core.retry import InvalidRetryPolicy

__all__ = ["Finding", "Severity", "check", "known_fields"]

_SAMPLE_SIZE = 1_000
_MIN_GAP_RATIO = 0.01


def check(campaign: Campaign) -> tuple[Finding, ...]:
    """All findings about the campaign as it stands, the blocking ones first."""
    version = campaign.template.latest
    lists = list(campaign.lists.all())
    return core.judge(
        Facts(
            **_content_facts(campaign, version),
            **_audience_facts(campaign, lists),
            **_field_facts(version, [row.pk for row in lists]),
            **_pool_facts(campaign),
            retry_error=_error(retry_from, campaign.retry_policy, InvalidRetryPolicy),
            is_public_url_local=_is_local(conf.place().public_url),
            is_sandbox=conf.place().is_sandbox,
        )
    )


def known_fields(list_ids: Sequence[int]) -> frozenset[str]:
    """The merge fields that a sample of the lists' recipients has."""
    return frozenset(_sample(list_ids)[1])


def _content_facts(campaign: Campaign, version: TemplateVersion | None) -> dict[str, Any]:
    if version is None:
        return {"has_version": False}
    reply_to = campaign.reply_to
    return {
        "subject": version.subject,
        "html": version.html,
        "text": version.text,
        "template_errors": _template_errors(version),
        "from_error": _error(parse_mailbox, campaign.from_header, content.InvalidHeader),
        "reply_to_error": _error(parse_mailbox, reply_to, content.InvalidHeader)
        if reply_to
        else "",
    }


def _template_errors(version: TemplateVersion) -> tuple[str, ...]:
    """What compiling says. The parts are looked at one by one, so that each error is named."""
    parts = ("subject", "html", "text")
    errors = []
    for part in parts:
        written = getattr(version, part)
        alone = {"subject": "", "html": "", "text": "", part: written}
        error = _error(
            content.compile, _source(**alone), (content.InvalidTemplate, content.InvalidHeader)
        )
        if written and error:
            errors.append(error)
    return tuple(errors)


def _source(subject: str, html: str, text: str) -> content.ContentSource:
    anybody = content.Mailbox("nobody@localhost.localdomain")
    return content.ContentSource(
        mailing_id=0, subject=subject, from_header=anybody, html=html, text=text or " "
    )


def _error(
    parse: Callable[[Any], object],
    value: object,
    errors: type[Exception] | tuple[type[Exception], ...],
) -> str:
    try:
        parse(value)
    except errors as problem:
        return str(problem)
    return ""


def _audience_facts(campaign: Campaign, lists: list[List]) -> dict[str, Any]:
    foreign = [row.name for row in lists if row.workspace_id != campaign.workspace_id]
    subscribed = Subscription.objects.filter(list__in=lists, state="subscribed")
    return {
        "list_names": tuple(row.name for row in lists),
        "foreign_lists": tuple(foreign),
        "has_audience": subscribed.exists(),
    }


def _field_facts(version: TemplateVersion | None, list_ids: list[int]) -> dict[str, Any]:
    if version is None:
        return {}
    try:
        used = content.fields_used(_source(version.subject, version.html, version.text))
    except content.InvalidTemplate:
        return {}
    size, counts = _sample(list_ids)
    if not size:
        return {}
    exposed = used.unguarded
    absent = _had_by_nobody(exposed - counts.keys(), list_ids)
    gaps = {name: 1 - counts.get(name, 0) / size for name in exposed - absent}
    return {
        "absent_fields": frozenset(absent),
        "known_fields": frozenset(counts),
        "gap_ratios": {name: gap for name, gap in gaps.items() if gap >= _MIN_GAP_RATIO},
    }


# The oldest and the newest of each list: fields come and go with imports.
_SAMPLE_SQL = """
WITH picked AS (
    SELECT DISTINCT s.recipient_id
    FROM unnest(%(lists)s::bigint[]) AS l(id) CROSS JOIN LATERAL (
        (SELECT recipient_id FROM campaigns_subscription
         WHERE list_id = l.id ORDER BY recipient_id LIMIT %(size)s)
        UNION ALL
        (SELECT recipient_id FROM campaigns_subscription
         WHERE list_id = l.id ORDER BY recipient_id DESC LIMIT %(size)s)) s),
fields AS (
    SELECT a.key, count(*) AS n
    FROM picked p JOIN campaigns_recipient r ON r.id = p.recipient_id
    CROSS JOIN LATERAL jsonb_each(r.attributes) AS a
    WHERE a.value NOT IN ('""', 'null') GROUP BY a.key)
SELECT (SELECT count(*) FROM picked),
       (SELECT coalesce(jsonb_object_agg(key, n), '{}') FROM fields)
"""

_HAD_SQL = """
SELECT EXISTS (
    SELECT 1 FROM campaigns_subscription s JOIN campaigns_recipient r ON r.id = s.recipient_id
    WHERE s.list_id = ANY(%(lists)s) AND s.state = 'subscribed' AND r.attributes ? %(name)s)
"""


def _sample(list_ids: Sequence[int]) -> tuple[int, dict[str, int]]:
    """How many recipients were looked at, and how many of them have each field."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT n, f::text FROM (" + _SAMPLE_SQL + ") AS sample(n, f)",
            {"lists": list(list_ids), "size": _SAMPLE_SIZE},
        )
        size, fields = cursor.fetchone()
    return size, json.loads(fields)


def _had_by_nobody(names: frozenset[str], list_ids: list[int]) -> set[str]:
    absent = set()
    with connection.cursor() as cursor:
        for name in names:
            cursor.execute(_HAD_SQL, {"lists": list_ids, "name": name})
            if not cursor.fetchone()[0]:
                absent.add(name)
    return absent


def _pool_facts(campaign: Campaign) -> dict[str, Any]:
    pool = campaign.pool
    states = list(pool.sources.values_list("state", flat=True))
    return {
        "pool_name": pool.name,
        "is_pool_foreign": pool.workspace_id not in (None, campaign.workspace_id),
        "sources_count": len(states),
        "usable_sources_count": sum(state != SourceState.QUARANTINED for state in states),
    }


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")
