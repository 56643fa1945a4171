"""Runs the checks: each in a thread, all at once, none longer than its time-out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence

from django.db import connections

from config.doctor.finding import Check, Finding, Level, Needs, error

TIMEOUT_SECONDS = 15.0
_SOURCE_OF = {Needs.DATABASE: "PostgreSQL", Needs.REDIS: "Redis"}


class _Running:
    """One check in a thread that nobody waits for for ever."""

    def __init__(self, check: Check) -> None:
        self.check = check
        self._found: list[Finding] = []
        self._thread = threading.Thread(target=self._look, name=check.name, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        found: list[Finding] = []
        try:
            found += self.check.look()
        except Exception as problem:
            # One catch-all: a check that fails has found something, and the others go on.
            told = f"{type(problem).__name__}: {problem}".strip().splitlines()[0]
            found.append(error(self.check.name, told, "The check itself failed: see the text."))
        finally:
            connections.close_all()
        self._found = found

    def findings(self, until: float) -> list[Finding]:
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            advice = "Whatever it asks hangs: look at its log, at the network and at the disk."
            return [error(self.check.name, f"no answer in {TIMEOUT_SECONDS:g} s", advice)]
        return self._found


def examine(checks: Sequence[Check], *, timeout_seconds: float = TIMEOUT_SECONDS) -> list[Finding]:
    """Run all checks and return what they found, in their order."""
    found: dict[str, list[Finding]] = {}
    missing: dict[Needs, bool] = {}
    for check, findings in _run([c for c in checks if c.is_root], timeout_seconds):
        found[check.name] = findings
        missing[check.needs] = any(one.level is Level.ERROR for one in findings[:1])
    rest = [check for check in checks if not check.is_root]
    possible = [check for check in rest if not missing.get(check.needs)]
    for check, findings in _run(possible, timeout_seconds):
        found[check.name] = findings
    for check in rest:
        if check.name not in found:
            why = f"{_SOURCE_OF[check.needs]} does not answer"
            skipped = Finding(check.name, Level.WARNING, why, "See above.", is_looked_at=False)
            found[check.name] = [skipped]
    return [finding for check in checks for finding in found[check.name]]


def _run(checks: Sequence[Check], timeout_seconds: float) -> Iterable[tuple[Check, list[Finding]]]:
    until = time.monotonic() + timeout_seconds
    running = [_Running(check) for check in checks]
    return [(one.check, one.findings(until)) for one in running]
