"""A worker that is asked to stop: what is on the wire ends, the rest goes back at once."""

from __future__ import annotations

import signal

from tests.faults.world import World, role


def test_a_worker_that_is_stopped_leaves_no_doubt_and_nothing_to_rescue(world: World) -> None:
    one = world.launched(600)
    world.wait_arrived(one, 60)
    world.wait("it is at work", lambda: world.taken_by("deliver-1"))
    child, pid = world.stage.children["deliver-1"], world.pid("deliver-1")

    child.signal(signal.SIGTERM)
    world.wait("it ends", lambda: child.poll() is not None, role("deliver-1").grace_seconds)

    assert str(pid) not in world.ask("taken_by_pid")
    assert world.ask("open_journals_of", pid=pid) == 0
    assert world.settled(one) == {"delivered": 570, "bounced": 30}
