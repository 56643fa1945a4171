"""One suite for the MX door over DNS (a real server on loopback) and over its table in memory."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from mailer.transport.mx import (
    DnsFailure,
    DnsRecords,
    DnsUnavailable,
    Mx,
    NoSuchDomain,
    NullMx,
    Resolved,
)
from mailer.transport.mx_memory import MemoryRecords, Name

ZONE = {
    "gmail.test": Name(mx=((20, "alt1.mx.gmail.test"), (5, "MX.gmail.test")), ttl_seconds=600),
    "mx.gmail.test": Name(a=("127.0.0.1",), aaaa=("::1",), srv_port=2525),
    "alt1.mx.gmail.test": Name(a=("127.0.0.2", "127.0.0.3")),
    "null.test": Name(mx=((0, ""),)),
    "half-null.test": Name(mx=((0, ""), (10, "mx.gmail.test"))),
    "implicit.test": Name(a=("127.0.0.4",)),
    "implicit6.test": Name(aaaa=("::2",)),
    "nothing.test": Name(),
    "alias.test": Name(cname="gmail.test"),
    "dangling.test": Name(cname="gone.test"),
    "www.implicit.test": Name(cname="implicit.test"),
    "broken.test": Name(mx=((10, "mx.gmail.test"),), fails=frozenset({"MX"})),
    "half-broken.test": Name(fails=frozenset({"A"})),
    "deaf.test": Name(fails=frozenset({"A", "AAAA"})),
    "four.test": Name(a=("127.0.0.5",), fails=frozenset({"AAAA"})),
    "literal.test": Name(mx=((10, "192.0.2.1"),), a=("127.0.0.6",)),
    "xn--bcher-kva.test": Name(mx=((10, "mx.gmail.test"),)),
    "fleeting.test": Name(mx=((10, "mx.gmail.test"),), ttl_seconds=0),
    "eternal.test": Name(mx=((10, "mx.gmail.test"),), ttl_seconds=10_000_000),
}


class DnsServer:
    """Answers the zone's records over UDP on loopback."""

    def __init__(self, zone: dict[str, Name]) -> None:
        self.zone = zone
        self.asked: list[tuple[str, str]] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def stop(self) -> None:
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            data, peer = self._socket.recvfrom(4096)
            if not data:
                return
            self._socket.sendto(self._reply(dns.message.from_wire(data)).to_wire(), peer)

    def _reply(self, query: dns.message.Message) -> dns.message.Message:
        question = query.question[0]
        name, kind = (
            question.name.to_text(omit_final_dot=True),
            dns.rdatatype.to_text(question.rdtype),
        )
        self.asked.append((name, kind))
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA
        while (entry := self.zone.get(name)) is not None and entry.cname is not None:
            reply.answer.append(
                dns.rrset.from_text(name + ".", entry.ttl_seconds, "IN", "CNAME", entry.cname + ".")
            )
            name = entry.cname
        self._fill(reply, name, kind)
        return reply

    def _fill(self, reply: dns.message.Message, name: str, kind: str) -> None:
        entry = self.zone.get(name.removeprefix("_smtp._tcp."))
        if entry is None or (kind == "SRV" and entry.srv_port is None):
            reply.set_rcode(dns.rcode.NXDOMAIN)
            return
        if kind in entry.fails:
            reply.set_rcode(dns.rcode.SERVFAIL)
            return
        texts = {
            "MX": [f"{preference} {host}." for preference, host in entry.mx],
            "A": entry.a,
            "AAAA": entry.aaaa,
            "SRV": [f"0 0 {entry.srv_port} {name.removeprefix('_smtp._tcp.')}."],
        }[kind]
        if texts:
            rrset = dns.rrset.from_text(name + ".", entry.ttl_seconds, "IN", kind, *texts)
            reply.answer.append(rrset)


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Door:
    make: Callable[..., Mx]
    asked: list[Any]


@pytest.fixture(scope="module")
def server() -> Iterator[DnsServer]:
    server = DnsServer(ZONE)
    yield server
    server.stop()


@pytest.fixture(params=["dns", "memory"])
def door(request: pytest.FixtureRequest) -> Door:
    if request.param == "memory":
        records = MemoryRecords(ZONE)
        return Door(lambda **options: Mx(records, **options), records.asked)
    server: DnsServer = request.getfixturevalue("server")
    server.asked.clear()
    asking = DnsRecords(server.address, timeout_seconds=5)
    return Door(lambda **options: Mx(asking, **options), server.asked)


def test_hosts_come_best_preference_first(door: Door) -> None:
    route = asyncio.run(door.make().resolve("gmail.test"))

    assert route == Resolved(((5, "mx.gmail.test"), (20, "alt1.mx.gmail.test")), 600)


@pytest.mark.parametrize("written", ["GMAIL.Test", "gmail.test.", " gmail.test"])
def test_the_spelling_of_a_domain_does_not_matter(door: Door, written: str) -> None:
    assert isinstance(asyncio.run(door.make().resolve(written)), Resolved)


def test_an_international_domain_is_asked_in_ascii(door: Door) -> None:
    assert isinstance(asyncio.run(door.make().resolve("Bücher.test")), Resolved)


def test_null_mx_takes_no_mail(door: Door) -> None:
    assert asyncio.run(door.make().resolve("null.test")) == NullMx(300)


def test_a_null_mx_beside_a_host_is_ignored(door: Door) -> None:
    assert asyncio.run(door.make().resolve("half-null.test")) == Resolved(
        ((10, "mx.gmail.test"),), 300
    )


