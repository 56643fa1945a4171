"""Faults in a random order, drawn from a seed: kill, freeze, flush, restart, all mixed.

`bin/soak` runs it for as long as one likes; the tests run a short one. Whatever happens, every
account agrees afterwards. Says the seed and each fault, so that what broke can be repeated.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable

from config.local.stage import ROOT
from tests.faults.world import DELIVERY, SANDBOX, USUAL, Failed, World, world


class Chaos:
    """One fault after the other on a world with campaigns under way."""

    def __init__(self, on: World, seed: int, say: Callable[[str], None] = print) -> None:
        self._world = on
        self._draw = random.Random(seed)
        self._say = say
        self._bound = 0
        self.faults: list[Callable[[], None]] = [
            self.kill_one,
            self.kill_all_deliveries,
            self.kill_upkeep,
            self.freeze_deliveries,
            self.freeze_upkeep,
            self.flush_broker,
            self.restart_broker,
            self.restart_database,
            self.restart_receiver,
        ]

    def round(self, faults: int, size: int) -> dict[str, int]:
        """Launch a campaign, do that many faults while it runs, heal, and settle."""
        one = self._world.launched(size)
        self._bound = 0
        self._world.wait_arrived(one, size // 20)
        for fault in self._draw.choices(self.faults, k=faults):
            before = self._world.counts(one)["distinct"]
            self._say(f"  {fault.__name__} after {before} of {size}")
            fault()
            self._world.run(*USUAL)
            # Between two faults something happens, unless all has happened.
            self._world.wait(
                "it goes on",
                lambda before=before: (
                    self._world.counts(one)["distinct"] > before + 10
                    or self._world.account(one)["settled"]
                ),
            )
        return self._world.settled(one, in_doubt_at_most=self._bound)

    def kill_one(self) -> None:
        self._kill(self._draw.choice(DELIVERY))

    def kill_all_deliveries(self) -> None:
        self._kill(*DELIVERY)

    def kill_upkeep(self) -> None:
        self._world.stage.kill("upkeep", "beat")

    def freeze_deliveries(self) -> None:
        self._freeze(*DELIVERY)

    def freeze_upkeep(self) -> None:
        self._freeze("upkeep", "beat")

    def flush_broker(self) -> None:
        self._world.ask("flush_broker")

    def restart_broker(self) -> None:
        self._world.stage.kill("valkey")
        self._world.stage.start_valkey()

    def restart_database(self) -> None:
        self._world.stage.drop_postgres()
        self._world.stage.start_postgres()

    def restart_receiver(self) -> None:
        stage = self._world.stage
        stage.freeze(*DELIVERY)
        self._bound += sum(map(self._world.open_connections, DELIVERY))
        stage.kill("sandbox")
        stage.thaw(*DELIVERY)
        stage.start_sandbox(*SANDBOX)

    def _kill(self, *names: str) -> None:
        self._world.stage.freeze(*names)
        self._bound += sum(map(self._world.open_connections, names))
        self._world.stage.kill(*names)

    def _freeze(self, *names: str) -> None:
        """For longer than tasks may stay unacknowledged."""
        stage = self._world.stage
        stage.freeze(*names)
        time.sleep(self._draw.uniform(1, 10))  # the fault itself, not a wait for anything
        stage.thaw(*names)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bin/soak", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="at least so long; 10")
    parser.add_argument("--seed", type=int, default=None, help="repeats a run; default: by chance")
    parser.add_argument("--size", type=int, default=2_000, help="recipients of a campaign; 2000")
    parser.add_argument("--faults", type=int, default=8, help="faults for each campaign; 8")
    chosen = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if chosen.seed is None else chosen.seed
    until = time.monotonic() + chosen.minutes * 60
    print(f"seed {seed}", flush=True)
    with world() as on:
        on.run(*USUAL)
        chaos = Chaos(on, seed, lambda line: print(line, flush=True))
        rounds = 0
        while rounds == 0 or time.monotonic() < until:
            rounds += 1
            print(f"campaign {rounds}", flush=True)
            try:
                print(f"  {chaos.round(chosen.faults, chosen.size)}", flush=True)
            except (Failed, AssertionError) as broken:
                kept = on.keep_logs(ROOT / "var" / "soak")
                print(f"broken with --seed {seed}: {broken}\nlogs: {kept}", file=sys.stderr)
                return 1
    print(f"{rounds} campaigns, nothing lost, nothing sent twice", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
