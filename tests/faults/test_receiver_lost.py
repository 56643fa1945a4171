"""The receiving servers go away in the middle of conversations and come back."""

from __future__ import annotations

from tests.faults.world import DELIVERY, SANDBOX, World


def test_mail_for_lost_servers_is_deferred_and_delivered_when_they_are_back(world: World) -> None:
    one = world.launched(400)
    world.wait_arrived(one, 40)

    bound = world.freeze_at_work(*DELIVERY)
    world.stage.kill("sandbox")
    world.stage.thaw(*DELIVERY)
    world.stage.start_sandbox(*SANDBOX)

    world.settled(one, in_doubt_at_most=bound)
