"""The whole pipeline with real workers: from the launch to the last outcome, and steering it."""

from __future__ import annotations

from tests.faults.world import World


def test_every_recipient_gets_the_campaign_once_and_every_failure_is_told(world: World) -> None:
    one = world.launched(1_000)

    states = world.settled(one)

    assert states == {"delivered": 950, "bounced": 50}
    world.wait(
        "finished", lambda: world.ask("status", campaign_id=one.campaign)["state"] == "finished"
    )
