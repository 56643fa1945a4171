"""PostgreSQL gone and back: outcomes wait in the journals, and sending resumes by itself."""

from __future__ import annotations

from dataclasses import replace

from tests.faults.world import DELIVERY, USUAL, World, role

WAITS = "mailer.batch.record_waits"


def test_outcomes_wait_for_the_database_and_sending_resumes_by_itself(world: World) -> None:
    one = world.launched(600)
    world.wait_arrived(one, 60)
    before = _waits(world)

    _lose_database(world, before)
    world.stage.start_postgres()

    assert world.settled(one) == {"delivered": 570, "bounced": 30}


def test_a_worker_that_dies_while_the_database_is_away_has_told_its_journal(world: World) -> None:
    one = world.launched(600)
    world.wait_arrived(one, 60)
    before = _waits(world)

    _lose_database(world, before)
    world.stage.freeze("deliver-1")
    bound = world.open_connections("deliver-1")
    world.stage.kill("deliver-1")
    world.stage.start_postgres()
    world.run(*USUAL)

    world.settled(one, in_doubt_at_most=bound)


def _waits(world: World) -> dict[str, int]:
    return {name: world.stage.children[name].log_text().count(WAITS) for name in DELIVERY}


def _lose_database(world: World, before: dict[str, int]) -> None:
    """Stop PostgreSQL at once, until every worker has outcomes that it cannot record."""
    world.freeze_at_work(*DELIVERY)
    world.stage.drop_postgres()
    world.stage.thaw(*DELIVERY)
    world.wait("all wait", lambda: all(_waits(world)[name] > before[name] for name in DELIVERY))


def test_outcomes_whose_commit_was_not_heard_of_are_recorded_once(world: World) -> None:
    world.run("upkeep", "beat")
    usual = role("deliver-1")
    world.stage.start(replace(usual, command=("tests.faults.unlucky_worker", *usual.command[1:])))

    one = world.launched(300)

    assert world.settled(one) == {"delivered": 285, "bounced": 15}
    assert world.stage.children["deliver-1"].log_text().count("answer to the commit was lost") > 10
    world.stage.children["deliver-1"].stop()
