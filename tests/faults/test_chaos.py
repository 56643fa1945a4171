"""Faults in a random order: a short run of what bin/soak does for hours."""

from __future__ import annotations

from tests.faults.chaos import Chaos
from tests.faults.world import World

SEED = 20_250_101


def test_any_order_of_faults_leaves_every_account_right(world: World) -> None:
    said: list[str] = []

    states = Chaos(world, SEED, said.append).round(faults=6, size=800)

    assert sum(states.values()) == 800
    assert len(said) == 6
