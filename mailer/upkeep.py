"""The mailer's upkeep: what beat calls every few seconds. Each step may run twice or late.

Deferred messages that are due are laid into batches; what a lost broker dropped is published
again; cancelled leftovers are ended; finished mailings are marked; old batches are deleted.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import connection, transaction

from deliverability import conf as deliverability_conf
from deliverability.counters import CountersUnavailable
from mailer import account, conf, outbox, partitions
from mailer.models import Batch, Mailing

LAY_LIMIT = 20_000
#: A request that came before midnight may be committed after it.
AFTER_MIDNIGHT = timedelta(hours=1)


def lay_due(*, now: datetime) -> int:
    """Lay deferred messages that are due into batches again. Returns how many."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            """
            WITH due AS (
                SELECT mailing_day, id FROM mailer_message WHERE due_at <= %(now)s
                ORDER BY due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED),
            freed AS (
                UPDATE mailer_message m SET due_at = NULL FROM due d
                WHERE m.mailing_day = d.mailing_day AND m.id = d.id AND m.state = 'waiting'
                RETURNING m.id, m.mailing_day, m.mailing_id, m.recipient_domain),
            laned AS (
                SELECT f.*, coalesce(r.provider, '') AS provider,
                       (row_number() OVER (PARTITION BY f.mailing_id, r.provider ORDER BY f.id) - 1)
                           / %(size)s AS part
                FROM freed f LEFT JOIN mailer_route r
                    ON r.domain = f.recipient_domain AND r.state <> 'failed'
                    AND r.expires_at > %(now)s),
            laid AS (
                INSERT INTO mailer_batch
                    (mailing_day, mailing_id, pool_id, provider, priority, ids)
                SELECT l.mailing_day, l.mailing_id, m.pool_id, l.provider, m.priority,
                       array_agg(l.id ORDER BY l.id)
                FROM laned l JOIN mailer_mailing m ON m.id = l.mailing_id
                GROUP BY l.mailing_day, l.mailing_id, m.pool_id, l.provider, m.priority, l.part)
            SELECT count(*) FROM freed
            """,
            {"now": now, "limit": LAY_LIMIT, "size": conf.delivery_policy().batch_size},
        )
        return int(cursor.fetchone()[0])


def republish(*, now: datetime) -> int:
    """Free published batches whose task may be lost, so that dispatch publishes them again.

    All of them when the broker was restarted or emptied, else those that nobody took for long.
    A task that was not lost after all finds its batch taken: nothing is sent twice.
    """
    published = Batch.objects.filter(state="untaken", published_at__isnull=False)
    try:
        was_lost = deliverability_conf.counters().broker_was_lost()
    except CountersUnavailable:
        return 0
    if not was_lost:
        published = published.filter(published_at__lt=now - conf.delivery_policy().republish_after)
    return published.update(published_at=None)


def sweep_cancelled() -> int:
    """End what workers gave back, or deferred, after its mailing was cancelled."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT DISTINCT m.id FROM mailer_mailing m
            WHERE m.state = 'cancelled' AND (
                EXISTS (SELECT 1 FROM mailer_batch b
                        WHERE b.mailing_id = m.id AND b.state = 'untaken')
                OR EXISTS (SELECT 1 FROM mailer_message w
                           WHERE w.mailing_day = m.day AND w.mailing_id = m.id
                             AND w.due_at IS NOT NULL))
              AND m.created_at > statement_timestamp() - interval '30 days'
            """
        )
        ids = [row[0] for row in cursor.fetchall()]
    cancelled = 0
    for _ in range(outbox.CANCEL_STEPS if ids else 0):
        step = outbox.cancel_waiting(ids)
        cancelled += step
        if not step:
            break
    return cancelled


def finish_mailings(*, now: datetime) -> list[int]:
    """Mark mailings in which nothing waits and nothing is in doubt. Returns their ids.

    A standing (transactional) mailing ends a while after its day. The account is recounted first: a
    mailing whose account does not add up is not finished, and says so.
    """
    candidates = dict(
        Mailing.objects.filter(state="running")
        .exclude(kind="transactional", day__gte=(now - AFTER_MIDNIGHT).date())
        .values_list("id", "day")
    )
    finished = []
    for mailing_id, one in account.accounts_of(candidates).items():
        if one.is_finished and account.recount(mailing_id).holds:
            finished.append(mailing_id)
    Mailing.objects.filter(pk__in=finished, state="running").update(
        state="finished", finished_at=now
    )
    return finished


def clean(*, now: datetime) -> None:
    """Delete done batches past their time, fold the account's deltas, make coming partitions."""
    keep = conf.delivery_policy().keep_done_batches
    with connection.cursor() as cursor:
        cursor.execute(
            """
            DELETE FROM mailer_batch WHERE id IN (
                SELECT id FROM mailer_batch WHERE state = 'done' AND created_at < %s LIMIT 10000)
            """,
            [now - keep],
        )
        # Journals of processes that ended long ago; of those none can have a batch any more.
        cursor.execute(
            "DELETE FROM mailer_workerjournal WHERE ended_at < %s", [now - timedelta(days=1)]
        )
    while account.fold() >= 20_000:
        pass
    partitions.ensure_ahead(now.date())
