"""The door into the mailer: everything that is to be sent enters here.

A campaign freezes its content, opens a mailing and hands over its audience page by page; a
transactional request hands over one message. Each call is one transaction; what is to be
published afterwards is returned, and the caller's shell publishes it after the commit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import orjson
from django.db import connection, transaction

from deliverability.models import Pool, Workspace
from deliverability.suppressions import IS_SUPPRESSED_SQL
from mailer import account, compiling, conf, partitions
from mailer.core import content as content_core
from mailer.core.envelope import checked
from mailer.core.mailboxes import parse_mailbox
from mailer.core.retry import policy_from
from mailer.models import Content, Expansion, Mailing, MailingKind
from mailer.transactional import Accepted, Request, submit

__all__ = [
    "Accepted",
    "DifferentMailing",
    "MailingNotOpen",
    "PageReport",
    "Request",
    "accept_page",
    "cancel",
    "cancel_waiting",
    "freeze_content",
    "open_mailing",
    "pause",
    "resume",
    "submit",
]

DEFAULT_PAGE = 10_000
CANCEL_STEPS = 20  #: of up to 50 batches and 10,000 deferred messages each


class MailingNotOpen(Exception):
    """The mailing is cancelled or finished: nothing can be added to it."""


class DifferentMailing(Exception):
    """The reference was used on that day for a mailing with other content or policy."""


@dataclass(frozen=True, slots=True)
class PageReport:
    """What one page of an audience came to. matched = added + the sum of `excluded`."""

    matched: int
    added: int
    excluded: dict[str, int]
    cursor: int
    done: bool


def freeze_content(
    workspace: Workspace,
    *,
    subject: str,
    html: str,
    text: str,
    from_header: str,
    reply_to: str = "",
    return_path: str = "",
    headers: Sequence[tuple[str, str]] = (),
) -> Content:
    """Store content once and for good. Compiles it first: what cannot be rendered is refused.

    Raises `InvalidTemplate` or `InvalidHeader`, both saying what to do.
    """
    frozen = {
        "subject": subject,
        "html": html,
        "text": text,
        "from_header": from_header,
        "reply_to": reply_to,
        "return_path": checked(return_path or parse_mailbox(from_header).address),
        "headers": [list(header) for header in headers],
    }
    draft = Content(workspace=workspace, digest="draft", **frozen)
    source = compiling.source_of(draft, mailing_id=0, workspace=workspace.slug)
    content_core.compile(source)
    used = content_core.fields_used(source)
    digest = hashlib.sha256(orjson.dumps(frozen, option=orjson.OPT_SORT_KEYS)).hexdigest()
    stored, _ = Content.objects.get_or_create(
        workspace=workspace,
        digest=digest,
        defaults={**frozen, "fields": None if used.has_dynamic_lookup else sorted(used.names)},
    )
    return stored


def open_mailing(
    workspace: Workspace,
    *,
    reference: str,
    name: str,
    content: Content,
    pool: Pool,
    priority: int,
    retry: str | Mapping[str, object],
    unsubscribe_scope: str,
    day: date,
) -> Mailing:
    """Open a campaign's mailing. The same reference on the same day gives the same mailing."""
    if pool.workspace_id not in (None, workspace.pk):
        raise ValueError(f"pool {pool} belongs to another workspace")
    spec = policy_from(retry).spec()
    partitions.ensure(day)
    with transaction.atomic():
        mailing, is_new = Mailing.objects.get_or_create(
            workspace=workspace,
            reference=reference,
            day=day,
            defaults={
                "kind": MailingKind.CAMPAIGN,
                "name": name,
                "pool": pool,
                "priority": priority,
                "content": content,
                "retry": spec,
                "unsubscribe_scope": unsubscribe_scope,
            },
        )
        if is_new:
            Expansion.objects.create(mailing=mailing)
        elif mailing.content_id != content.pk or mailing.pool_id != pool.pk:
            raise DifferentMailing(f"{reference} was already opened on {day} with other content")
    return mailing


_PAGE_SQL = """
WITH page AS MATERIALIZED ({select}),
judged AS MATERIALIZED (
    SELECT page.*, coalesce(page.exclusion,
        CASE WHEN {suppressed} THEN 'suppressed' END) AS why FROM page),
added AS (
    INSERT INTO mailer_message (mailing_day, mailing_id, dedup_key, recipient_id, address,
                                recipient_domain, context, state)
    SELECT %(mailing_day)s, %(mailing_id)s, j.recipient_id::text, j.recipient_id, j.address,
           j.domain, j.context, 'waiting'
    FROM judged j WHERE j.why IS NULL ORDER BY j.recipient_id
    ON CONFLICT (mailing_day, mailing_id, dedup_key) DO NOTHING
    RETURNING id, recipient_domain),
laned AS (
    SELECT a.id, coalesce(r.provider, '') AS provider,
           (row_number() OVER (PARTITION BY r.provider ORDER BY a.id) - 1) / %(batch_size)s AS part
    FROM added a LEFT JOIN mailer_route r
        ON r.domain = a.recipient_domain AND r.state <> 'failed'
        AND r.expires_at > statement_timestamp()),
laid AS (
    INSERT INTO mailer_batch (mailing_day, mailing_id, pool_id, provider, priority, ids)
    SELECT %(mailing_day)s, %(mailing_id)s, %(pool_id)s, provider, %(priority)s,
           array_agg(id ORDER BY id)
    FROM laned GROUP BY provider, part)
SELECT why, count(*), max(recipient_id), (SELECT count(*) FROM added) FROM judged GROUP BY why
"""


