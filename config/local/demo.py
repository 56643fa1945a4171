"""The first campaign: drives `manage.py demo`, follows it, and adds up its account.

The account joins two sides that know nothing of each other: what Postroad recorded, and what the
sandbox's mailbox providers received.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from config.local.child import Child, Spec
from config.local.progress import Screen
from config.local.supervisor import Supervisor

PREPARE_SECONDS = 300.0  #: for writing and importing the list, and launching


class DidNotSettle(RuntimeError):
    """Time ran out with messages still waiting or in doubt."""


def last_object(text: str) -> dict[str, Any] | None:
    """The last line that is a JSON object; log lines around it do not matter."""
    for line in reversed(text.splitlines()):
        if line.startswith("{") and line.endswith("}"):
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict):
                return found
    return None


def settled_count(status: Mapping[str, Any]) -> int:
    """How many messages have their final state."""
    states = status.get("states") or {}
    unsettled = int(states.get("waiting", 0)) + int(states.get("in_doubt", 0))
    return int(status.get("audience") or 0) - unsettled


def summary(status: Mapping[str, Any]) -> str:
    """The states that hold anything, in words."""
    states = status.get("states") or {}
    parts = [f"{count:,} {name}" for name, count in states.items() if count and name != "waiting"]
    return ", ".join(parts) or "preparing"


def build_account(
    status: Mapping[str, Any], counts: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """What bin/start prints in the end."""
    ours = {
        name: status[name] for name in ("matched", "excluded", "audience", "states", "attempts")
    }
    theirs = {name: counts[name] for name in ("received", "distinct", "duplicates")}
    return {**ours, "sandbox": theirs, "seconds": round(seconds, 1)}


def fetch_counts(sandbox_url: str, mailing: int) -> dict[str, Any]:
    address = f"{sandbox_url.rstrip('/')}/api/counts?mailing={mailing}"
    with urllib.request.urlopen(address, timeout=30) as answer:
        found = json.load(answer)
    if not isinstance(found, dict):
        raise ValueError(f"{address} did not answer with an object")
    return found


@dataclass(slots=True)
class Demo:
    supervisor: Supervisor
    screen: Screen
    manage: Callable[..., Spec]  #: (name, *arguments) → how to run that management command
    sandbox_url: str

    def run(self, recipients: int, settle_seconds: float) -> dict[str, Any]:
        """Send the first campaign and return its account."""
        started = time.monotonic()
        self.screen.step(f"demo: a list of {recipients:,} recipients, and a campaign to it")
        prepare = self.manage("demo", "--recipients", str(recipients), "--json")
        answer = last_object(self.supervisor.run(prepare, PREPARE_SECONDS).log_text())
        if answer is None:
            raise DidNotSettle("manage.py demo did not say which campaign it launched.")
        status = self.follow(int(answer["campaign"]), settle_seconds)
        counts = fetch_counts(self.sandbox_url, int(answer["mailing"]))
        return build_account(status, counts, time.monotonic() - started)

    def follow(self, campaign: int, seconds: float) -> dict[str, Any]:
        """Show how far the campaign is, until every message has its final state."""
        spec = self.manage("campaign", "status", str(campaign), "--json", "--follow")
        try:
            child = self.supervisor.run(spec, seconds, each_step=self._show)
        except TimeoutError as error:
            raise DidNotSettle(
                f"After {seconds:g} s the campaign has not settled: {error}"
            ) from None
        status = last_object(child.log_text())
        if status is None or not status.get("settled"):
            raise DidNotSettle(f"The campaign has not settled: {status}")
        self._show(child)
        return status

    def _show(self, child: Child) -> None:
        status = last_object(child.log_text())
        if status is not None:
            total = int(status.get("audience") or 0)
            self.screen.progress(settled_count(status), total, summary(status))
