"""Workers that stop for longer than every time-out and then go on (SIGSTOP, a suspended host)."""

from __future__ import annotations

from tests.faults.world import DELIVERY, USUAL, World


def test_frozen_workers_keep_what_is_theirs_and_go_on_where_they_were(world: World) -> None:
    one = world.launched(600)
    world.wait_arrived(one, 60)
    bound = world.freeze_at_work(*DELIVERY)
    held = {name: world.taken_by(name) for name in DELIVERY}

    world.run(*USUAL, "deliver-3")
    # Their connections are closed by the servers, their tasks are given to the other worker,
    # and that one sends what is free.
    world.wait("hung up on", lambda: not any(map(world.open_connections, DELIVERY)))
    world.wait("given away", lambda: world.ask("unacknowledged") <= 4)
    world.wait(
        "nothing is free", lambda: not world.ask("batches", mailing_id=one.mailing, state="untaken")
    )
    assert {name: world.taken_by(name) for name in DELIVERY} == held
    assert world.account(one)["states"]["waiting"] > 0
    world.stage.thaw(*DELIVERY)

    world.settled(one, in_doubt_at_most=bound)
