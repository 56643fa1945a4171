"""This process's share of each path's connections, and giving it back when it lies idle.

The gate counts slots in PostgreSQL, over all workers; here they are shared out among the
batches of one process. A slot is kept as long as a connection may still be open.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from deliverability import gate
from mailer.core.priority import Priority
from mailer.runtime import Runtime

#: How long a connection is kept warm without work, and a slot for it a little longer. Bulk gives
#: its slots back soon, for other workers; an urgent message should find the door open. Servers
#: wait longer for the next command: five minutes, says RFC 5321 section 4.5.3.2.7.
_BULK_WARM_SECONDS, _URGENT_WARM_SECONDS = 5.0, 30.0
_RELEASE_AFTER_SECONDS = 5.0


def warm_seconds(priority: int) -> float:
    """How long a connection of this priority is kept without work."""
    return _URGENT_WARM_SECONDS if priority == Priority.URGENT else _BULK_WARM_SECONDS


@dataclass(slots=True)
class _Use:
    granted: int = 0
    batches: int = 0
    idle_since: float = 0.0
    warm_seconds: float = 0.0


class Slots:
    """One per process. Thread-safe."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._lock = threading.Lock()
        self._uses: dict[gate.Path, _Use] = {}

    def take(self, path: gate.Path, wanted: int, *, priority: int) -> int:
        """Connections this process may hold on the path while the batch is sent; 0: none.

        Batches of one process share them: the transport keeps to the number, and hands a
        connection on when a batch is done with it.
        """
        with self._lock:
            use = self._uses.setdefault(path, _Use())
            needed = (use.batches + 1) * wanted
            if needed > use.granted:
                use.granted = gate.take_slots(
                    path, self._runtime.journal_id, needed, priority=priority
                )
            use.warm_seconds = max(use.warm_seconds, warm_seconds(priority))
            if use.granted:
                use.batches += 1
            return use.granted

    def give_back(self, path: gate.Path) -> None:
        """The batch is done with the path."""
        with self._lock:
            use = self._uses[path]
            use.batches -= 1
            if use.batches == 0:
                use.idle_since = time.monotonic()

    def release_idle(self) -> None:
        """Give back the slots of paths whose connections have gone cold."""
        with self._lock:
            cold = [
                path
                for path, use in self._uses.items()
                if use.batches == 0
                and time.monotonic() - use.idle_since > use.warm_seconds + _RELEASE_AFTER_SECONDS
            ]
            for path in cold:
                gate.release_slots(path, self._runtime.journal_id)
                del self._uses[path]
