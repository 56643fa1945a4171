"""Which source of a pool takes a batch.

Pure. The rule so far: the source with the most room; among equals the batch's number decides,
so that load spreads evenly without any shared counter. A source without room is never chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    source_id: int
    room: int  #: messages that would pass now


def choose(candidates: Sequence[Candidate], *, size: int, turn: int) -> Candidate | None:
    """Choose for a batch of `size` messages; None when no source has room.

    Room beyond the batch's size is no advantage: all sources that can take the whole batch
    are equal.
    """
    open_to_us = [candidate for candidate in candidates if candidate.room > 0]
    if not open_to_us:
        return None
    best = max(min(candidate.room, size) for candidate in open_to_us)
    equal = sorted(c.source_id for c in open_to_us if min(c.room, size) == best)
    chosen = equal[turn % len(equal)]
    return next(c for c in open_to_us if c.source_id == chosen)
