from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import pytest

from sandbox.dns_server import respond
from sandbox.loopback import Endpoint
from sandbox.providers import CATCH_ALL, PROVIDERS
from sandbox.zone import FAULTY_NAMES, Answer, Rcode, Silence, Zone

ZONE = Zone(
    PROVIDERS,
    {provider.name: Endpoint(f"127.0.10.{i}", 2500 + i) for i, provider in enumerate(PROVIDERS, 1)},
    unreachable=Endpoint("127.0.0.1", 9),
    catch_all=CATCH_ALL,
)
NXDOMAIN = Answer(Rcode.NXDOMAIN)
NODATA = Answer(Rcode.NOERROR)


def found(*records: str) -> Answer:
    return Answer(Rcode.NOERROR, records)


@pytest.mark.parametrize(
    ("name", "kind", "answer"),
    [
        ("icloud.com", "MX", found("10 mx01.mail.icloud.com.", "10 mx02.mail.icloud.com.")),
        ("ICLOUD.com", "MX", found("10 mx01.mail.icloud.com.", "10 mx02.mail.icloud.com.")),
        ("mx01.mail.icloud.com", "A", found("127.0.10.4")),
        ("mx01.mail.icloud.com", "AAAA", NODATA),
        ("mx01.mail.icloud.com", "MX", NODATA),
        ("_smtp._tcp.mx01.mail.icloud.com", "SRV", found("0 0 2504 mx01.mail.icloud.com.")),
        ("4.10.0.127.in-addr.arpa", "PTR", found("mx01.mail.icloud.com.")),
        ("acme.example", "MX", found("10 mx1.corp.example.", "20 mx2.corp.example.")),
        ("whoever.example", "MX", found("10 mx.catchall.test.")),
        ("a.b.c.test", "MX", found("10 mx.catchall.test.")),
        ("mx.catchall.test", "A", found("127.0.10.7")),
        ("whoever.example", "AAAA", NODATA),
        ("_dmarc.whoever.example", "TXT", found('"v=DMARC1; p=none"')),
        ("_mta-sts.whoever.example", "TXT", NXDOMAIN),
        ("example", "MX", NODATA),
        ("example.com", "MX", NXDOMAIN),
        ("www.gmail.com", "A", NXDOMAIN),
        ("_smtp._tcp.mx.example.com", "SRV", NXDOMAIN),
        ("9.9.0.127.in-addr.arpa", "PTR", NXDOMAIN),
        ("nullmx.example", "MX", found("0 .")),
        ("nomx.example", "MX", NODATA),
        ("nomx.example", "A", found("127.0.10.7")),
        ("_smtp._tcp.nomx.example", "SRV", found("0 0 2507 nomx.example.")),
        ("badmx.example", "MX", found("10 mx.badmx.invalid.")),
        ("mx.badmx.invalid", "A", NXDOMAIN),
        ("unreachable.example", "MX", found("10 mx.unreachable.example.")),
        ("_smtp._tcp.mx.unreachable.example", "SRV", found("0 0 9 mx.unreachable.example.")),
        ("servfail.example", "MX", Answer(Rcode.SERVFAIL)),
        ("timeout.example", "MX", Silence()),
    ],
)
def test_questions_and_answers(name: str, kind: str, answer: Answer | Silence) -> None:
    assert ZONE.answer(name, kind) == answer


def test_every_faulty_name_differs_from_a_plain_one() -> None:
    for name in FAULTY_NAMES:
        assert ZONE.answer(name, "MX") != ZONE.answer("whoever.example", "MX")


def ask(
    name: str, kind: str = "MX", *, is_udp: bool = True, edns: bool = False
) -> dns.message.Message:
    query = dns.message.make_query(name, kind, use_edns=edns)
    wire = respond(ZONE, query.to_wire(), is_udp=is_udp)
    assert wire is not None
    response = dns.message.from_wire(wire)
    assert query.is_response(response)
    return response


def test_answers_are_authoritative() -> None:
    assert ask("gmail.com").flags & dns.flags.AA


def test_a_negative_answer_says_how_long_it_holds() -> None:
    assert [rrset.rdtype.name for rrset in ask("nope.com").authority] == ["SOA"]


def test_an_answer_too_long_for_udp_is_cut_and_whole_over_tcp() -> None:
    long_zone = Zone(
        PROVIDERS,
        {provider.name: Endpoint("127.0.0.1", 25) for provider in PROVIDERS},
        unreachable=Endpoint("127.0.0.1", 9),
        catch_all=CATCH_ALL,
    )
    long_zone._names["long.example"] = {"TXT": tuple(f'"{i:0200d}"' for i in range(10))}
    wire = dns.message.make_query("long.example", "TXT").to_wire()

    over_udp = dns.message.from_wire(respond(long_zone, wire, is_udp=True) or b"")
    over_tcp = dns.message.from_wire(respond(long_zone, wire, is_udp=False) or b"")

    assert over_udp.flags & dns.flags.TC
    assert len(over_tcp.answer[0]) == 10


def test_an_edns_query_gets_an_edns_answer() -> None:
    assert ask("gmail.com", edns=True).edns == 0


def test_silence_is_silence() -> None:
    wire = dns.message.make_query("timeout.example", "MX").to_wire()

    assert respond(ZONE, wire, is_udp=True) is None


@pytest.mark.parametrize("noise", [b"", b"x", b"\x00" * 11])
def test_noise_gets_no_answer(noise: bytes) -> None:
    assert respond(ZONE, noise, is_udp=True) is None


def test_a_broken_query_gets_a_format_error() -> None:
    wire = dns.message.make_query("gmail.com", "MX").to_wire()[:-3]

    answer = respond(ZONE, wire, is_udp=True)

    assert answer is not None
    assert dns.message.from_wire(answer).rcode() == dns.rcode.FORMERR


def test_a_response_is_never_answered() -> None:
    query = dns.message.make_query("gmail.com", "MX")
    wire = dns.message.make_response(query).to_wire()

    assert respond(ZONE, wire, is_udp=True) is None
