"""What every transport does. Run on the twin in memory and on real sockets, on both event loops."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest
import uvloop

from mailer.core.envelope import Envelope
from mailer.transport.door import (
    Destination,
    Host,
    InDoubt,
    Limits,
    Replied,
    Result,
    SendReport,
    Timeouts,
    Unreached,
    Unsent,
)
from mailer.transport.memory import (
    HANGS_UP,
    IS_SILENT,
    MODERN,
    MemoryTransport,
    ServerScript,
    Treatment,
)
from mailer.transport.pool import PooledTransport
from mailer.transport.smtp import SmtpTransport
from tests.conformance.transport_peers import (
    CONTENT,
    ListFeed,
    LoopbackServer,
    a_destination,
    an_envelope,
    feed_of,
    until,
)

SHORT = Timeouts(5.0, 5.0, command_seconds=0.2, data_reply_seconds=0.2)
PLAIN = tuple(offer for offer in MODERN if offer != "PIPELINING")


@dataclass
class Bench:
    """A transport and the server it reaches."""

    transport: PooledTransport
    destination: Destination
    script: ServerScript

    async def send(self, feed: ListFeed, connections: int = 1) -> SendReport:
        async with asyncio.timeout(20):
            return await self.transport.send(self.destination, feed, connections)


Scenario = Callable[[Bench], Awaitable[None]]
Run = Callable[[ServerScript, Scenario], None]


@asynccontextmanager
async def in_memory(script: ServerScript) -> AsyncIterator[Bench]:
    transport = MemoryTransport({"127.0.0.1": script})
    yield Bench(transport, a_destination(Host("mx.test", "127.0.0.1")), script)
    await transport.close(1.0)


@asynccontextmanager
async def over_sockets(script: ServerScript) -> AsyncIterator[Bench]:
    async with LoopbackServer(script) as server:
        transport = SmtpTransport()
        yield Bench(transport, a_destination(server.host), script)
        await transport.close(1.0)


@pytest.fixture(params=["memory", "asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Play a scenario on one implementation."""
    place = in_memory if request.param == "memory" else over_sockets
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def play(script: ServerScript, scenario: Scenario) -> None:
        async def whole() -> None:
            async with place(script) as bench:
                await scenario(bench)

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(whole())

    return play


@pytest.mark.parametrize("offers", [MODERN, PLAIN, ()])
def test_every_message_arrives_once_and_whole(run: Run, offers: tuple[str, ...]) -> None:
    async def scenario(bench: Bench) -> None:
        feed = feed_of(f"r{number}@recipient.test" for number in range(30))

        report = await bench.send(feed, connections=3)

        assert set(feed.told().values()) == {"250 content"}
        assert sorted(feed.started) == list(range(1, 31))
        assert len(bench.script.inbox) == 30
        assert {got.content for got in bench.script.inbox} == {CONTENT}
        assert {got.recipient for got in bench.script.inbox} == {
            envelope.recipient for envelope in feed.envelopes
        }
        assert report.opened == 3 == bench.script.most_connections
        assert report.unreached is None

    run(ServerScript(offers=offers), scenario)


@pytest.mark.parametrize("is_careless", [False, True])
@pytest.mark.parametrize("offers", [MODERN, PLAIN])
def test_each_refusal_goes_to_the_message_it_is_about(
    run: Run, offers: tuple[str, ...], is_careless: bool
) -> None:
    draw = random.Random(15)
    treatments = {
        f"r{number}@recipient.test": Treatment(rcpt=f"550 5.1.1 no {number} here")
        for number in range(1, 201)
        if draw.random() < 0.15
    }

    async def scenario(bench: Bench) -> None:
        feed = feed_of(f"r{number}@recipient.test" for number in range(1, 201))

        await bench.send(feed, connections=4)

        for envelope in feed.envelopes:
            result = feed.results[envelope.message_id]
            assert isinstance(result, Replied)
            if envelope.recipient in treatments:
                assert (result.reply.code, result.reply.enhanced) == (550, "5.1.1")
                assert result.reply.text == f"no {envelope.message_id} here"
            else:
                assert (result.reply.code, result.reply.phase) == (250, "content")
        assert len(bench.script.inbox) == 200 - len(treatments)
        assert {got.content for got in bench.script.inbox} == {CONTENT}

    run(ServerScript(treatments, offers=offers, is_careless=is_careless), scenario)


