"""`manage.py doctor`: is the whole installation sound, and if not, what is to be done?

Looks and never changes anything. Every check stands alone: it runs in a thread of its own, has a
time-out, and what it trips over becomes a finding. What PostgreSQL or Redis is needed for is not
asked while they do not answer.
"""

from __future__ import annotations

from config.doctor import database, engine, machine, queue, web
from config.doctor.finding import Check, Finding, Level, Needs
from config.doctor.run import examine

__all__ = ["CHECKS", "Check", "Finding", "Level", "Needs", "examine"]

#: In the order in which they are told: what others stand on comes first.
CHECKS: tuple[Check, ...] = (
    *database.CHECKS,
    *queue.CHECKS,
    *web.CHECKS,
    *machine.CHECKS,
    *engine.CHECKS,
)
