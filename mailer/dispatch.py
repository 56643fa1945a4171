"""Dispatch: which batches go to the workers now, and from which source.

Asks the gate how much room each path has (not binding: delivery asks again, and takes, at
send time), chooses the source, cuts the batch to size and returns what to publish. Keeps the
number of bulk batches that are published or taken bounded, so that an urgent or high one
never waits behind a long line, and gives lower priorities their minimum share.

Never sends, never waits. Kicked by launch, outbox and every finished batch; beat is the
safety net. One dispatch runs at a time, one more may wait for its turn: whoever comes then
leaves, since the waiting one will see its rows.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from django.db import connection, transaction

from deliverability import gate
from deliverability.core.selection import Candidate, choose
from deliverability.models import Source
from mailer import conf
from mailer.core.priority import Priority, pick, queue_for

_RUNNING, _WAITING = "postroad:dispatch:running", "postroad:dispatch:waiting"

#: One provider may hold at most this share of the batches in work, so that a slow one does not
#: take every worker's time.
PROVIDER_SHARE = 0.75


@dataclass(frozen=True, slots=True)
class Publication:
    """A task to publish after the commit: `mailer.deliver_batch`, or `mailer.route_batch` for a
    batch whose recipients' domains are not resolved yet."""

    batch_id: int
    queue: str
    needs_route: bool = False


@dataclass(frozen=True, slots=True)
class Lane:
    mailing_id: int
    pool_id: int
    provider: str
    priority: int
    workspace_id: int


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An untaken batch at the head of its lane."""

    id: int
    size: int
    lane: Lane


def dispatch(*, now: datetime, turn: int = 0) -> list[Publication]:
    """Choose what goes to the workers next. Returns what to publish once this has committed."""
    with _single_flight() as is_mine:
        if not is_mine:
            return []
        with transaction.atomic():
            in_work = _in_work()
            lanes = _open_lanes()
            urgent = [lane for lane in lanes if lane.priority == Priority.URGENT]
            bulk = [lane for lane in lanes if lane.priority != Priority.URGENT]
            return [
                *_assign_all(_heads(urgent, 100, now), now),
                *_dispatch_bulk(bulk, in_work, now=now, turn=turn),
            ]


def assign(batch_ids: Iterable[int], *, now: datetime) -> list[Publication]:
    """Dispatch particular batches at once; for urgent mail, in the transaction that lays them.

    What finds no room stays for the next dispatch.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT b.id, cardinality(b.ids), b.mailing_id, b.pool_id, b.provider, b.priority,
                   m.workspace_id
            FROM mailer_batch b JOIN mailer_mailing m ON m.id = b.mailing_id
            WHERE b.id = ANY(%s) AND b.state = 'untaken' AND b.published_at IS NULL
            """,
            [list(batch_ids)],
        )
        waiting = [_Waiting(row[0], row[1], Lane(*row[2:])) for row in cursor.fetchall()]
    held = gate.held({batch.lane.workspace_id for batch in waiting})
    waiting = [batch for batch in waiting if batch.lane.workspace_id not in held]
    return _assign_all(waiting, now)


def _dispatch_bulk(
    lanes: list[Lane], in_work: Counter[str], *, now: datetime, turn: int
) -> list[Publication]:
    ahead = conf.delivery_policy().dispatch_ahead
    room = ahead - in_work.total()
    if room <= 0 or not lanes:
        return []
    waiting = _heads(lanes, room, now)
    heads, outlook = _by_priority(waiting), _Outlook(waiting, now)
    share = max(1, int(ahead * PROVIDER_SHARE))
    assigned: list[_Assigned] = []
    while len(assigned) < room and any(heads.values()):
        priority, queue = pick({p: len(batches) for p, batches in heads.items()}, turn)
        turn += 1
        batch = heads[priority].pop(0)
        if batch.lane.provider and in_work[batch.lane.provider] >= share:
            continue
        # What no source has room for uses up nobody's turn.
        one = outlook.assign(batch, queue)
        if one is not None:
            in_work[batch.lane.provider] += 1
            assigned.append(one)
    return _mark_published(assigned, now)


def _by_priority(heads: list[_Waiting]) -> dict[Priority, list[_Waiting]]:
    """Batches by priority; lanes of one priority take turns, so that none waits for another."""
    ranks: Counter[Lane] = Counter()
    ranked: dict[Priority, list[tuple[int, int, _Waiting]]] = defaultdict(list)
    for batch in heads:
        ranked[Priority(batch.lane.priority)].append((ranks[batch.lane], batch.id, batch))
        ranks[batch.lane] += 1
    return {
        priority: [batch for *_, batch in sorted(rows, key=lambda row: row[:2])]
        for priority, rows in ranked.items()
    }


def _assign_all(batches: list[_Waiting], now: datetime) -> list[Publication]:
    """Assign each batch that a source has room for; to the queue of its priority."""
    outlook = _Outlook(batches, now)
    assigned = [outlook.assign(one, queue_for(Priority(one.lane.priority))) for one in batches]
    return _mark_published([one for one in assigned if one is not None], now)


@dataclass(frozen=True, slots=True)
class _Assigned:
    publication: Publication
    source_id: int | None


class _Outlook:
    """The room of all sources that some batches could go to, less what is assigned since."""

    def __init__(self, batches: list[_Waiting], now: datetime) -> None:
        self._sources = _sources_of({batch.lane.pool_id for batch in batches})
        paths = {
            gate.Path(source_id, batch.lane.provider)
            for batch in batches
            for source_id in self._sources[batch.lane.pool_id]
            if batch.lane.provider
        }
        rooms = gate.room(paths, sum(batch.size for batch in batches), now=now) if paths else {}
        self._left = {path: room.count for path, room in rooms.items()}

    def assign(self, batch: _Waiting, queue: str) -> _Assigned | None:
        """Choose a source and cut the batch to its room; None when no source has any."""
        if not batch.lane.provider:
            return _Assigned(Publication(batch.id, _routing_queue(batch.lane), True), None)
        sources = self._sources[batch.lane.pool_id]
        paths = {source_id: gate.Path(source_id, batch.lane.provider) for source_id in sources}
        chosen = choose(
            [Candidate(source_id, self._left[path]) for source_id, path in paths.items()],
            size=batch.size,
            turn=batch.id,
        )
        if chosen is None:
            return None
        if chosen.room < batch.size:
            cut(batch.id, chosen.room)
        self._left[paths[chosen.source_id]] -= min(chosen.room, batch.size)
        queue = queue_on(sources[chosen.source_id], queue)
        return _Assigned(Publication(batch.id, queue), chosen.source_id)


def _routing_queue(lane: Lane) -> str:
    return queue_for(Priority.URGENT) if lane.priority == Priority.URGENT else "dispatch"


def queue_on(host: str, queue: str) -> str:
    """The queue of the workers on the machine that owns a source's address; "" for any machine."""
    return f"{queue}@{host}" if host else queue


