"""Where a domain's mail goes: MX hosts, their addresses and, in the sandbox, their ports.

The one file that imports the DNS library. It asks, keeps answers for their TTL in this process
and tells them as values. It never chooses among hosts of equal preference (the caller shuffles),
never connects, and never takes a failing DNS server for a domain without mail: that is
`DnsFailure`, and the message waits.

RFC 5321 section 5.1 (MX, and the address record where there is none), RFC 7505 (null MX),
RFC 2308 (negative answers), RFC 5890 (IDNA). Address literals and single labels are refused:
nobody's mailbox of a mailing list lives there.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar

import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver
import dns.ttl
import idna

SMTP_PORT = 25

#: An answer is kept at least and at most so long, whatever its TTL says: a TTL of 0 would mean
#: one query for each connection, and a week hides a provider's move.
_SHORTEST_SECONDS = 30
_LONGEST_SECONDS = 24 * 3600

#: A mistyped zone should not cost its domain a day of mail once it is mended (RFC 2308, 5).
_LONGEST_NEGATIVE_SECONDS = 3600

#: A failing server is asked again after this, and not once for each waiting message.
_FAILURE_SECONDS = 30

_EDNS_PAYLOAD_BYTES = 1232  #: DNS flag day 2020: no fragmentation on any path
_LABELS = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z0-9-]{2,63}")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Resolved:
    """The hosts that take the domain's mail, best preference first (then by name)."""

    hosts: tuple[tuple[int, str], ...]  #: (preference, host name in lower case)
    expires_seconds: int  #: how long the answer may be relied on
    is_implicit: bool = False  #: no MX record: the domain's own address (RFC 5321, 5.1)


@dataclass(frozen=True, slots=True)
class NullMx:
    """The domain says that it takes no mail (RFC 7505)."""

    expires_seconds: int


@dataclass(frozen=True, slots=True)
class NoSuchDomain:
    """No such name, or a name with neither MX nor address: nobody could take mail there."""

    why: str
    expires_seconds: int


@dataclass(frozen=True, slots=True)
class DnsFailure:
    """DNS did not answer, or not sensibly. Says nothing about the domain."""

    why: str


Route = Resolved | NullMx | NoSuchDomain | DnsFailure


class DnsUnavailable(OSError):
    """The addresses of a host could not be learned now; another time they may."""


class MxLookup(Protocol):
    """The door: `Mx` over DNS, or over the records of `mx_memory`."""

    async def resolve(self, domain: str) -> Route: ...

    async def addresses(self, host: str) -> tuple[str, ...]: ...

    async def port(self, host: str) -> int: ...


RecordType = Literal["MX", "A", "AAAA", "SRV"]


@dataclass(frozen=True, slots=True)
class MxRecord:
    preference: int
    host: str  #: "" for the root, which makes a null MX


@dataclass(frozen=True, slots=True)
class Answer:
    """Records of one type; none of them means that the name exists without any."""

    mx: tuple[MxRecord, ...] = ()
    values: tuple[str, ...] = ()  #: addresses, or ports of SRV records
    ttl_seconds: int = _SHORTEST_SECONDS


@dataclass(frozen=True, slots=True)
class NoName:
    """The name does not exist (NXDOMAIN)."""

    ttl_seconds: int = _SHORTEST_SECONDS


Found = Answer | NoName | DnsFailure


class Records(Protocol):
    """Whoever knows DNS records: a DNS server, or a table in memory."""

    async def ask(self, name: str, record_type: RecordType) -> Found: ...


