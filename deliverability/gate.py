"""The door into deliverability before sending: may this go, and if not, until when?

`room` is an outlook for dispatch and binds nobody. `admit` is asked once per batch,
immediately before sending, and takes from every limit of the path at once. Connection slots
are counted in PostgreSQL, since they belong to processes and outlive any loss of Redis.
Nothing here ever blocks or sleeps: a refusal says until when.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection, transaction
from django.db.models import F

from deliverability import conf
from deliverability.core.limits import (
    DailyCap,
    Limit,
    Refusal,
    SourceFacts,
    connections_for,
    limits_for,
)
from deliverability.counters import Counters, CountersUnavailable, Stale, Taken
from deliverability.models import ConnectionSlot, DailyGrant, Hold, Source

#: When to ask again where no limit itself says when.
ASK_AGAIN = timedelta(seconds=5)
REFUSED_ASK_AGAIN = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Path:
    source_id: int
    provider: str


@dataclass(frozen=True, slots=True)
class Room:
    """How many messages would pass now; when there may be room again; which limit says so."""

    count: int
    ready_at: datetime | None
    why: str


@dataclass(frozen=True, slots=True)
class Admission:
    """`admitted` of the asked messages may be sent now; `receipt` gives back the unused."""

    admitted: int
    ready_at: datetime | None
    why: str
    receipt: tuple[Limit, ...] = ()


def room(paths: Iterable[Path], wanted: int, *, now: datetime) -> dict[Path, Room]:
    """Look at many paths at once, without taking anything."""
    paths = list(paths)
    sources = source_facts({path.source_id for path in paths})
    return {path: _room(path, sources.get(path.source_id), wanted, now) for path in paths}


def admit(path: Path, wanted: int, *, now: datetime) -> Admission:
    """Take up to `wanted` from every limit of the path, atomically, for all workers."""
    facts = source_facts({path.source_id}).get(path.source_id)
    limits = _limits(facts, path, now)
    if isinstance(limits, Refusal):
        return Admission(0, now + REFUSED_ASK_AGAIN, limits.why)
    if not limits:
        return Admission(wanted, None, "")
    try:
        taken = _take(conf.counters(), limits, wanted)
    except CountersUnavailable as error:
        return Admission(0, now + ASK_AGAIN, f"Redis does not answer: {error}"[:200])
    return Admission(taken.count, _ready_at(taken, now), _why(taken), tuple(limits))


def give_back(admission: Admission, unused: int) -> None:
    """Return admissions that led to no attempt. Lost with Redis, they are forfeited."""
    if unused <= 0 or not admission.receipt:
        return
    try:
        conf.counters().give_back(admission.receipt, unused)
    except CountersUnavailable:
        return


def held(workspace_ids: Iterable[int]) -> dict[int, str]:
    """The workspaces under a hold, with the reason. The global stop holds all of them."""
    wanted = set(workspace_ids)
    holds = Hold.objects.filter(released_at__isnull=True).values_list("workspace_id", "reason")
    found: dict[int, str] = {}
    for workspace_id, reason in holds:
        for one in wanted if workspace_id is None else wanted & {workspace_id}:
            found.setdefault(one, reason)
    return found


def take_slots(path: Path, journal_id: uuid.UUID, wanted: int, *, priority: int) -> int:
    """Connections this worker may hold on the path now, at most `wanted` (0: none are free).

    Counts what it holds already. One worker takes at most half of what is free, rounded up,
    so that the next one finds some.
    """
    facts = source_facts({path.source_id}).get(path.source_id)
    if facts is None:
        return 0
    limit = connections_for(facts, priority)
    with transaction.atomic():
        _lock_path(path)
        slots = ConnectionSlot.objects.filter(source_id=path.source_id, provider=path.provider)
        by_worker = dict(slots.values_list("journal_id", "count"))
        mine = by_worker.get(journal_id, 0)
        free = max(0, limit - sum(by_worker.values()))
        more = min(max(0, wanted - mine), (free + 1) // 2)
        if more:
            slots.update_or_create(
                journal_id=journal_id,
                defaults={"count": mine + more},
                create_defaults={
                    "source_id": path.source_id,
                    "provider": path.provider,
                    "count": more,
                },
            )
    return min(mine + more, wanted)


def release_slots(path: Path, journal_id: uuid.UUID) -> None:
    """Give back all slots of one worker on a path whose connections it has closed."""
    ConnectionSlot.objects.filter(
        source_id=path.source_id, provider=path.provider, journal_id=journal_id
    ).delete()


def release_worker(journal_id: uuid.UUID) -> None:
    """Give back all slots of a worker that ended, or was proved dead."""
    ConnectionSlot.objects.filter(journal_id=journal_id).delete()


def source_facts(source_ids: Iterable[int]) -> dict[int, SourceFacts]:
    rows = Source.objects.filter(pk__in=list(source_ids)).values_list(
        "id", "name", "state", "state_reason", "daily_cap", "per_hour", "max_connections"
    )
    return {row[0]: SourceFacts(*row) for row in rows}


def _room(path: Path, facts: SourceFacts | None, wanted: int, now: datetime) -> Room:
    limits = _limits(facts, path, now)
    if isinstance(limits, Refusal):
        return Room(0, now + REFUSED_ASK_AGAIN, limits.why)
    if not limits:
        return Room(wanted, None, "")
    try:
        taken = _peek(conf.counters(), limits, wanted)
    except CountersUnavailable as error:
        return Room(0, now + ASK_AGAIN, f"Redis does not answer: {error}"[:200])
    return Room(taken.count, _ready_at(taken, now), _why(taken))


def _limits(facts: SourceFacts | None, path: Path, now: datetime) -> Sequence[Limit] | Refusal:
    if facts is None:
        return Refusal(f"source {path.source_id} no longer exists")
    return limits_for(facts, path.provider, now=now)


def _take(counters: Counters, limits: Sequence[Limit], wanted: int) -> Taken:
    """Take; where a daily allowance binds, have PostgreSQL grant its next block and go on."""
    total = 0
    while True:
        taken = _current(counters.take, counters, limits, wanted - total)
        total += taken.count
        if total >= wanted or not isinstance(taken.binding, DailyCap):
            break
        missing = wanted - total
        block = _grant_block(taken.binding, missing)
        if not block:
            break
        counters.grant(taken.binding, block)
    return Taken(total, taken.wait_seconds, taken.binding if total < wanted else None)


def _peek(counters: Counters, limits: Sequence[Limit], wanted: int) -> Taken:
    """Look; a daily cap has the allowance in Redis plus what is not granted yet."""
    rates = [limit for limit in limits if not isinstance(limit, DailyCap)]
    taken = _current(counters.peek, counters, rates, wanted)
    for cap in (limit for limit in limits if isinstance(limit, DailyCap)):
        allowance = _current(counters.peek, counters, [cap], wanted).count
        left = allowance + max(0, cap.cap - _granted(cap))
        if left < taken.count:
            taken = Taken(left, 0.0, cap)
    return taken


def _current(
    ask: Callable[[Sequence[Limit], int], Taken],
    counters: Counters,
    limits: Sequence[Limit],
    wanted: int,
) -> Taken:
    """Ask; where the server is not the one the limits were built on, rebuild them first."""
    for _ in range(3):
        try:
            return ask(limits, wanted)
        except Stale:
            counters.rebuild()
    raise CountersUnavailable("it is being restarted over and over")


def _grant_block(cap: DailyCap, wanted: int) -> int:
    """Grant the next block of a daily cap, in PostgreSQL: the sum never passes the cap."""
    with transaction.atomic():
        DailyGrant.objects.get_or_create(source_id=cap.source_id, day=cap.day)
        grant = DailyGrant.objects.select_for_update().get(source_id=cap.source_id, day=cap.day)
        block = cap.block(wanted, grant.granted)
        if block:
            DailyGrant.objects.filter(pk=grant.pk).update(granted=F("granted") + block)
    return block


def _granted(cap: DailyCap) -> int:
    grants = DailyGrant.objects.filter(source_id=cap.source_id, day=cap.day)
    return grants.values_list("granted", flat=True).first() or 0


def _ready_at(taken: Taken, now: datetime) -> datetime | None:
    match taken.binding:
        case None:
            return None
        case DailyCap() as cap:
            return cap.renews_at
        case _:
            return now + timedelta(seconds=max(taken.wait_seconds, 0.05))


def _why(taken: Taken) -> str:
    return taken.binding.describe() if taken.binding else ""


def _lock_path(path: Path) -> None:
    """Serialise the workers that take slots on one path, until the transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))",
            [f"slots:{path.source_id}:{path.provider}"],
        )
