"""Priorities: which lane's batch is published next, to which queue.

Pure. Higher goes first, and lower ones keep a share: workers empty `deliver.high` before
`deliver.normal` before `deliver.low`, so a lower batch whose turn it is goes onto the high queue
instead of its own. Urgent mail has a queue and a process of its own and never waits for a turn.

Says nothing about rates or room: those are the gate's.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType


class Priority(enum.IntEnum):
    """The class of a message. The number is stored; the gate multiplies connections by it."""

    LOW = 1
    NORMAL = 2
    HIGH = 3
    URGENT = 4


QUEUES: Mapping[Priority, str] = MappingProxyType(
    {
        Priority.URGENT: "deliver.urgent",
        Priority.HIGH: "deliver.high",
        Priority.NORMAL: "deliver.normal",
        Priority.LOW: "deliver.low",
    }
)

#: Every so-many-th pick belongs to those that are not first: 12.5 % of the batches.
TURNS_PER_LOWER_PICK = 8


def queue_for(priority: Priority) -> str:
    """The Celery queue of this priority's batches."""
    return QUEUES[priority]


def pick(waiting: Mapping[Priority, int], turn: int) -> tuple[Priority, str]:
    """Say whose batch is published next and to which queue.

    `waiting` counts batches; `turn` grows by one with each pick and may begin anywhere. The
    lower ones take their turns one after another, or the lowest would starve the middle.
    """
    ranked = sorted((priority for priority, count in waiting.items() if count > 0), reverse=True)
    if not ranked:
        raise ValueError("nothing is waiting")
    first, *lower = ranked
    round_no, place = divmod(turn, TURNS_PER_LOWER_PICK)
    if first is Priority.URGENT or not lower or place != TURNS_PER_LOWER_PICK - 1:
        return first, queue_for(first)
    return lower[round_no % len(lower)], queue_for(Priority.HIGH)