def test_a_lone_dot_for_a_refused_recipient_is_nobodys_message(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        feed = feed_of(["gone@x.test", "here@x.test", "gone@x.test"])

        await bench.send(feed)

        assert feed.told() == {1: "550 rcpt", 2: "250 content", 3: "550 rcpt"}
        assert bench.script.empty_contents == 2
        assert [got.recipient for got in bench.script.inbox] == ["here@x.test"]
        assert feed.started == [2]

    gone = Treatment(rcpt="550 5.1.1 gone")
    run(ServerScript({"gone@x.test": gone}, is_careless=True), scenario)


@pytest.mark.parametrize("offers", [MODERN, PLAIN])
@pytest.mark.parametrize(
    ("treatment", "told"),
    [
        (Treatment(rcpt="451-4.7.1 Greylisted\r\n451 4.7.1 come back"), "451 rcpt"),
        (Treatment(data="452 4.3.1 no space"), "452 data"),
        (Treatment(data="554 5.7.1 no"), "554 data"),
        (Treatment(content="550 5.7.1 spam"), "550 content"),
        (Treatment(content="451 4.3.0 later"), "451 content"),
        (Treatment(rcpt="421 4.7.0 closing"), "421 rcpt"),
        (Treatment(data="421 4.7.0 closing"), "421 data"),
        (Treatment(content="421 4.7.0 closing"), "421 content"),
        (Treatment(content=HANGS_UP), "in doubt"),
        (Treatment(content="hello"), "in doubt"),
        (Treatment(content="354 more"), "in doubt"),
        (Treatment(rcpt="garbage"), "unreached rcpt"),
        (Treatment(rcpt="9" * 10_000), "unreached rcpt"),
        (Treatment(data="250 thanks"), "unreached data"),
    ],
)
def test_what_one_message_meets_is_told_of_that_message_only(
    run: Run, offers: tuple[str, ...], treatment: Treatment, told: str
) -> None:
    async def scenario(bench: Bench) -> None:
        feed = feed_of(["a@x.test", "b@x.test", "odd@x.test", "c@x.test", "d@x.test"])

        await bench.send(feed)

        fine = "250 content"
        assert feed.told() == {1: fine, 2: fine, 3: told, 4: fine, 5: fine}

    run(ServerScript({"odd@x.test": treatment}, offers=offers), scenario)


@pytest.mark.parametrize("offers", [MODERN, PLAIN])
def test_a_refused_sender_refuses_each_message(run: Run, offers: tuple[str, ...]) -> None:
    async def scenario(bench: Bench) -> None:
        feed = feed_of(["a@x.test", "b@x.test"])

        await bench.send(feed)

        assert feed.told() == {1: "550 mail", 2: "550 mail"}
        assert bench.script.inbox == []

    script = ServerScript({"bounce@sender.test": Treatment(mail="550 5.7.1 not you")})
    run(replace(script, offers=offers), scenario)


def test_a_silent_server_leaves_content_in_doubt_and_the_rest_goes_elsewhere(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        bench.destination = replace(bench.destination, timeouts=SHORT)
        feed = feed_of(["a@x.test", "silent@x.test", "b@x.test"])

        report = await bench.send(feed)

        assert feed.told() == {1: "250 content", 2: "in doubt", 3: "250 content"}
        assert report.opened == 2

    run(ServerScript({"silent@x.test": Treatment(content=IS_SILENT)}), scenario)


@pytest.mark.parametrize("offers", [MODERN, PLAIN])
@pytest.mark.parametrize("fault", [HANGS_UP, IS_SILENT])
def test_a_message_that_ends_every_connection_is_tried_once_on_a_fresh_one(
    run: Run, fault: str, offers: tuple[str, ...]
) -> None:
    async def scenario(bench: Bench) -> None:
        bench.destination = replace(bench.destination, timeouts=SHORT)
        feed = feed_of(["a@x.test", "poison@x.test", "b@x.test"])

        await bench.send(feed)

        assert feed.told() == {1: "250 content", 2: "unreached rcpt", 3: "250 content"}
        assert bench.script.connections == 3
        assert sorted(feed.started) == [1, 3]

    run(ServerScript({"poison@x.test": Treatment(rcpt=fault)}, offers=offers), scenario)


def test_a_limit_of_messages_on_a_connection_costs_a_new_connection(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        feed = feed_of(f"r{number}@x.test" for number in range(10))

        report = await bench.send(feed)

        told = list(feed.told().values())
        # The message that met the limit is told so: what that means is decided elsewhere.
        assert told.count("421 mail") == 2
        assert told.count("250 content") == 8
        assert report.opened == 3

    run(ServerScript(messages_per_connection=3), scenario)


def test_our_own_limit_of_messages_is_met_without_a_complaint(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        limits = Limits(messages_per_connection=3)
        bench.destination = replace(bench.destination, limits=limits)
        feed = feed_of(f"r{number}@x.test" for number in range(10))

        report = await bench.send(feed)

        assert set(feed.told().values()) == {"250 content"}
        assert report.opened == 4
        assert bench.script.commands.count("QUIT") >= 3

    run(ServerScript(messages_per_connection=3), scenario)


def test_a_server_that_only_says_421_is_not_knocked_at_again_and_again(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        feed = feed_of(f"r{number}@x.test" for number in range(50))

        report = await bench.send(feed, connections=2)

        assert report.unreached is not None
        assert report.unreached.reply.code == 421
        assert bench.script.connections <= 2
        assert feed.taken < 50
        assert set(feed.told().values()) <= {"421 mail", "unreached mail"}

    script = ServerScript({"bounce@sender.test": Treatment(mail="421 4.7.0 go away")})
    run(script, scenario)


def test_a_refusing_greeting_reaches_the_report(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        feed = feed_of(["a@x.test", "b@x.test"])

        report = await bench.send(feed)

        assert report.opened == 0
        assert report.unreached is not None
        assert (report.unreached.reply.code, report.unreached.phase) == (554, "greeting")
        assert report.unreached.reply.enhanced == "5.7.1"
        assert feed.told() == {1: "unreached greeting"}
        assert feed.taken == 1

    run(ServerScript(greeting="554 5.7.1 No service for you"), scenario)


def test_an_empty_feed_opens_nothing(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        assert await bench.send(feed_of([]), connections=5) == SendReport()
        assert bench.script.connections == 0

    run(ServerScript(), scenario)


def test_no_more_connections_are_opened_than_there_are_messages(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.send(feed_of(["a@x.test", "b@x.test"]), connections=10)

        assert bench.script.connections == 2

    run(ServerScript(), scenario)


def test_connections_stay_warm_and_are_used_again(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        first = await bench.send(feed_of(["a@x.test"]))
        second = await bench.send(feed_of(["b@x.test"]))

        assert (first.opened, first.reused, first.kept) == (1, 0, 1)
        assert (second.opened, second.reused, second.kept) == (0, 1, 1)

    run(ServerScript(), scenario)


def test_an_idle_connection_says_goodbye(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        limits = Limits(idle_seconds=0.01)
        bench.destination = replace(bench.destination, limits=limits)
        await bench.send(feed_of(["a@x.test"]))

        await until(lambda: bench.script.open_connections == 0)

        assert bench.script.commands[-1] == "QUIT"
        await until(lambda: bench.transport.connections_to(bench.destination) == 0)

    run(ServerScript(), scenario)


def test_sends_at_the_same_time_share_the_limit_of_connections(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        bench.destination = replace(bench.destination, limits=Limits(connections=2))
        feeds = [feed_of(f"r{n}-{m}@x.test" for n in range(10)) for m in range(5)]

        await asyncio.gather(*(bench.send(feed, connections=2) for feed in feeds))

        assert all(set(feed.told().values()) == {"250 content"} for feed in feeds)
        assert len(bench.script.inbox) == 50
        assert bench.script.most_connections <= 2

    run(ServerScript(), scenario)


def test_destinations_of_one_path_share_its_limit_of_connections(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        limited = replace(bench.destination, path="1:other", limits=Limits(connections=2))
        feeds = [feed_of([f"u{n}-{m}@x.test" for n in range(5)]) for m in range(4)]

        async with asyncio.timeout(20):
            await asyncio.gather(
                *(
                    bench.transport.send(replace(limited, key=f"domain-{number}"), feed, 2)
                    for number, feed in enumerate(feeds)
                )
            )

        assert all(len(feed.results) == 5 for feed in feeds)
        assert bench.script.most_connections <= 2

    run(ServerScript(), scenario)


def test_what_may_not_start_is_not_sent(run: Run) -> None:
    def journal_is_full(envelope: Envelope) -> None:
        if envelope.recipient == "b@x.test":
            raise OSError("no space left on device")

    async def scenario(bench: Bench) -> None:
        feed = feed_of(["a@x.test", "b@x.test"])
        feed.may_start = journal_is_full

        with pytest.raises(OSError, match="no space left"):
            await bench.send(feed)

        assert feed.told() == {1: "250 content", 2: "unsent"}
        await until(lambda: bench.script.open_connections == 0)
        assert [got.recipient for got in bench.script.inbox] == ["a@x.test"]

    run(ServerScript(), scenario)


def test_a_cancelled_send_still_settles_what_is_out(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        script = bench.script
        feed = feed_of(["a@x.test", "slow@x.test", "c@x.test"])
        bench.destination = replace(bench.destination, timeouts=SHORT)
        sending = asyncio.create_task(bench.send(feed))
        await until(lambda: len(script.inbox) == 2)

        sending.cancel()
        await asyncio.wait([sending])

        assert sending.cancelled()
        await until(lambda: len(feed.results) == feed.taken)
        assert feed.told()[1] == "250 content"
        assert feed.told()[2] == "in doubt"
        assert feed.told().get(3, "unsent") == "unsent"

    run(ServerScript({"slow@x.test": Treatment(content=IS_SILENT)}), scenario)


def test_closing_settles_everything_and_closes_every_connection(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        feed = feed_of(["a@x.test", "slow@x.test", "c@x.test"])
        sending = asyncio.create_task(bench.send(feed))
        await until(lambda: len(bench.script.inbox) == 2)

        await bench.transport.close(0.01)
        await sending

        assert feed.told()[2] == "in doubt"
        assert feed.told().get(3, "unsent") == "unsent"
        assert len(feed.results) == feed.taken
        await until(lambda: bench.script.open_connections == 0)
        assert await bench.send(feed_of(["d@x.test"])) == SendReport()

    run(ServerScript({"slow@x.test": Treatment(content=IS_SILENT)}), scenario)


def test_what_the_server_cannot_carry_is_refused_by_ourselves(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        eight_bit = b"Subject: x\r\n\r\n\xc3\xa4\r\n"
        feed = ListFeed(
            [
                an_envelope(1, "jürgen@x.test"),
                an_envelope(2, content=eight_bit),
                an_envelope(3, content=b"x" * 2000 + b"\r\n"),
                an_envelope(4, content=b"no end"),
                an_envelope(5, content=b"a\n.\r\nMAIL FROM:<evil@x.test>\r\n"),
                an_envelope(6, "plain@x.test"),
            ]
        )

        await bench.send(feed)

        assert feed.told() == {
            1: "553 rcpt",
            2: "554 data",
            3: "552 data",
            4: "554 data",
            5: "554 data",
            6: "250 content",
        }
        for number in range(1, 6):
            result = feed.results[number]
            assert isinstance(result, Replied)
            assert result.reply.text.startswith("not sent: ")
        assert [got.recipient for got in bench.script.inbox] == ["plain@x.test"]
        assert all(line.isascii() and "evil" not in line for line in bench.script.commands)

    run(ServerScript(offers=("PIPELINING", "SIZE 1000")), scenario)


def test_what_the_server_offers_is_used_where_it_is_needed(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        eight_bit = b"Subject: x\r\n\r\n\xc3\xa4\r\n"
        feed = ListFeed(
            [an_envelope(1, "jürgen@x.test"), an_envelope(2, "b@x.test", content=eight_bit)]
        )

        await bench.send(feed)

        assert set(feed.told().values()) == {"250 content"}
        mails = [line for line in bench.script.commands if line.startswith("MAIL")]
        assert mails == [
            f"MAIL FROM:<bounce@sender.test> SIZE={len(CONTENT)} SMTPUTF8",
            f"MAIL FROM:<bounce@sender.test> SIZE={len(eight_bit)} BODY=8BITMIME",
        ]
        assert bench.script.inbox[0].recipient == "jürgen@x.test"

    run(ServerScript(), scenario)


def test_a_host_that_does_not_answer_is_passed_over(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        dead = Host("dead.test", "127.0.0.99", 1)
        bench.destination = replace(bench.destination, hosts=(dead, *bench.destination.hosts))
        feed = feed_of(["a@x.test"])

        report = await bench.send(feed)

        assert feed.told() == {1: "250 content"}
        assert report.unreached is None

    run(ServerScript(), scenario)


def test_the_sandbox_guard_refuses_every_address_outside(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        outside = (Host("mx.real.test", "192.0.2.1"), Host("mx6.real.test", "2001:db8::1"))
        bench.destination = replace(bench.destination, hosts=outside, is_loopback_only=True)
        feed = feed_of(["a@x.test"])

        report = await bench.send(feed)

        assert feed.told() == {1: "unreached connect"}
        assert report.unreached is not None
        assert report.unreached.text == (
            "sandbox mode: 192.0.2.1 is not this machine, nothing was sent"
        )
        assert bench.script.connections == 0

    run(ServerScript(), scenario)


def test_results_are_told_while_others_are_still_under_way(run: Run) -> None:
    """A feeder may learn from a result and stop handing out."""

    async def scenario(bench: Bench) -> None:
        feed = feed_of(f"r{number}@x.test" for number in range(20))

        def stop_after_a_refusal(_: Envelope, result: Result) -> None:
            if isinstance(result, Replied) and result.reply.code == 450:
                feed.envelopes = feed.envelopes[: feed.taken]

        feed.on_settled = stop_after_a_refusal
        await bench.send(feed)

        assert feed.told()[5] == "450 rcpt"
        assert feed.taken <= 6
        assert len(feed.results) == feed.taken

    run(ServerScript({"r4@x.test": Treatment(rcpt="450 4.2.1 slow down")}), scenario)


def test_a_server_that_takes_contents_and_hangs_up_does_not_get_them_all(run: Run) -> None:
    names = [f"r{number}@x.test" for number in range(100)]

    async def scenario(bench: Bench) -> None:
        feed = feed_of(names)

        report = await bench.send(feed)

        assert list(feed.told().values()).count("in doubt") == 3
        assert feed.taken <= 5
        assert report.unreached is not None
        assert "without answering any message" in report.unreached.text

    run(ServerScript(dict.fromkeys(names, Treatment(content=HANGS_UP))), scenario)


def test_one_in_doubt_says_nothing_about_the_message_announced_behind_it(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        feed = feed_of(["doubt@x.test", "b@x.test"])

        await bench.send(feed)

        assert feed.told() == {1: "in doubt", 2: "250 content"}

    run(ServerScript({"doubt@x.test": Treatment(content=HANGS_UP)}), scenario)


def test_a_server_that_forgets_pipelined_commands_is_spoken_to_plainly(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        bench.destination = replace(bench.destination, timeouts=SHORT)
        feed = feed_of(["gone@x.test", "a@x.test", "gone@x.test", "b@x.test", "gone@x.test"])

        report = await bench.send(feed)

        fine, gone = "250 content", "550 rcpt"
        assert feed.told() == {1: gone, 2: fine, 3: gone, 4: fine, 5: gone}
        assert report.opened == 2

    gone = Treatment(rcpt="550 5.1.1 gone")
    run(ServerScript({"gone@x.test": gone}, flushes_on_error=True), scenario)


FAULTS = (
    Treatment(rcpt="550 5.1.1 gone"),
    Treatment(rcpt="451 4.7.1 later"),
    Treatment(rcpt=HANGS_UP),
    Treatment(rcpt="nonsense"),
    Treatment(data="452 4.3.1 no space"),
    Treatment(data="421 4.3.2 closing"),
    Treatment(content="554 5.7.1 spam"),
    Treatment(content="421 4.3.2 closing"),
    Treatment(content=HANGS_UP),
    Treatment(content="nonsense"),
)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("offers", [MODERN, PLAIN])
def test_whatever_goes_wrong_nothing_is_lost_and_nothing_sent_twice(
    run: Run, offers: tuple[str, ...], seed: int
) -> None:
    draw = random.Random(seed)
    names = [f"r{number}@x.test" for number in range(400)]
    treatments = {name: draw.choice(FAULTS) for name in names if draw.random() < 0.25}

    async def scenario(bench: Bench) -> None:
        left = names
        delivered: list[str] = []
        for _ in range(20):
            feed = feed_of(left)
            report = await bench.send(feed, connections=5)

            assert len(feed.results) == feed.taken
            left = [envelope.recipient for envelope in feed.envelopes[feed.taken :]]
            for envelope in feed.envelopes[: feed.taken]:
                name, word = envelope.recipient, feed.told()[envelope.message_id]
                fault = treatments.get(name)
                if word == "250 content":
                    delivered.append(name)
                elif report.unreached is not None and feed.results[envelope.message_id] == (
                    report.unreached
                ):
                    left.append(name)  # every connection gave up before its turn came
                else:
                    assert word in expected_words(fault), (name, fault)
            if not left:
                break
        assert not left
        assert len(delivered) > 250
        assert len(delivered) == len(set(delivered))
        assert not set(delivered) & set(treatments)
        got = [received.recipient for received in bench.script.inbox]
        assert len(got) == len(set(got))
        assert set(delivered) <= set(got)

    run(ServerScript(treatments, offers=offers, messages_per_connection=50), scenario)


def expected_words(fault: Treatment | None) -> set[str]:
    """What may be told of a message; the server's limit of messages can meet each one."""
    at_the_limit = {"421 mail"}
    if fault is None:
        return at_the_limit
    if fault.rcpt in (HANGS_UP, "nonsense"):
        return at_the_limit | {"unreached rcpt"}
    if fault.content in (HANGS_UP, "nonsense"):
        return at_the_limit | {"in doubt"}
    for phase in ("rcpt", "data", "content"):
        reply = getattr(fault, phase)
        if not reply.startswith(("2", "354")):
            return at_the_limit | {f"{reply[:3]} {phase}"}
    raise AssertionError(fault)


def test_a_result_is_one_of_four(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        bench.destination = replace(bench.destination, timeouts=SHORT)
        feed = feed_of(["a@x.test", "gone@x.test", "silent@x.test", "poison@x.test"])

        await bench.send(feed, connections=2)

        kinds = [type(feed.results[number]) for number in range(1, 5)]
        assert kinds == [Replied, Replied, InDoubt, Unreached]
        assert Unsent not in kinds

    treatments = {
        "gone@x.test": Treatment(rcpt="550 5.1.1 gone"),
        "silent@x.test": Treatment(content=IS_SILENT),
        "poison@x.test": Treatment(rcpt=HANGS_UP),
    }
    run(ServerScript(treatments), scenario)
