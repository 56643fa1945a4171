"""Valkey flushed, killed and started anew: nothing is lost and no limit is passed."""

from __future__ import annotations

import time
from collections import Counter

from deliverability.core.limits import RateLimit
from tests.faults.world import DELIVERY, USUAL, Launched, World

CAP = 100
PER_HOUR = 1_200
REFUSED = "Cannot connect to redis"


def test_a_flushed_broker_costs_no_message(world: World) -> None:
    one = world.launched(600)

    for share in (60, 200, 400):
        world.wait_arrived(one, share)
        world.ask("flush_broker")

    assert world.settled(one) == {"delivered": 570, "bounced": 30}


def test_a_killed_broker_costs_no_message_and_no_limit_is_passed(world: World) -> None:
    began = time.time()
    capped = world.launched(300, daily_cap=CAP)
    rated = world.launched(300, per_hour=PER_HOUR)
    free = world.launched(300)
    for one, share in ((capped, 40), (rated, 10), (free, 40)):  # a rate begins without a burst
        world.wait_arrived(one, share)

    _lose_broker(world)
    world.stage.start_valkey()
    world.wait_arrived(rated, world.counts(rated)["distinct"] + 3)  # the rate goes on
    world.ask("flush_broker")

    assert world.settled(free) == {"delivered": 285, "bounced": 15}
    world.wait_arrived(rated, world.counts(rated)["distinct"] + 3)
    _hold_rate(world, rated, began)
    world.wait("the cap binds", lambda: world.ask("room", campaign_id=capped.campaign) == 0)
    world.wait_dark(capped)
    assert world.counts(capped)["received"] <= world.account(capped)["attempts"] <= CAP
    for one in (capped, rated):
        world.ask("steer", campaign_id=one.campaign, move="cancel")
        world.settled(one)
    assert all(map(world.stage.is_running, USUAL))


def _lose_broker(world: World) -> None:
    """Kill it while workers have tasks, until each has tried to connect in vain."""
    workers = [world.stage.children[name] for name in (*DELIVERY, "upkeep")]
    world.wait("all are at work", lambda: all(world.taken_by(name) for name in DELIVERY))
    before = [child.log_text().count(REFUSED) for child in workers]
    world.stage.kill("valkey")
    world.wait(
        "all know",
        lambda: all(
            child.log_text().count(REFUSED) > seen
            for child, seen in zip(workers, before, strict=True)
        ),
    )
    assert all(map(world.stage.is_running, USUAL))


def _hold_rate(world: World, one: Launched, began: float) -> None:
    """A path's burst, and then one by one: counted by the servers, over the loss."""
    limit = RateLimit("", PER_HOUR, "the test")
    received = Counter(world.counts(one)["by_provider"])
    seconds = time.time() - began
    paths = {name: received[name] for name in ("gmail", "outlook", "yahoo", "apple")}
    paths["other"] = received.total() - sum(paths.values())
    at_most = limit.burst + 1 + seconds * 1e6 / limit.interval_us
    assert max(paths.values()) <= at_most, (paths, at_most)
