"""Processes that end without a word (kill -9): one, all, and those that look after the others."""

from __future__ import annotations

from tests.faults.world import DELIVERY, USUAL, World


def test_a_killed_worker_loses_nothing_and_nothing_is_sent_twice(world: World) -> None:
    one = world.launched(600)
    world.wait_arrived(one, 60)

    bound = world.kill_at_work("deliver-1")
    world.run(*USUAL)

    world.settled(one, in_doubt_at_most=bound)


def test_all_delivery_workers_killed_at_once_are_made_good_by_new_ones(world: World) -> None:
    one = world.launched(600)
    world.wait_arrived(one, 60)

    bound = world.kill_at_work(*DELIVERY)
    world.run(*USUAL)

    world.settled(one, in_doubt_at_most=bound)


def test_upkeep_and_beat_may_be_killed_without_any_doubt(world: World) -> None:
    one = world.launched(600)
    world.wait_arrived(one, 60)

    world.stage.kill("upkeep", "beat")
    world.run(*USUAL)
    world.wait_arrived(one, 200)
    world.stage.kill("upkeep")
    world.run(*USUAL)

    assert world.settled(one) == {"delivered": 570, "bounced": 30}