def _sources_of(pool_ids: set[int]) -> dict[int, dict[int, str]]:
    """The sources of each pool, with the machine that owns each."""
    sources: dict[int, dict[int, str]] = {pool_id: {} for pool_id in pool_ids}
    rows = Source.objects.filter(pool_id__in=pool_ids).order_by("id")
    for pool_id, source_id, host in rows.values_list("pool_id", "id", "host"):
        sources[pool_id][source_id] = host
    return sources


def cut(batch_id: int, size: int) -> int | None:
    """Leave `size` ids in an untaken batch and lay the rest into a new one, whose id is returned.

    Messages are not touched. None: the batch was taken meanwhile, or is not larger.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH old AS (
                SELECT id, ids FROM mailer_batch
                WHERE id = %(id)s AND state = 'untaken' FOR UPDATE),
            cut AS (
                UPDATE mailer_batch b SET ids = old.ids[:%(size)s] FROM old
                WHERE b.id = old.id AND cardinality(old.ids) > %(size)s
                RETURNING b.mailing_day, b.mailing_id, b.pool_id, b.provider, b.priority)
            INSERT INTO mailer_batch (mailing_day, mailing_id, pool_id, provider, priority, ids)
            SELECT cut.*, old.ids[%(size)s + 1:] FROM cut, old
            RETURNING id
            """,
            {"id": batch_id, "size": size},
        )
        row = cursor.fetchone()
    return row[0] if row else None