def accept_page(
    mailing: Mailing, select_sql: str, params: Mapping[str, Any], *, page: int = DEFAULT_PAGE
) -> PageReport:
    """Turn the next page of an audience into messages and batches, in one transaction.

    `select_sql` gives (recipient_id, address, address_key, domain, context, exclusion) of the
    recipients after %(cursor)s, in order of recipient_id, at most %(page)s of them. The cursor
    is kept here, under a lock: two callers in parallel take different pages, and a page that
    was committed is never taken again. Addresses must be normalised.
    """
    with transaction.atomic():
        expansion = Expansion.objects.select_for_update().get(mailing=mailing)
        state = Mailing.objects.values_list("state", flat=True).get(pk=mailing.pk)
        if state == "cancelled":
            raise MailingNotOpen(f"mailing {mailing.pk} was cancelled")
        if expansion.done:
            return PageReport(0, 0, {}, expansion.cursor, True)
        counts, added = _add_page(mailing, select_sql, params, expansion.cursor, page)
        return _advance(mailing, expansion, counts, added, page)


def _add_page(
    mailing: Mailing, select_sql: str, params: Mapping[str, Any], cursor_at: int, page: int
) -> tuple[list[tuple[str | None, int, int]], int]:
    sql = _PAGE_SQL.format(select=select_sql, suppressed=IS_SUPPRESSED_SQL)
    with connection.cursor() as cursor:
        cursor.execute(
            sql,
            {
                **params,
                "cursor": cursor_at,
                "page": page,
                "mailing_day": mailing.day,
                "mailing_id": mailing.pk,
                "workspace_id": mailing.workspace_id,
                "unsubscribe_scope": mailing.unsubscribe_scope,
                "pool_id": mailing.pool_id,
                "priority": mailing.priority,
                "batch_size": conf.delivery_policy().batch_size,
            },
        )
        rows = cursor.fetchall()
    return [row[:3] for row in rows], rows[0][3] if rows else 0


def _advance(
    mailing: Mailing,
    expansion: Expansion,
    counts: list[tuple[str | None, int, int]],
    added: int,
    page: int,
) -> PageReport:
    matched = sum(count for _, count, _ in counts)
    excluded = {why: count for why, count, _ in counts if why is not None}
    repeated = matched - sum(excluded.values()) - added
    if repeated:
        excluded["duplicate"] = repeated
    expansion.cursor = max([expansion.cursor, *(last for _, _, last in counts)])
    expansion.matched += matched
    for why, count in excluded.items():
        expansion.excluded[why] = expansion.excluded.get(why, 0) + count
    expansion.done = matched < page
    expansion.save()
    account.note(mailing.pk, {"waiting": added})
    if expansion.done:
        Mailing.objects.filter(pk=mailing.pk, state="expanding").update(state="running")
    return PageReport(matched, added, excluded, expansion.cursor, expansion.done)


def pause(mailing_id: int) -> bool:
    """Stop sending before the next SMTP window of every worker. False: it was not running."""
    return bool(
        Mailing.objects.filter(pk=mailing_id, state__in=["expanding", "running"]).update(
            state="paused"
        )
    )


def resume(mailing_id: int) -> bool:
    """Go on sending, and expanding where that was not done. False: it was not paused."""
    with transaction.atomic():
        # Under the lock of `accept_page`, so that its last page cannot be missed.
        expansion = Expansion.objects.select_for_update().filter(mailing=mailing_id).first()
        state = "running" if expansion is None or expansion.done else "expanding"
        return bool(Mailing.objects.filter(pk=mailing_id, state="paused").update(state=state))


def cancel(mailing_id: int) -> bool:
    """Cancel what waits, for good. What is being sent right now comes to its end.

    Of a very large mailing the upkeep cancels the rest, in steps. False: it was already
    cancelled or finished.
    """
    mailings = Mailing.objects.exclude(state__in=["cancelled", "finished"])
    if not mailings.filter(pk=mailing_id).update(state="cancelled"):
        return False
    for _ in range(CANCEL_STEPS):
        if not cancel_waiting([mailing_id]):
            break
    return True


def cancel_waiting(mailing_ids: Iterable[int], limit: int = 50) -> int:
    """Cancel up to `limit` untaken batches, and deferred messages, of cancelled mailings.

    Returns how many messages it cancelled. The upkeep calls it too, for what a worker gave
    back after the mailing was cancelled.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            """
            WITH ended AS (
                UPDATE mailer_batch SET state = 'done' WHERE id IN (
                    SELECT b.id FROM mailer_batch b JOIN mailer_mailing m ON m.id = b.mailing_id
                    WHERE b.mailing_id = ANY(%(ids)s) AND b.state = 'untaken'
                      AND m.state = 'cancelled'
                    LIMIT %(limit)s FOR UPDATE OF b SKIP LOCKED)
                RETURNING mailing_day, ids),
            doomed AS (
                SELECT mailing_day, unnest(ids) AS id FROM ended
                UNION ALL
                (SELECT w.mailing_day, w.id
                 FROM mailer_message w JOIN mailer_mailing m ON m.id = w.mailing_id
                 WHERE w.due_at IS NOT NULL AND w.mailing_id = ANY(%(ids)s)
                   AND m.state = 'cancelled' LIMIT 10000)),
            cancelled AS (
                UPDATE mailer_message w SET state = 'cancelled', due_at = NULL,
                    settled_at = statement_timestamp(), reason = 'cancelled'
                FROM doomed d WHERE w.mailing_day = d.mailing_day AND w.id = d.id
                  AND w.state = 'waiting'
                RETURNING w.mailing_id)
            SELECT mailing_id, count(*) FROM cancelled GROUP BY mailing_id
            """,
            {"ids": list(mailing_ids), "limit": limit},
        )
        counts = cursor.fetchall()
        for mailing_id, count in counts:
            account.note(mailing_id, {"waiting": -count, "cancelled": count})
    return sum(count for _, count in counts)
