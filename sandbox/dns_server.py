"""The DNS server: `zone`'s answers on the wire, over UDP and TCP.

Decides nothing about names. Answers authoritatively, never recurses, keeps TTLs short.
RFC 1035; RFC 6891 (EDNS); RFC 7766 (TCP, several questions on one connection).
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from sandbox.zone import Answer, Rcode, Silence, Zone

TTL_SECONDS = 60
_UDP_WITHOUT_EDNS_BYTES = 512
_UDP_AT_MOST_BYTES = 1232  #: what DNS Flag Day 2020 settled on
_IDLE_SECONDS = 30
_RCODES = {
    Rcode.NOERROR: dns.rcode.NOERROR,
    Rcode.NXDOMAIN: dns.rcode.NXDOMAIN,
    Rcode.SERVFAIL: dns.rcode.SERVFAIL,
}


def respond(zone: Zone, wire: bytes, *, is_udp: bool) -> bytes | None:
    """The response to one query; None where none is due."""
    try:
        query = dns.message.from_wire(wire)
    except dns.exception.DNSException:
        return _format_error(wire)
    if query.flags & dns.flags.QR:
        return None
    response = dns.message.make_response(query, our_payload=_UDP_AT_MOST_BYTES)
    if query.opcode() != dns.opcode.QUERY:
        response.set_rcode(dns.rcode.NOTIMP)
    elif len(query.question) != 1 or query.question[0].rdclass != dns.rdataclass.IN:
        response.set_rcode(dns.rcode.REFUSED)
    else:
        question = query.question[0]
        kind = dns.rdatatype.to_text(question.rdtype)
        name = question.name.to_text(omit_final_dot=True)
        answer = zone.answer(name, kind)
        if isinstance(answer, Silence):
            return None
        _fill_in(response, question.name, kind, answer)
    if not is_udp:
        return response.to_wire(max_size=65535)
    limit = _UDP_WITHOUT_EDNS_BYTES
    if query.edns >= 0:
        limit = max(limit, min(query.payload, _UDP_AT_MOST_BYTES))
    return response.to_wire(max_size=limit, prefer_truncation=True)


def _fill_in(response: dns.message.Message, name: dns.name.Name, kind: str, answer: Answer) -> None:
    response.flags |= dns.flags.AA
    response.set_rcode(_RCODES[answer.rcode])
    if answer.records:
        rrset = dns.rrset.from_text_list(name, TTL_SECONDS, "IN", kind, answer.records)
        response.answer.append(rrset)
    elif answer.rcode is not Rcode.SERVFAIL:
        # RFC 2308: the SOA says how long "there is none" may be believed.
        soa = f"ns.sandbox.test. postmaster.sandbox.test. 1 60 60 60 {TTL_SECONDS}"
        top = dns.name.Name([*name.labels[-2:]]) if len(name.labels) > 1 else dns.name.root
        response.authority.append(dns.rrset.from_text(top, TTL_SECONDS, "IN", "SOA", soa))


def _format_error(wire: bytes) -> bytes | None:
    """FORMERR with the id of the query, if that much can be read."""
    if len(wire) < 12 or wire[2] & 0x80:
        return None
    return wire[:2] + struct.pack("!HHHHH", 0x8001, 0, 0, 0, 0)


class DnsOverUdp(asyncio.DatagramProtocol):
    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        response = respond(self._zone, data, is_udp=True)
        if response is not None:
            self._transport.sendto(response, addr)


async def serve_tcp(zone: Zone, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the queries of one connection until it is idle or ends."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, TimeoutError):
        while True:
            async with asyncio.timeout(_IDLE_SECONDS):
                (size,) = struct.unpack("!H", await reader.readexactly(2))
                response = respond(zone, await reader.readexactly(size), is_udp=False)
            if response is not None:
                writer.write(struct.pack("!H", len(response)) + response)
                await writer.drain()
    writer.close()