def _mark_published(assigned: list[_Assigned], now: datetime) -> list[Publication]:
    """Mark the batches; returns what to publish: those that nobody else has marked or taken."""
    if not assigned:
        return []
    ids = [one.publication.batch_id for one in assigned]
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE mailer_batch b SET source_id = p.source_id, published_at = %s, waits_for = ''
            FROM unnest(%s::bigint[], %s::bigint[]) AS p(id, source_id)
            WHERE b.id = p.id AND b.state = 'untaken' AND b.published_at IS NULL
            RETURNING b.id
            """,
            [now, ids, [one.source_id for one in assigned]],
        )
        marked = {row[0] for row in cursor.fetchall()}
    return [one.publication for one in assigned if one.publication.batch_id in marked]


def _in_work() -> Counter[str]:
    """Bulk batches that are published or taken, by provider."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT provider, count(*) FROM (
                SELECT provider FROM mailer_batch
                WHERE state = 'untaken' AND published_at IS NOT NULL AND priority < %(urgent)s
                UNION ALL
                SELECT provider FROM mailer_batch WHERE state = 'taken' AND priority < %(urgent)s
            ) b GROUP BY provider
            """,
            {"urgent": int(Priority.URGENT)},
        )
        return Counter(dict(cursor.fetchall()))


_LANES_SQL = """
WITH RECURSIVE lane AS (
    (SELECT pool_id, provider, priority, mailing_id FROM mailer_batch
     WHERE state = 'untaken' AND published_at IS NULL
     ORDER BY pool_id, provider, priority, mailing_id LIMIT 1)
    UNION ALL
    SELECT n.* FROM lane, LATERAL (
        SELECT b.pool_id, b.provider, b.priority, b.mailing_id FROM mailer_batch b
        WHERE b.state = 'untaken' AND b.published_at IS NULL
          AND (b.pool_id, b.provider, b.priority, b.mailing_id)
              > (lane.pool_id, lane.provider, lane.priority, lane.mailing_id)
        ORDER BY b.pool_id, b.provider, b.priority, b.mailing_id LIMIT 1) n)
SELECT lane.mailing_id, lane.pool_id, lane.provider, lane.priority, m.workspace_id
FROM lane JOIN mailer_mailing m ON m.id = lane.mailing_id
WHERE m.state IN ('expanding', 'running')
"""


def _open_lanes() -> list[Lane]:
    """Lanes with untaken batches, found by skipping from lane to lane along the index: the cost
    is that of the number of lanes, not of batches."""
    with connection.cursor() as cursor:
        cursor.execute(_LANES_SQL)
        lanes = [Lane(*row) for row in cursor.fetchall()]
    held = gate.held({lane.workspace_id for lane in lanes})
    return [lane for lane in lanes if lane.workspace_id not in held]


def _heads(lanes: list[Lane], limit: int, now: datetime) -> list[_Waiting]:
    """The first due batches of each lane."""
    if not lanes:
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT head.id, head.size, lane.ordinality
            FROM unnest(%(mailings)s::bigint[], %(pools)s::bigint[], %(providers)s::text[],
                        %(priorities)s::smallint[])
                WITH ORDINALITY AS lane(mailing_id, pool_id, provider, priority, ordinality),
            LATERAL (
                SELECT b.id, cardinality(b.ids) AS size FROM mailer_batch b
                WHERE b.state = 'untaken' AND b.published_at IS NULL
                  AND b.pool_id = lane.pool_id AND b.provider = lane.provider
                  AND b.priority = lane.priority AND b.mailing_id = lane.mailing_id
                  AND (b.due_at IS NULL OR b.due_at <= %(now)s)
                -- Unresolved batches of a lane are routed together, by one task.
                ORDER BY b.id LIMIT CASE lane.provider WHEN '' THEN 1 ELSE %(limit)s END) head
            """,
            {
                "mailings": [lane.mailing_id for lane in lanes],
                "pools": [lane.pool_id for lane in lanes],
                "providers": [lane.provider for lane in lanes],
                "priorities": [lane.priority for lane in lanes],
                "now": now,
                "limit": limit,
            },
        )
        return [_Waiting(row[0], row[1], lanes[row[2] - 1]) for row in cursor.fetchall()]


@contextmanager
def _single_flight() -> Iterator[bool]:
    """One runs, one waits, the others leave (they get False)."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [_WAITING])
        if not cursor.fetchone()[0]:
            yield False
            return
        try:
            cursor.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [_RUNNING])
        finally:
            cursor.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", [_WAITING])
        try:
            yield True
        finally:
            cursor.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", [_RUNNING])
