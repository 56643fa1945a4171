"""Where a domain's mail goes: routes cached in PostgreSQL, addresses in the process.

`route_batch` lays a batch of unresolved recipients anew, by provider. Delivery asks
`routes_for` again at send time, so that an expired route is looked up, and an old one is used
while DNS gives no answer.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db import connection, transaction
from django.db.models import Q

from deliverability.models import Source, SourceKind
from deliverability.rules import provider_rules
from mailer import conf, runtime
from mailer.models import Batch, Route, RouteState
from mailer.transport.door import Host
from mailer.transport.mx import (
    DnsFailure,
    DnsUnavailable,
    MxLookup,
    NoSuchDomain,
    NullMx,
    Resolved,
)
from mailer.transport.mx import Route as Found

#: A failing DNS server is asked again after this.
FAILED_FOR = timedelta(seconds=60)
PARALLEL_LOOKUPS = 50
#: Unresolved batches that are laid anew together.
BATCHES_AT_ONCE = 50


def route_batch(batch_id: int, *, now: datetime) -> bool:
    """Resolve the recipients' domains of a batch, and of others in its lane, and lay them anew
    by provider. False: nothing to do.

    Domains for which DNS gave no answer stay unresolved until it is asked again.
    """
    while batches := _unresolved_with(batch_id, now):
        # Another run may have laid one of the others meanwhile: look again, without it.
        if _lay_anew(batches, _lanes(batches, now), now):
            return True
    return False


def _lanes(batches: list[Batch], now: datetime) -> dict[str, list[int]]:
    """The messages of the batches by lane: their provider, or "" where DNS gave no answer."""
    first = batches[0]
    domains = _domains_of(first, [one for batch in batches for one in batch.ids])
    routes = routes_for(set(domains.values()), now=now)
    lanes: dict[str, list[int]] = defaultdict(list)
    is_relayed = _is_relayed(first.pool_id)
    for message_id, domain in domains.items():
        lanes[_lane_of(routes[domain], is_relayed=is_relayed)].append(message_id)
    return lanes


def routes_for(domains: Iterable[str], *, now: datetime) -> dict[str, Route]:
    """The routes of many domains: from the cache, or from DNS where they have expired.

    Where DNS gives no answer, an expired route goes on being used (stale if error).
    """
    wanted = set(domains)
    known = {route.domain: route for route in Route.objects.filter(domain__in=wanted)}
    missing = [
        domain for domain in wanted if domain not in known or known[domain].expires_at <= now
    ]
    if not missing:
        return known
    current = runtime.current()
    found = current.run(_resolve_all(current.mx, missing))
    # In one order for all workers, which would else wait for each other's rows.
    fresh = [_route(domain, found[domain], known.get(domain), now) for domain in sorted(missing)]
    Route.objects.bulk_create(
        fresh,
        update_conflicts=True,
        unique_fields=["domain"],
        update_fields=["state", "provider", "hosts", "detail", "resolved_at", "expires_at"],
    )
    return known | {route.domain: route for route in fresh}


async def hosts_of(mx: MxLookup, route: Route, *, limit: int = 4) -> tuple[Host, ...]:
    """The servers to try, in order of preference, shuffled among equals (RFC 5321, 5.1).

    Raises `DnsUnavailable` when no host's address can be learned now.
    """
    names = sorted(route.hosts, key=lambda host: (host[0], random.random()))
    hosts: list[Host] = []
    failure: DnsUnavailable | None = None
    for _, name in names[:limit]:
        try:
            port = await mx.port(name)
            addresses = [one for one in await mx.addresses(name) if may_reach(one)]
            hosts += [Host(name, address, port) for address in addresses]
            if not addresses:
                failure = DnsUnavailable(f"{name} has no address on the public internet")
        except DnsUnavailable as error:
            failure = error
    if not hosts:
        raise failure or DnsUnavailable(f"no address for any mail host of {route.domain}")
    return tuple(hosts[: limit * 2])


def may_reach(address: str) -> bool:
    """A stranger's DNS must not make us speak to our own machine or network."""
    place = conf.place()
    if place.is_sandbox or place.delivers_privately:
        return True
    return ipaddress.ip_address(address).is_global


