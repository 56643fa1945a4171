"""The whole pipeline with real workers: from the launch to the last outcome, and steering it."""

from __future__ import annotations

from tests.faults.world import USUAL, World


def test_every_recipient_gets_the_campaign_once_and_every_failure_is_told(world: World) -> None:
    one = world.launched(600)

    assert world.settled(one) == {"delivered": 570, "bounced": 30}

    world.wait(
        "finished", lambda: world.ask("status", campaign_id=one.campaign)["state"] == "finished"
    )


def test_an_urgent_message_overtakes_a_campaign(world: World) -> None:
    world.run(*USUAL, "urgent")
    one = world.launched(1_000)
    world.wait_arrived(one, 60)

    for number in range(5):
        message = world.ask("submit", address=f"u{number}@gmail.com", key=f"{one.mailing}-{number}")
        world.wait(
            "delivered",
            lambda message=message: world.ask("message_state", message_id=message) == "delivered",
        )

    assert world.account(one)["states"]["waiting"] > 300
    world.settled(one)


def test_nothing_leaves_while_a_campaign_is_paused(world: World) -> None:
    one = world.launched(600)
    world.wait_arrived(one, 60)

    world.ask("steer", campaign_id=one.campaign, move="pause")
    world.wait_dark(one)
    sent, tried = world.counts(one)["received"], world.account(one)["attempts"]
    other = world.launched(100)  # all goes on, but for the paused one
    world.settled(other)

    assert (world.counts(one)["received"], world.account(one)["attempts"]) == (sent, tried)
    assert world.account(one)["states"]["waiting"] > 0
    world.ask("steer", campaign_id=one.campaign, move="resume")
    assert world.settled(one) == {"delivered": 570, "bounced": 30}


def test_a_cancelled_campaign_is_sent_or_cancelled_to_the_last_message(world: World) -> None:
    one = world.launched(600)
    world.wait_arrived(one, 60)

    world.ask("steer", campaign_id=one.campaign, move="cancel")

    states = world.settled(one)
    assert states["cancelled"] > 0
    assert states["delivered"] + states.get("bounced", 0) + states["cancelled"] == 600
    assert states["delivered"] == world.counts(one)["distinct"]


def test_a_task_that_comes_many_times_sends_once(world: World) -> None:
    one = world.launched(300)

    def publish_all() -> bool:
        ids = [
            batch_id
            for state in ("untaken", "taken", "done")
            for batch_id in world.ask("batches", mailing_id=one.mailing, state=state)
        ]
        world.ask("publish_again", batch_ids=ids, times=2)
        return bool(world.account(one)["settled"])

    world.wait("nothing waits", publish_all)

    assert world.settled(one) == {"delivered": 285, "bounced": 15}


def test_high_priority_overtakes_and_low_priority_does_not_starve(world: World) -> None:
    low = world.launched(600, priority=1)
    world.wait_arrived(low, 30)
    high = world.launched(600, priority=3)
    normal = world.launched(300, priority=2)

    world.wait_arrived(high, 30)
    assert world.account(low)["states"]["waiting"] > 0  # the earlier one does not come first
    behind = world.counts(low)["distinct"]
    world.wait_arrived(low, behind + 1)
    assert world.account(high)["states"]["waiting"] > 0  # nor has it to wait until the end

    for one, size in ((low, 600), (high, 600), (normal, 300)):
        assert world.settled(one) == {"delivered": size * 95 // 100, "bounced": size // 20}
