"""The in-memory twin of `counters`, for tests and simulations on a virtual clock.

Every call is one step for all threads, as a script is in Redis.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from deliverability.core.limits import DailyCap, Limit, RateLimit
from deliverability.counters import Stale, Taken


class MemoryCounters:
    """`now_us` is the clock, in microseconds."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        self._now = now_us
        self._lock = threading.RLock()
        self._bound = False
        self.lose()

    def lose(self) -> None:
        """What a flushed or restarted Redis does."""
        with self._lock:
            self._bound = self._marked = False
            self._allowances: dict[str, int] = {}
            self._tats: dict[str, int] = {}
            self._rebuilt = 0

    def take(self, limits: Sequence[Limit], wanted: int) -> Taken:
        with self._lock:
            taken = self.peek(limits, wanted)
            if taken.count == 0:
                return taken
            for limit in limits:
                match limit:
                    case DailyCap():
                        self._allowances[limit.key] -= taken.count
                    case RateLimit():
                        self._tats[limit.key] = self._tat(limit) + taken.count * limit.interval_us
            return Taken(taken.count, self._wait(taken.binding), taken.binding)

    def peek(self, limits: Sequence[Limit], wanted: int) -> Taken:
        with self._lock:
            if not self._bound:
                raise Stale
            count, binding = wanted, None
            for limit in limits:
                room = self._room(limit)
                if room < count:
                    count, binding = room, limit
            return Taken(count, self._wait(binding), binding)

    def give_back(self, limits: Sequence[Limit], count: int) -> None:
        with self._lock:
            if not self._bound:
                return
            for limit in limits:
                if isinstance(limit, DailyCap):
                    self.grant(limit, count)

    def grant(self, cap: DailyCap, count: int) -> None:
        with self._lock:
            self._allowances[cap.key] = self._allowances.get(cap.key, 0) + count

    def rebuild(self) -> bool:
        with self._lock:
            if self._bound:
                return False
            self._allowances, self._tats, self._rebuilt = {}, {}, self._now()
            self._bound = True
            return True

    def broker_was_lost(self) -> bool:
        with self._lock:
            was_marked, self._marked = self._marked, True
            return not was_marked

    def _tat(self, limit: RateLimit) -> int:
        empty = self._rebuilt + limit.burst * limit.interval_us
        return max(self._tats.get(limit.key, empty), self._now())

    def _room(self, limit: Limit) -> int:
        if isinstance(limit, DailyCap):
            return max(0, self._allowances.get(limit.key, 0))
        credit = self._now() + limit.burst * limit.interval_us - self._tat(limit)
        return max(0, credit // limit.interval_us)

    def _wait(self, binding: Limit | None) -> float:
        if not isinstance(binding, RateLimit):
            return 0.0
        ready = self._tat(binding) + binding.interval_us * (1 - binding.burst)
        return max(0, ready - self._now()) / 1e6
