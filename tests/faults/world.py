"""A stage with a driver, and the accounts that are compared after each fault.

Every test launches campaigns through real workers, does harm, and ends with `World.settled`:
what the sandbox received, what the messages say and what the campaign shows must agree to the
last message. Waits are for conditions, never for a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from config.local import roles
from config.local.roles import Role
from config.local.stage import ROOT, Stage, stage

PATIENCE_SECONDS = 150.0
_LOOK_SECONDS = 0.05

#: Small batches and short time-outs, so that a fault meets everything under way.
SETTINGS = {
    "POSTROAD_BATCH_SIZE": "25",
    "POSTROAD_VISIBILITY_SECONDS": "6",
    "POSTROAD_REPUBLISH_SECONDS": "5",
}
SANDBOX = (
    *("--greylist-seconds", "1", "--slow-host-seconds", "0.05"),
    *("--idle-seconds", "12"),
)

DELIVERY = ("deliver-1", "deliver-2")
USUAL = (*DELIVERY, "upkeep", "beat")

_numbers = count(1)


class Failed(AssertionError):
    """A deed did not succeed, or a condition did not come true in time."""


def role(name: str) -> Role:
    match name.partition("-"):
        case ("deliver", _, number):
            return roles.deliver(int(number))
        case ("urgent", _, _):
            return roles.urgent()
        case ("upkeep", _, _):
            return roles.upkeep()
        case ("beat", _, _):
            return roles.beat()
    raise LookupError(name)


@dataclass(frozen=True, slots=True)
class Launched:
    """A campaign under way."""

    campaign: int
    mailing: int
    size: int


class Driver:
    """Does on the stage what people and programs do."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        with open(log, "ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.driver"],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._log = log
        self._answer()

    def ask(self, do: str, **given: object) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **given}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Failed(f"the driver ended:\n{self._log.read_text()[-2000:]}")
        answer = json.loads(line)
        if "failed" in answer:
            raise Failed(answer["failed"])
        return answer["told"]

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class World:
    """A whole Postroad that may be harmed."""

    def __init__(self, on: Stage) -> None:
        self.stage = on
        self._driver = Driver(on.environment, on.folder / "driver.log")
        self.ask = self._driver.ask

    def close(self) -> None:
        self._driver.stop()

    def keep_logs(self, folder: Path) -> Path:
        """Copy the logs to where they outlive the stage."""
        shutil.copytree(self.stage.folder / "log", folder, dirs_exist_ok=True)
        return folder

    # -- processes

    def run(self, *names: str) -> None:
        """Have exactly these roles running."""
        on = self.stage
        surplus = [
            name
            for name in on.children
            if name not in names and name not in ("postgres", "valkey", "sandbox")
        ]
        for name in surplus:
            on.thaw(name)
            on.children.pop(name).stop()
        on.start(*(role(name) for name in names if not on.is_running(name)))

    def pid(self, name: str) -> int:
        return self.stage.children[name].pid

    def open_connections(self, name: str) -> int:
        """Connections to mail servers that a process holds now."""
        ports = {
            host["port"]
            for provider in self._sandbox()["providers"].values()
            for host in provider["hosts"]
        }
        return connections_of(self.pid(name), ports)

    def _sandbox(self) -> dict[str, Any]:
        return dict(json.loads((self.stage.folder / "sandbox" / "sandbox.json").read_text()))

    def taken_by(self, name: str) -> int:
        """How many batches a process holds."""
        return int(self.ask("taken_by_pid").get(str(self.pid(name)), 0))

    def freeze_at_work(self, *names: str) -> int:
        """Freeze processes each of which holds a batch. Returns how many connections they have
        open: no more messages than that are on the wire."""

        def are_frozen() -> bool:
            self.stage.freeze(*names)
            if all(map(self.taken_by, names)):
                return True
            self.stage.thaw(*names)
            return False

        self.wait("all are at work", are_frozen)
        return sum(map(self.open_connections, names))

    def kill_at_work(self, *names: str) -> int:
        """Kill processes while each holds a batch. No more messages than the returned number may
        be in doubt."""
        bound = self.freeze_at_work(*names)
        self.stage.kill(*names)
        return bound

    # -- campaigns

    def launched(self, size: int, **options: int) -> Launched:
        """Launch a campaign to `size` new recipients of all kinds."""
        campaign = self.ask("create", tag=f"t{next(_numbers)}", count=size, **options)
        return Launched(campaign, self.ask("launch", campaign_id=campaign), size)

    def account(self, one: Launched) -> dict[str, Any]:
        return dict(self.ask("account", mailing_id=one.mailing))

    def arrived(self, one: Launched) -> list[str]:
        """Recipients of every content that the sandbox took, copies and all."""
        rows = self._inbox("messages", mailing=one.mailing, limit=10_000)
        return [row["recipient"] for row in rows]

    def untaken(self, one: Launched) -> list[int]:
        return list(self.ask("batches", mailing_id=one.mailing, state="untaken"))

    def counts(self, one: Launched) -> dict[str, Any]:
        return dict(self._inbox("counts", mailing=one.mailing))

    def arrival_times(self, one: Launched) -> list[str]:
        rows = self._inbox("messages", mailing=one.mailing, limit=10_000)
        return sorted(row["received_at"] for row in rows)

    def _inbox(self, what: str, **query: object) -> Any:
        url = f"{self.stage.inbox}/api/{what}?{urlencode(query)}"
        with urlopen(url, timeout=30) as answer:
            return json.load(answer)

    # -- waiting

    def wait(
        self, what: str, condition: Callable[[], Any], seconds: float = PATIENCE_SECONDS
    ) -> Any:
        """Wait until `condition` gives something true, and give it."""
        deadline = time.monotonic() + seconds
        while True:
            found = condition()
            if found:
                return found
            if time.monotonic() > deadline:
                raise Failed(f"still waiting: {what}\n{self._lately()}")
            time.sleep(_LOOK_SECONDS)

    def wait_arrived(self, one: Launched, at_least: int) -> None:
        self.wait(f"{at_least} arrive", lambda: self.counts(one)["distinct"] >= at_least)

    def wait_dark(self, one: Launched) -> None:
        """Wait until no batch of the campaign is with a worker."""
        self.wait(
            "none taken", lambda: not self.ask("batches", mailing_id=one.mailing, state="taken")
        )

    def _lately(self) -> str:
        """The last lines of every log, for whoever has to find out why."""
        return "\n".join(
            f"-- {name} ({child.poll()}):\n{child.last_lines(12)}"
            for name, child in self.stage.children.items()
        )

    # -- the end of every test

    def settled(self, one: Launched, *, in_doubt_at_most: int = 0) -> dict[str, Any]:
        """Wait until nothing waits; hold every account against every other. Returns the states."""
        self.wait("nothing waits", lambda: self.account(one)["settled"])
        self.wait("no batch is taken", lambda: not self.ask("taken_by_pid"))
        self.wait("no slot of the dead", lambda: self._holders_live())
        told = self.account(one)
        assert self.ask("recount", mailing_id=one.mailing) == []
        assert told["audience"] == told["matched"] == one.size
        self._compare_with_sandbox(one)
        shown = self.ask("status", campaign_id=one.campaign)
        assert {key: shown[key] for key in ("audience", "states", "attempts", "settled")} == {
            key: told[key] for key in ("audience", "states", "attempts", "settled")
        }
        assert self.ask("attempts", mailing_id=one.mailing) == told["attempts"]
        found = {state: number for state, number in told["states"].items() if number}
        assert found.get("in_doubt", 0) <= in_doubt_at_most, found
        return found

    def _holders_live(self) -> bool:
        pids = {child.pid for child in self.stage.children.values() if child.poll() is None}
        return set(self.ask("slot_pids")) <= pids

    def _compare_with_sandbox(self, one: Launched) -> None:
        states = self.ask("states", mailing_id=one.mailing)
        arrived = self.arrived(one)
        by_state: dict[str, set[str]] = {}
        for address, state in states.items():
            by_state.setdefault(state, set()).add(address)
        delivered = by_state.get("delivered", set())
        in_doubt = by_state.get("in_doubt", set())
        assert len(arrived) == len(set(arrived)), "sent twice"
        assert self.counts(one)["duplicates"] == 0
        assert delivered <= set(arrived), "lost"
        assert set(arrived) - delivered <= in_doubt, "arrived, and not told"
        unknown = {address for address in states if address.startswith("unknown-")}
        assert by_state.get("bounced", set()) <= unknown
        assert set(by_state) <= {"delivered", "in_doubt", "bounced", "cancelled"}


def connections_of(pid: int, ports: set[int]) -> int:
    """Count established TCP connections of a process to these ports."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = os.readlink(entry)
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = 0
    for table in (f"/proc/{pid}/net/tcp", f"/proc/{pid}/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                port = int(fields[2].rpartition(":")[2], 16)
                found += fields[3] == "01" and port in ports and fields[9] in inodes
    return found


@contextlib.contextmanager
def world(*sandbox_options: str) -> Iterator[World]:
    with stage(*SANDBOX, *sandbox_options, durable=False, **SETTINGS) as on:
        built = World(on)
        try:
            yield built
        finally:
            built.close()


_until_the_end = contextlib.ExitStack()
_shared: list[World] = []


def shared() -> World:
    """The one world of this run of the tests."""
    if not _shared:
        _shared.append(_until_the_end.enter_context(world()))
    return _shared[0]


def close_shared() -> None:
    _shared.clear()
    _until_the_end.close()
