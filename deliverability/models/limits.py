"""What limits need in PostgreSQL: daily caps granted in blocks, and connection slots.

Redis holds the fast copy of rates and of the granted blocks; it may be lost at any moment.
"""

from __future__ import annotations

from django.db import models

from deliverability.models.sources import Source


class DailyGrant(models.Model):
    """How much of a source's cap for one sending day was handed to Redis, in blocks.

    `granted` never passes the cap. What Redis had not spent when it was lost is forfeited.
    """

    source = models.ForeignKey(Source, models.CASCADE)
    day = models.DateField()
    granted = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["source", "day"], name="grant_once_a_day")]

    def __str__(self) -> str:
        return f"{self.source} {self.day}: {self.granted}"


class ConnectionSlot(models.Model):
    """How many connections a worker process may hold from a source to a provider.

    Owned by the worker's journal: given back by it, or by the rescuer that proved its death.
    Time alone never frees a slot, since a frozen worker's sockets outlive any time-out.
    """

    source = models.ForeignKey(Source, models.CASCADE)
    provider = models.CharField(max_length=60)
    journal_id = models.UUIDField(db_index=True)
    count = models.PositiveIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["source", "provider", "journal_id"], name="slots_once_per_worker"
            )
        ]

    def __str__(self) -> str:
        return f"{self.source} at {self.provider}: {self.count}"