class Mx:
    """Answers from `records`, kept for their TTL. For one event loop at a time."""

    def __init__(
        self,
        records: Records,
        *,
        is_sandbox: bool = False,
        cache_size: int = 50_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._records = records
        self._is_sandbox = is_sandbox
        self._routes: _Cache[Route] = _Cache(cache_size, clock)
        self._addresses: _Cache[tuple[str, ...] | DnsFailure] = _Cache(cache_size, clock)
        self._ports: _Cache[int | DnsFailure] = _Cache(cache_size, clock)

    async def resolve(self, domain: str) -> Route:
        """Say which hosts take mail for the domain (Unicode or ASCII, any case)."""
        name = ascii_domain(domain)
        if name is None:
            return NoSuchDomain(f"{domain[:80]!r} is not a mail domain", _LONGEST_SECONDS)
        return await self._routes.get(name, lambda: self._look_up_route(name))

    async def addresses(self, host: str) -> tuple[str, ...]:
        """The host's addresses, IPv4 first; none if it has none.

        Raises `DnsUnavailable` when that could not be found out.
        """
        if _is_ip(host):
            return (host,)
        name = ascii_domain(host)
        if name is None:
            return ()
        found = await self._addresses.get(name, lambda: self._look_up_addresses(name))
        if isinstance(found, DnsFailure):
            raise DnsUnavailable(f"{host}: {found.why}")
        return found

    async def port(self, host: str) -> int:
        """Port 25, always; except in the sandbox, whose SRV records name another."""
        name = ascii_domain(host)
        if not self._is_sandbox or name is None:
            return SMTP_PORT
        found = await self._ports.get(name, lambda: self._look_up_port(name))
        if isinstance(found, DnsFailure):
            raise DnsUnavailable(f"{host}: {found.why}")
        return found

    async def _look_up_route(self, name: str) -> tuple[Route, int]:
        found = await self._records.ask(name, "MX")
        match found:
            case DnsFailure():
                return found, _FAILURE_SECONDS
            case NoName(ttl_seconds=ttl):
                return NoSuchDomain(f"{name} does not exist", _kept(ttl)), _kept(ttl)
            case Answer(mx=()):
                return await self._implicit_route(name)
            case Answer(mx=records, ttl_seconds=ttl):
                route = _explicit_route(name, records, _kept(ttl))
                return route, _FAILURE_SECONDS if isinstance(route, DnsFailure) else _kept(ttl)

    async def _implicit_route(self, name: str) -> tuple[Route, int]:
        addresses, seconds = await self._look_up_addresses(name)
        if isinstance(addresses, DnsFailure):
            return addresses, seconds
        if not addresses:
            return NoSuchDomain(f"{name} has neither MX nor address", seconds), seconds
        return Resolved(((0, name),), seconds, is_implicit=True), seconds

    async def _look_up_addresses(self, name: str) -> tuple[tuple[str, ...] | DnsFailure, int]:
        found = await asyncio.gather(self._records.ask(name, "A"), self._records.ask(name, "AAAA"))
        addresses = tuple(
            value for answer in found if isinstance(answer, Answer) for value in answer.values
        )
        for answer in found:
            if isinstance(answer, DnsFailure):
                return addresses or answer, _FAILURE_SECONDS
        # An absent type must not shorten the life of the one that is there.
        ttls = [
            answer.ttl_seconds
            for answer in found
            if isinstance(answer, NoName) or (isinstance(answer, Answer) and answer.values)
        ]
        return addresses, _kept(min(ttls, default=_SHORTEST_SECONDS))

    async def _look_up_port(self, name: str) -> tuple[int | DnsFailure, int]:
        match await self._records.ask(f"_smtp._tcp.{name}", "SRV"):
            case DnsFailure() as failure:
                return failure, _FAILURE_SECONDS
            case Answer(values=(port, *_), ttl_seconds=ttl):
                return int(port), _kept(ttl)
            case _:
                return SMTP_PORT, _SHORTEST_SECONDS


class DnsRecords:
    """Asks a DNS server: `nameserver` ("127.0.0.1:5353", "[::1]:53") or the system's."""

    def __init__(self, nameserver: str | None = None, *, timeout_seconds: float = 10.0) -> None:
        self._why_unusable = ""
        try:
            self._resolver = _resolver(nameserver)
        except dns.resolver.NoResolverConfiguration as error:
            self._resolver = dns.asyncresolver.Resolver(configure=False)
            self._why_unusable = f"this machine names no DNS server: {error}"
        self._resolver.lifetime = timeout_seconds
        # A lost datagram is asked again within the whole time; short, since most answer in ms.
        self._resolver.timeout = min(2.0, timeout_seconds / 2)
        self._resolver.use_edns(0, 0, _EDNS_PAYLOAD_BYTES)

    async def ask(self, name: str, record_type: RecordType) -> Found:
        if self._why_unusable:
            return DnsFailure(self._why_unusable)
        try:
            answer = await self._resolver.resolve(
                dns.name.from_text(name + "."), record_type, raise_on_no_answer=False
            )
        except dns.resolver.NXDOMAIN as error:
            responses = error.kwargs.get("responses", {}).values()
            return NoName(min((_negative_ttl(r.resolve_chaining()) for r in responses), default=0))
        except (dns.exception.DNSException, OSError) as error:
            return DnsFailure(f"{record_type} of {name}: {_shortly(error)}")
        return _answer(answer)


def dns_mx(
    nameserver: str | None = None, *, timeout_seconds: float = 10.0, is_sandbox: bool = False
) -> Mx:
    """The door over real DNS."""
    return Mx(DnsRecords(nameserver, timeout_seconds=timeout_seconds), is_sandbox=is_sandbox)


def ascii_domain(domain: str) -> str | None:
    """The domain as DNS has it, or None for what cannot be a public mail domain."""
    name = domain.strip().rstrip(".").lower()
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True).decode("ascii").lower()
        except (idna.IDNAError, UnicodeError):
            return None
    if len(name) > 253 or not _LABELS.fullmatch(name) or _is_ip(name):
        return None
    return name