@pytest.mark.parametrize("domain", ["implicit.test", "implicit6.test", "www.implicit.test"])
def test_without_mx_the_domain_itself_takes_its_mail(door: Door, domain: str) -> None:
    assert asyncio.run(door.make().resolve(domain)) == Resolved(
        ((0, domain),), 300, is_implicit=True
    )


def test_an_alias_leads_to_the_mx_of_its_target(door: Door) -> None:
    route = asyncio.run(door.make().resolve("alias.test"))

    assert isinstance(route, Resolved)
    assert route.hosts[0] == (5, "mx.gmail.test")


@pytest.mark.parametrize("domain", ["gone.test", "dangling.test", "nothing.test"])
def test_what_is_not_there_is_no_such_domain(door: Door, domain: str) -> None:
    route = asyncio.run(door.make().resolve(domain))

    assert isinstance(route, NoSuchDomain)
    assert domain in route.why


@pytest.mark.parametrize("domain", ["broken.test", "half-broken.test", "deaf.test"])
def test_a_failing_server_says_nothing_about_the_domain(door: Door, domain: str) -> None:
    assert isinstance(asyncio.run(door.make().resolve(domain)), DnsFailure)


def test_mx_records_without_a_usable_host_never_lead_to_the_address(door: Door) -> None:
    assert isinstance(asyncio.run(door.make().resolve("literal.test")), DnsFailure)


@pytest.mark.parametrize(
    "domain", ["[127.0.0.1]", "127.0.0.1", "localhost", "", "a..test", "-.test", "x" * 64 + ".test"]
)
def test_what_is_no_mail_domain_is_refused_without_a_question(door: Door, domain: str) -> None:
    assert isinstance(asyncio.run(door.make().resolve(domain)), NoSuchDomain)
    assert door.asked == []


def test_addresses_are_told_with_ipv4_first(door: Door) -> None:
    mx = door.make()

    assert asyncio.run(mx.addresses("mx.gmail.test")) == ("127.0.0.1", "::1")
    assert asyncio.run(mx.addresses("gone.test")) == ()
    assert asyncio.run(mx.addresses("127.0.0.9")) == ("127.0.0.9",)


def test_one_failing_address_type_leaves_the_other(door: Door) -> None:
    assert asyncio.run(door.make().addresses("four.test")) == ("127.0.0.5",)


def test_addresses_that_cannot_be_learned_now_are_an_error(door: Door) -> None:
    with pytest.raises(DnsUnavailable):
        asyncio.run(door.make().addresses("deaf.test"))


def test_only_the_sandbox_asks_for_a_port(door: Door) -> None:
    assert asyncio.run(door.make().port("mx.gmail.test")) == 25
    assert door.asked == []

    sandbox = door.make(is_sandbox=True)
    assert asyncio.run(sandbox.port("mx.gmail.test")) == 2525
    assert asyncio.run(sandbox.port("alt1.mx.gmail.test")) == 25


def test_an_answer_is_kept_for_its_ttl(door: Door) -> None:
    clock = Clock()
    mx = door.make(clock=clock)
    for moment in (0, 599, 601):
        clock.now = 1000.0 + moment
        asyncio.run(mx.resolve("gmail.test"))

    assert len(door.asked) == 2


@pytest.mark.parametrize(
    ("domain", "seconds"), [("fleeting.test", 30), ("eternal.test", 24 * 3600)]
)
def test_an_extreme_ttl_is_bounded(door: Door, domain: str, seconds: int) -> None:
    route = asyncio.run(door.make().resolve(domain))

    assert isinstance(route, Resolved)
    assert route.expires_seconds == seconds


def test_a_failure_is_not_asked_again_at_once_but_soon(door: Door) -> None:
    clock = Clock()
    mx = door.make(clock=clock)
    asyncio.run(mx.resolve("broken.test"))
    asked = len(door.asked)
    asyncio.run(mx.resolve("broken.test"))
    assert len(door.asked) == asked

    clock.now += 31
    asyncio.run(mx.resolve("broken.test"))
    assert len(door.asked) > asked


def test_the_cache_forgets_what_was_used_longest_ago(door: Door) -> None:
    mx = door.make(cache_size=2)
    for domain in ("gmail.test", "null.test", "gmail.test", "alias.test", "gmail.test"):
        asyncio.run(mx.resolve(domain))
    assert len(door.asked) == 3

    asyncio.run(mx.resolve("null.test"))
    assert len(door.asked) == 4


def test_who_asks_at_the_same_time_shares_one_question(door: Door) -> None:
    async def ask_together() -> None:
        mx = door.make()
        routes = await asyncio.gather(*(mx.resolve("gmail.test") for _ in range(50)))
        assert len(set(routes)) == 1

    asyncio.run(ask_together())

    assert len(door.asked) == 1


def test_who_gives_up_waiting_does_not_take_the_answer_from_others(door: Door) -> None:
    async def ask_and_give_up() -> None:
        mx = door.make()
        first = asyncio.ensure_future(mx.resolve("gmail.test"))
        second = asyncio.ensure_future(mx.resolve("gmail.test"))
        await asyncio.sleep(0)
        first.cancel()
        assert isinstance(await second, Resolved)

    asyncio.run(ask_and_give_up())


def test_a_silent_server_is_a_failure_within_the_time_limit() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        mx = Mx(DnsRecords(address, timeout_seconds=0.3))

        route = asyncio.run(asyncio.wait_for(mx.resolve("gmail.test"), 10))

    assert isinstance(route, DnsFailure)
    assert "no answer in time" in route.why
