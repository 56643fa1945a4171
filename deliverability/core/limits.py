"""Which limits apply to a path (one source at one provider), and the arithmetic behind them.

Pure. A limit carries its value, its unit and where it came from, so that a person can be
told why mail waits. Taking from a limit happens in `counters`, atomically, for all workers.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

SECONDS_PER_HOUR = 3600

#: A block of a daily cap that is handed to Redis at once: small enough that little is
#: forfeited when Redis is lost, large enough that PostgreSQL is asked rarely.
BLOCK_RATIO = 0.02
BLOCK_MINIMUM = 20


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `per_hour` messages in any hour, spread evenly (GCRA, ITU-T I.371 annex A).

    `burst` is how many may leave together after a quiet time: a minute's worth.
    """

    key: str
    per_hour: int
    origin: str

    def __post_init__(self) -> None:
        if self.per_hour < 1:
            raise ValueError(f"{self.origin}: a rate must allow at least 1 message per hour")

    @property
    def burst(self) -> int:
        return max(1, self.per_hour // 60)

    @property
    def interval_us(self) -> int:
        """Microseconds between two messages once the burst is spent.

        Any half-open window of W holds at most burst - 1 + ceil(W / interval) messages, so
        this interval keeps an hour at `per_hour` or less, bursts included.
        """
        return -(-SECONDS_PER_HOUR * 1_000_000 // (self.per_hour - self.burst + 1))

    def describe(self) -> str:
        return f"{self.per_hour} messages per hour ({self.origin})"


@dataclass(frozen=True, slots=True)
class DailyCap:
    """At most `cap` messages on the sending day `day` (UTC). Hard: it never refills."""

    key: str
    source_id: int
    day: date
    cap: int
    origin: str

    def block(self, wanted: int, granted: int) -> int:
        """How much to grant next, when `wanted` messages ask and `granted` were granted."""
        size = max(wanted, BLOCK_MINIMUM, int(self.cap * BLOCK_RATIO))
        return max(0, min(size, self.cap - granted))

    @property
    def renews_at(self) -> datetime:
        return datetime.combine(self.day + timedelta(days=1), datetime.min.time(), UTC)

    def describe(self) -> str:
        return f"{self.cap} messages on {self.day} ({self.origin})"


Limit = RateLimit | DailyCap

URGENT = 4  #: the priority of urgent mail

#: States in which a source takes new mail.
SENDING_STATES = frozenset({"new", "warming", "active"})


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What is known of a source that bears on its limits."""

    source_id: int
    name: str
    state: str
    state_reason: str
    daily_cap: int | None
    per_hour: int | None
    max_connections: int | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """The source takes no mail at all until a person or a rule changes its state."""

    why: str


def limits_for(source: SourceFacts, provider: str, *, now: datetime) -> list[Limit] | Refusal:
    """Every limit that applies to this path now, or why nothing may pass."""
    if source.state not in SENDING_STATES:
        because = f": {source.state_reason}" if source.state_reason else ""
        return Refusal(f"source {source.name} is {source.state}{because}")
    limits: list[Limit] = []
    if source.daily_cap is not None:
        day = now.astimezone(UTC).date()
        limits.append(
            DailyCap(
                f"{source.source_id}:{day.isoformat()}",
                source.source_id,
                day,
                source.daily_cap,
                f"daily cap of source {source.name}",
            )
        )
    if source.per_hour is not None:
        limits.append(
            RateLimit(
                f"{source.source_id}:{provider}",
                source.per_hour,
                f"rate of source {source.name} at {provider}",
            )
        )
    return limits


def connections_for(source: SourceFacts, priority: int) -> int:
    """Connections that a source may hold at one provider, over all workers.

    The source's own setting, else ten times the priority's class (1 low … 4 urgent), at most
    a hundred. Of the source's own setting bulk leaves a fifth free, so that urgent mail finds
    a connection at once.
    """
    if source.max_connections is None:
        return min(100, 10 * priority)
    if priority >= URGENT or source.max_connections == 1:
        return source.max_connections
    return source.max_connections - max(1, source.max_connections // 5)