def _explicit_route(name: str, records: tuple[MxRecord, ...], seconds: int) -> Route:
    hosts = {(r.preference, r.host) for r in records if ascii_domain(r.host)}
    if hosts:
        return Resolved(tuple(sorted(hosts)), seconds)
    if any(record.host == "" for record in records):
        return NullMx(seconds)
    # Present but unusable: no falling back to the address record (RFC 5321, 5.1). Its owner
    # may mend it while the message waits.
    return DnsFailure(f"the MX records of {name} name no host")


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _kept(ttl_seconds: int) -> int:
    return max(_SHORTEST_SECONDS, min(ttl_seconds, _LONGEST_SECONDS))


def _resolver(nameserver: str | None) -> dns.asyncresolver.Resolver:
    if nameserver is None:
        return dns.asyncresolver.Resolver()
    host, _, port = nameserver.rpartition(":")
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = [dns.nameserver.Do53Nameserver(host.strip("[]"), int(port))]
    return resolver


def _answer(answer: dns.resolver.Answer) -> Answer:
    if answer.rrset is None:
        return Answer(ttl_seconds=_negative_ttl(answer.chaining_result))
    ttl = _minimum_ttl(answer)
    if answer.rdtype == dns.rdatatype.MX:
        records = (MxRecord(r.preference, _host(r.exchange)) for r in answer.rrset)
        return Answer(mx=tuple(records), ttl_seconds=ttl)
    if answer.rdtype == dns.rdatatype.SRV:
        ranked = sorted((r.priority, -r.weight, r.port) for r in answer.rrset)
        return Answer(values=tuple(str(port) for *_, port in ranked), ttl_seconds=ttl)
    return Answer(values=tuple(str(r.address) for r in answer.rrset), ttl_seconds=ttl)


def _minimum_ttl(answer: dns.resolver.Answer) -> int:
    return int(answer.chaining_result.minimum_ttl)


def _negative_ttl(chaining: dns.message.ChainingResult) -> int:
    ttl = int(chaining.minimum_ttl)
    if ttl == dns.ttl.MAX_TTL:  # no SOA came along, so nobody said how long it holds
        return 0
    return min(ttl, _LONGEST_NEGATIVE_SECONDS)


def _host(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower().strip(".")


def _shortly(error: BaseException) -> str:
    if isinstance(error, dns.exception.Timeout):
        return "no answer in time"
    return (str(error) or type(error).__name__)[:200]


@dataclass(slots=True)
class _Kept(Generic[T]):
    value: T
    until: float


@dataclass(slots=True)
class _Cache(Generic[T]):
    """The most recently used answers; those who ask for the same name meanwhile share a query."""

    size: int
    clock: Callable[[], float]
    kept: OrderedDict[str, _Kept[T]] = field(default_factory=OrderedDict)
    asked: dict[str, asyncio.Task[T]] = field(default_factory=dict)

    async def get(self, name: str, look_up: Callable[[], Awaitable[tuple[T, int]]]) -> T:
        found = self.kept.get(name)
        if found is not None and self.clock() < found.until:
            self.kept.move_to_end(name)
            return found.value
        task = self.asked.get(name)
        if task is None:
            task = asyncio.ensure_future(self._keep(name, look_up))
            self.asked[name] = task
            task.add_done_callback(lambda _: self.asked.pop(name, None))
        # Shielded: who gives up waiting must not cancel the query of the others.
        return await asyncio.shield(task)

    async def _keep(self, name: str, look_up: Callable[[], Awaitable[tuple[T, int]]]) -> T:
        value, seconds = await look_up()
        self.kept[name] = _Kept(value, self.clock() + seconds)
        self.kept.move_to_end(name)
        while len(self.kept) > self.size:
            self.kept.popitem(last=False)
        return value
