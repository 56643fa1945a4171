"""Workers that die at every single step between taking a batch and having recorded it."""

from __future__ import annotations

from dataclasses import replace

from config.local.roles import Role
from tests.faults.doomed_worker import MOMENTS
from tests.faults.world import USUAL, World, role

CONNECTIONS_PER_BATCH = 3  #: of 25 messages


def doomed(moment: str) -> Role:
    """A delivery worker with one batch at a time, and a short life."""
    usual = role("deliver-1")
    _, *arguments = usual.command
    of_one = [moment if one == "deliver-1@%h" else one for one in arguments]
    of_one[of_one.index("-c") + 1] = "1"
    name = f"doomed-{moment}"
    of_one[of_one.index("-n") + 1] = f"{name}@%h"
    return replace(usual, name=name, command=("tests.faults.doomed_worker", moment, *of_one))


def test_at_whatever_step_a_worker_dies_nothing_is_lost_or_sent_twice(world: World) -> None:
    world.run("upkeep", "beat")
    world.stage.start(*map(doomed, MOMENTS))
    one = world.launched(500)
    dying = [f"doomed-{moment}" for moment in MOMENTS]
    world.wait("all are dead", lambda: not any(map(world.stage.is_running, dying)))
    world.run(*USUAL)

    # Two of them die with content that was, or was about to be, on the wire.
    states = world.settled(one, in_doubt_at_most=2 * CONNECTIONS_PER_BATCH)

    doubted = {
        address
        for address, state in world.ask("states", mailing_id=one.mailing).items()
        if state == "in_doubt"
    }
    assert doubted & set(world.arrived(one)), "the one that was accepted"
    assert doubted - set(world.arrived(one)), "the one that was only intended"
    assert states["delivered"] + states["bounced"] + states["in_doubt"] == 500