async def _resolve_all(mx: MxLookup, domains: list[str]) -> dict[str, Found]:
    gate = asyncio.Semaphore(PARALLEL_LOOKUPS)

    async def one(domain: str) -> Found:
        async with gate:
            return await mx.resolve(domain)

    found = await asyncio.gather(*(one(domain) for domain in domains))
    return dict(zip(domains, found, strict=True))


def _route(domain: str, found: Found, known: Route | None, now: datetime) -> Route:
    match found:
        case Resolved(hosts, expires_seconds):
            provider = provider_rules().of_hosts(name for _, name in hosts)
            return _made(domain, RouteState.RESOLVED, provider, now, expires_seconds, hosts)
        case NullMx(expires_seconds):
            return _made(domain, RouteState.NULL_MX, "other", now, expires_seconds)
        case NoSuchDomain(why, expires_seconds):
            return _made(domain, RouteState.NO_DOMAIN, "other", now, expires_seconds, detail=why)
        case DnsFailure(why):
            if known is not None and known.state != RouteState.FAILED:
                known.expires_at, known.detail = now + FAILED_FOR, f"kept, since DNS fails: {why}"
                return known
            seconds = int(FAILED_FOR.total_seconds())
            return _made(domain, RouteState.FAILED, "", now, seconds, detail=why)


def _made(
    domain: str,
    state: RouteState,
    provider: str,
    now: datetime,
    seconds: int,
    hosts: Iterable[tuple[int, str]] = (),
    detail: str = "",
) -> Route:
    return Route(
        domain=domain,
        state=state,
        provider=provider,
        hosts=[list(host) for host in hosts],
        detail=detail[:500],
        resolved_at=now,
        expires_at=now + timedelta(seconds=seconds),
    )


def _lane_of(route: Route, *, is_relayed: bool) -> str:
    """The provider's lane; "" keeps waiting for DNS, which a relay does not need."""
    if route.state == RouteState.FAILED:
        return "other" if is_relayed else ""
    return route.provider


def _is_relayed(pool_id: int) -> bool:
    kinds = set(Source.objects.filter(pool_id=pool_id).values_list("kind", flat=True))
    return kinds == {SourceKind.RELAY}


def _unresolved_with(batch_id: int, now: datetime) -> list[Batch]:
    """The batch, and untaken ones of the same mailing that wait for the same: laid anew
    together, they make few full batches instead of many small ones."""
    batch = Batch.objects.filter(pk=batch_id, state="untaken", provider="").first()
    if batch is None:
        return []
    others = Batch.objects.filter(
        Q(due_at__isnull=True) | Q(due_at__lte=now),
        pool_id=batch.pool_id,
        provider="",
        priority=batch.priority,
        mailing_id=batch.mailing_id,
        state="untaken",
        published_at__isnull=True,
    ).exclude(pk=batch_id)
    return [batch, *others.order_by("id")[: BATCHES_AT_ONCE - 1]]


def _domains_of(batch: Batch, ids: list[int]) -> dict[int, str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, recipient_domain FROM mailer_message"
            " WHERE mailing_day = %s AND id = ANY(%s) AND state = 'waiting' ORDER BY id",
            [batch.mailing_day, ids],
        )
        return dict(cursor.fetchall())


def _lay_anew(batches: list[Batch], lanes: dict[str, list[int]], now: datetime) -> bool:
    """Replace the unresolved batches, unless somebody else has replaced one meanwhile."""
    first, size = batches[0], conf.delivery_policy().batch_size
    with transaction.atomic():
        unresolved = Batch.objects.filter(
            pk__in=[batch.pk for batch in batches], state="untaken", provider=""
        )
        # Locked in one order, so that two runs that share batches wait and never deadlock.
        ours = list(unresolved.order_by("pk").select_for_update().values_list("pk", flat=True))
        if len(ours) != len(batches):
            return False
        unresolved.update(state="done")
        Batch.objects.bulk_create(
            Batch(
                mailing_day=first.mailing_day,
                mailing_id=first.mailing_id,
                pool_id=first.pool_id,
                provider=provider,
                priority=first.priority,
                ids=ids[start : start + size],
                due_at=None if provider else now + FAILED_FOR,
                waits_for="" if provider else "DNS",
            )
            for provider, ids in lanes.items()
            for start in range(0, len(ids), size)
        )
    return True
