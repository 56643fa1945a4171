"""How connections are shared, counted and chosen, on servers in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace

import pytest

from deliverability.core.outcome import Phase, Reply
from mailer.transport.door import Host, Limits, Unreached, Unsent
from mailer.transport.memory import HANGS_UP, MemoryTransport, ServerScript, Treatment
from mailer.transport.supply import Supply
from tests.conformance.transport_peers import ListFeed, a_destination, an_envelope, feed_of, until

ONE, TWO = Host("one.test", "127.0.0.1"), Host("two.test", "127.0.0.2")


def play(scenario: Callable[[], Coroutine[None, None, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await scenario()

    asyncio.run(bounded())


def test_the_process_limit_holds_over_all_destinations() -> None:
    async def scenario() -> None:
        servers = {f"127.0.0.{number}": ServerScript() for number in range(1, 7)}
        transport = MemoryTransport(servers, connections=2)
        feeds = [feed_of(f"r{number}@x.test" for number in range(10)) for _ in servers]
        destinations = [a_destination(Host("mx.test", address), key=address) for address in servers]
        most_open = 0

        async def watch() -> None:
            nonlocal most_open
            while True:
                now = sum(transport.connections_to(each) for each in destinations)
                most_open = max(most_open, now)
                await asyncio.sleep(0)

        watching = asyncio.create_task(watch())
        sends = map(transport.send, destinations, feeds, [3] * len(servers))
        await asyncio.gather(*sends)
        watching.cancel()

        assert all(set(feed.told().values()) == {"250 content"} for feed in feeds)
        assert 1 <= most_open <= 2
        await transport.close(1.0)

    play(scenario)


def test_a_warm_connection_to_a_host_that_is_no_longer_asked_for_is_closed() -> None:
    async def scenario() -> None:
        servers = {"127.0.0.1": ServerScript(), "127.0.0.2": ServerScript()}
        transport = MemoryTransport(servers)
        destination = a_destination(ONE, limits=Limits(connections=1))
        await transport.send(destination, feed_of(["a@x.test"]), 1)

        report = await transport.send(replace(destination, hosts=(TWO,)), feed_of(["b@x.test"]), 1)

        assert (report.opened, report.reused) == (1, 0)
        assert [got.recipient for got in servers["127.0.0.2"].inbox] == ["b@x.test"]
        await until(lambda: servers["127.0.0.1"].open_connections == 0)
        await transport.close(1.0)

    play(scenario)


@pytest.mark.parametrize(
    "change",
    [
        {"source_address": "127.0.0.9"},
        {"helo_name": "other.sender.test"},
        {"username": "somebody"},
        {"key": "other"},
    ],
)
def test_connections_are_never_shared_between_identities(change: dict[str, str]) -> None:
    async def scenario() -> None:
        transport = MemoryTransport({"127.0.0.1": ServerScript()})
        destination = a_destination(ONE)
        await transport.send(destination, feed_of(["a@x.test"]), 1)

        report = await transport.send(
            replace(destination, **change),  # type: ignore[arg-type]
            feed_of(["b@x.test"]),
            1,
        )

        assert (report.opened, report.reused) == (1, 0)
        await transport.close(1.0)

    play(scenario)


def test_a_host_that_spoke_is_asked_again() -> None:
    async def scenario() -> None:
        script = ServerScript(greeting="421 4.3.2 busy")
        transport = MemoryTransport({"127.0.0.1": script})
        first = await transport.send(a_destination(ONE), feed_of(["a@x.test"]), 1)
        script.greeting = "220 mx.test ready again"
        feed = feed_of(["a@x.test"])

        await transport.send(a_destination(ONE), feed, 1)

        assert first.unreached is not None
        assert first.unreached.reply == Reply(421, "4.3.2", "busy", Phase.GREETING)
        assert feed.told() == {1: "250 content"}
        await transport.close(1.0)

    play(scenario)


def test_a_servers_own_words_tell_more_than_silence() -> None:
    async def scenario() -> None:
        transport = MemoryTransport({"127.0.0.2": ServerScript(greeting="554 5.7.1 go away")})
        three = Host("three.test", "127.0.0.3")

        report = await transport.send(a_destination(ONE, TWO, three), feed_of(["a@x.test"]), 1)

        assert report.unreached == Unreached(
            Reply(554, "5.7.1", "go away", Phase.GREETING), "two.test"
        )
        await transport.close(1.0)

    play(scenario)


def test_a_connection_that_was_not_made_takes_no_place() -> None:
    async def scenario() -> None:
        script = ServerScript(greeting="421 4.3.2 busy")
        transport = MemoryTransport({"127.0.0.1": script}, connections=1)
        destination = a_destination(ONE, limits=Limits(connections=1))

        for _ in range(3):
            await transport.send(destination, feed_of(["a@x.test"]), 1)

        assert script.connections == 3
        assert transport.connections_to(destination) == 0
        await transport.close(1.0)

    play(scenario)


def test_without_a_host_there_is_nothing_to_reach() -> None:
    async def scenario() -> None:
        transport = MemoryTransport({})

        report = await transport.send(a_destination(), feed_of(["a@x.test"]), 1)

        assert report.unreached is not None
        assert report.unreached.phase is Phase.ROUTE
        await transport.close(1.0)

    play(scenario)


def test_one_message_that_hangs_up_does_not_stop_the_others_connections() -> None:
    async def scenario() -> None:
        script = ServerScript({"r5@x.test": Treatment(rcpt=HANGS_UP)})
        transport = MemoryTransport({"127.0.0.1": script})
        feed = feed_of(f"r{number}@x.test" for number in range(1, 41))

        report = await transport.send(a_destination(ONE), feed, 4)

        told = feed.told()
        assert told.pop(5) == "unreached rcpt"
        assert set(told.values()) == {"250 content"}
        assert report.unreached is None
        await transport.close(1.0)

    play(scenario)


def test_nonsense_limits_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Limits(connections=0)


# -- the supply


def test_only_what_lost_its_connection_comes_back() -> None:
    feed = ListFeed([an_envelope(1), an_envelope(2), an_envelope(3)])
    supply = Supply(feed)
    first, second = supply.next(), supply.next()
    assert first is not None
    assert second is not None

    supply.settle(first, Unsent("stale", is_lost=True))
    supply.settle(second, Unsent("the journal is full"))

    assert feed.told() == {2: "unsent"}
    assert supply.next() is first
    assert supply.next() == an_envelope(3)
    assert supply.next() is None


def test_after_a_stop_nothing_is_handed_out_and_nothing_kept() -> None:
    feed = ListFeed([an_envelope(1), an_envelope(2), an_envelope(3)])
    supply = Supply(feed)
    assert supply.prefetch(2) == 2
    under_way = supply.next()
    assert under_way is not None

    supply.stop("the sending was stopped")

    assert feed.told() == {2: "unsent"}
    assert supply.next() is None
    assert not supply.has_more
    supply.settle(under_way, Unsent("lost", is_lost=True))
    assert feed.told() == {1: "unsent", 2: "unsent"}
    assert feed.taken == 2


def test_a_feed_that_fails_while_being_asked_ahead_gets_back_what_it_gave() -> None:
    class FailingFeed(ListFeed):
        def next(self):  # type: ignore[no-untyped-def]
            if self.taken == 2:
                raise OSError("the render broke")
            return super().next()

    feed = FailingFeed([an_envelope(number) for number in range(1, 5)])

    with pytest.raises(OSError, match="render broke"):
        Supply(feed).prefetch(4)

    assert feed.told() == {1: "unsent", 2: "unsent"}
