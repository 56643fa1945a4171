"""From a source and a recipient's domain to the servers to speak to, and how."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable, Mapping

from deliverability import gate
from deliverability.core.outcome import Phase, Reply
from deliverability.models import Source, SourceKind
from deliverability.sealing import SealBroken, unseal
from mailer import conf, routing
from mailer.models import Route
from mailer.runtime import Runtime
from mailer.transport.door import Destination, Host, Limits
from mailer.transport.mx import DnsUnavailable, MxLookup

PARALLEL_LOOKUPS = 50


def destinations(
    current: Runtime,
    source: Source,
    provider: str,
    domains: Iterable[str],
    routes: Mapping[str, Route],
    *,
    connections: int,
    warm_seconds: float,
) -> dict[str, Destination | Reply]:
    """Where each domain's mail goes from this source, or what stands in the way, as a reply.

    Domains with the same hosts get equal destinations, which share connections: at most
    `connections` of this process, each kept `warm_seconds` without work.
    """
    domains = list(domains)
    limits = Limits(
        connections=connections,
        messages_per_connection=source.messages_per_connection,
        idle_seconds=warm_seconds,
    )
    if source.kind == SourceKind.RELAY:
        relay = current.run(_relay(current.mx, source, limits))
        return dict.fromkeys(domains, relay)
    return current.run(_direct(current.mx, source, provider, domains, routes, limits))


def connection_path(source: Source, provider: str) -> gate.Path:
    """Whose connections are counted together: a relay's are, whatever the recipients' provider."""
    return gate.Path(source.pk, "relay" if source.kind == SourceKind.RELAY else provider)


async def _relay(mx: MxLookup, source: Source, limits: Limits) -> Destination | Reply:
    try:
        addresses = await _addresses(mx, source.relay_host)
        password = unseal(source.relay_password_sealed)
    except DnsUnavailable as error:
        return Reply(0, "", f"the relay {source.relay_host} was not found: {error}", Phase.CONNECT)
    except SealBroken as error:
        return Reply(0, "", str(error), Phase.AUTH)
    hosts = tuple(Host(source.relay_host, address, source.relay_port) for address in addresses)
    return _destination(
        source,
        "",
        f"relay:{source.pk}",
        hosts,
        limits,
        verifies=conf.place().verifies_relays,
        username=source.relay_username or None,
        password=password or None,
    )


async def _addresses(mx: MxLookup, host: str) -> tuple[str, ...]:
    if host == "localhost":
        return ("127.0.0.1",)
    try:
        return (str(ipaddress.ip_address(host)),)
    except ValueError:
        pass
    addresses = await mx.addresses(host)
    if not addresses:
        raise DnsUnavailable(f"{host} has no address")
    return addresses


async def _direct(
    mx: MxLookup,
    source: Source,
    provider: str,
    domains: list[str],
    routes: Mapping[str, Route],
    limits: Limits,
) -> dict[str, Destination | Reply]:
    """One look-up for each set of mail hosts, however many domains share it."""
    by_hosts: dict[str, list[str]] = {}
    for domain in domains:
        by_hosts.setdefault(str(sorted(routes[domain].hosts)), []).append(domain)
    gate = asyncio.Semaphore(PARALLEL_LOOKUPS)

    async def one(key: str, route: Route) -> Destination | Reply:
        async with gate:
            try:
                hosts = await routing.hosts_of(mx, route)
                return _destination(source, provider, key, hosts, limits)
            except DnsUnavailable as error:
                return Reply(0, "", str(error), Phase.ROUTE)

    found = await asyncio.gather(*(one(k, routes[names[0]]) for k, names in by_hosts.items()))
    return {
        domain: destination
        for names, destination in zip(by_hosts.values(), found, strict=True)
        for domain in names
    }


def _destination(
    source: Source,
    provider: str,
    key: str,
    hosts: tuple[Host, ...],
    limits: Limits,
    *,
    verifies: bool = False,
    username: str | None = None,
    password: str | None = None,
) -> Destination:
    return Destination(
        key=f"{source.pk}:{key}",
        path=str(connection_path(source, provider)),
        hosts=hosts,
        helo_name=source.helo_name,
        source_address=source.source_address,
        tls=source.tls,  # a TlsMode, checked by the model
        verify_certificate=verifies,
        username=username,
        password=password,
        is_loopback_only=conf.place().is_sandbox,
        limits=limits,
    )
