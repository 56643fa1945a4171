"""The MX door without a network: DNS records from a table. For tests and dry runs.

The rules (preference, null MX, implicit MX, caching) are those of `mailer.transport.mx`; only
the answers come from memory instead of a DNS server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mailer.transport.mx import Answer, DnsFailure, Found, Mx, MxRecord, NoName, RecordType

_CNAME_LIMIT = 8


@dataclass(frozen=True, slots=True)
class Name:
    """What DNS holds about one name."""

    mx: tuple[tuple[int, str], ...] = ()  #: (preference, host); host "" is the root
    a: tuple[str, ...] = ()
    aaaa: tuple[str, ...] = ()
    srv_port: int | None = None  #: of `_smtp._tcp.<name>`
    cname: str | None = None
    ttl_seconds: int = 300
    fails: frozenset[RecordType] = frozenset()  #: types that the server fails to answer


class MemoryRecords:
    """A DNS server in a table. `asked` lists the questions in their order."""

    def __init__(self, zone: Mapping[str, Name]) -> None:
        self.zone = dict(zone)
        self.asked: list[tuple[str, RecordType]] = []

    async def ask(self, name: str, record_type: RecordType) -> Found:
        self.asked.append((name, record_type))
        return answer_from(self.zone, name, record_type)


def answer_from(zone: Mapping[str, Name], name: str, record_type: RecordType) -> Found:
    """What a recursive server with this zone would say."""
    if record_type == "SRV":
        entry = zone.get(name.removeprefix("_smtp._tcp."))
        if entry is None or entry.srv_port is None:
            return NoName()
        return Answer(values=(str(entry.srv_port),), ttl_seconds=entry.ttl_seconds)
    for _ in range(_CNAME_LIMIT):
        entry = zone.get(name)
        if entry is None:
            return NoName()
        if entry.cname is None:
            return _answer(entry, record_type)
        name = entry.cname
    return DnsFailure(f"{name}: more than {_CNAME_LIMIT} aliases")


def memory_mx(zone: Mapping[str, Name], *, is_sandbox: bool = False) -> Mx:
    """The door over a table."""
    return Mx(MemoryRecords(zone), is_sandbox=is_sandbox)


def _answer(entry: Name, record_type: RecordType) -> Found:
    if record_type in entry.fails:
        return DnsFailure("SERVFAIL")
    if record_type == "MX":
        records = (MxRecord(preference, host.lower()) for preference, host in entry.mx)
        return Answer(mx=tuple(records), ttl_seconds=entry.ttl_seconds)
    values = entry.a if record_type == "A" else entry.aaaa
    return Answer(values=values, ttl_seconds=entry.ttl_seconds)
