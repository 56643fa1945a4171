"""Routing: domains find their provider once, and DNS that fails is no answer."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from mailer import conf, routing, runtime
from mailer.models import Batch, Message, Route
from mailer.transport.mx_memory import Name
from tests.integration.world import World, in_threads, now, people

pytestmark = pytest.mark.django_db


def routed(world: World, domains: set[str], minutes: int = 0) -> dict[str, tuple[str, str]]:
    world.start_runtime()
    found = routing.routes_for(domains, now=now() + timedelta(minutes=minutes))
    return {domain: (route.state, route.provider) for domain, route in found.items()}


def change_zone(world: World, domain: str, name: Name) -> None:
    """What DNS says anew, to a process that has cached nothing."""
    world.zone[domain] = name
    current = runtime.current()
    current.run(world._replace(current))


def test_domains_are_told_by_their_mail_hosts(world: World) -> None:
    assert routed(
        world, {"gmail.com", "outlook.com", "shop.example", "nullmx.example", "nowhere.example"}
    ) == {
        "gmail.com": ("resolved", "gmail"),
        "outlook.com": ("resolved", "outlook"),
        "shop.example": ("resolved", "other"),
        "nullmx.example": ("null_mx", "other"),
        "nowhere.example": ("no_domain", "other"),
    }
    assert routed(world, {"servfail.example"}) == {"servfail.example": ("failed", "")}


def test_a_route_is_kept_until_it_expires(world: World) -> None:
    routed(world, {"shop.example"})
    change_zone(world, "shop.example", Name(mx=((5, "gmail-smtp-in.l.google.com"),)))

    assert routed(world, {"shop.example"}) == {"shop.example": ("resolved", "other")}
    assert routed(world, {"shop.example"}, minutes=6) == {"shop.example": ("resolved", "gmail")}


def test_an_old_route_is_used_while_dns_fails(world: World) -> None:
    routed(world, {"gmail.com"})
    change_zone(world, "gmail.com", Name(fails=frozenset({"MX", "A", "AAAA"})))

    assert routed(world, {"gmail.com"}, minutes=6) == {"gmail.com": ("resolved", "gmail")}
    route = Route.objects.get(domain="gmail.com")
    assert route.detail.startswith("kept, since DNS fails")
    assert route.hosts == [[5, "gmail-smtp-in.l.google.com"]]


def test_routing_loses_no_message_and_keeps_small_batches(world: World, policy: object) -> None:
    policy.POSTROAD_BATCH_SIZE = 10  # type: ignore[attr-defined]
    world.forget()
    world.start_runtime()
    mailing = world.mailing_to(
        [*people(23), *people(9, "outlook.com"), *people(4, "servfail.example")]
    )

    for _ in range(10):
        for one in world.published():
            if one.needs_route:
                routing.route_batch(one.batch_id, now=now())

    laid = world.batches(mailing, state="untaken")
    ids = [one for batch in laid for one in batch.ids]
    assert sorted(ids) == sorted(Message.objects.values_list("id", flat=True))
    assert max(len(batch.ids) for batch in laid) <= 10
    by_provider: dict[str, int] = {}
    for batch in laid:
        by_provider[batch.provider] = by_provider.get(batch.provider, 0) + len(batch.ids)
    assert by_provider == {"gmail": 23, "outlook": 9, "": 4}
    assert all(b.due_at and b.waits_for == "DNS" for b in laid if not b.provider)


def test_a_batch_is_laid_anew_by_one_of_many(transactional_db: None, world: World) -> None:
    world.start_runtime()
    mailing = world.mailing_to(people(20) + people(20, "outlook.com"))
    (batch,) = world.batches(mailing)

    in_threads(6, lambda _: routing.route_batch(batch.pk, now=now()))

    ids = [one for laid in world.batches(mailing, state="untaken") for one in laid.ids]
    assert len(ids) == len(set(ids)) == 40
    assert Batch.objects.get(pk=batch.pk).state == "done"


def test_workers_that_learn_the_same_domains_do_not_deadlock(
    transactional_db: None, world: World
) -> None:
    domains = [f"d{number}.example" for number in range(300)]
    for domain in domains:
        world.zone[domain] = Name(mx=((10, "mx.shop.example"),))
    world.start_runtime()

    def learn(number: int) -> int:
        for turn in range(4):
            part = domains[number * 10 :] + domains[: number * 10]
            found = routing.routes_for(
                part if number % 2 else part[::-1], now=now() + timedelta(minutes=turn * 10)
            )
            assert len(found) == 300
        return 1

    assert sum(in_threads(4, learn)) == 4
    assert Route.objects.count() == 300


def test_hosts_are_tried_in_order_of_preference(world: World) -> None:
    world.zone["two.example"] = Name(mx=((20, "b.two.example"), (10, "a.two.example")))
    world.zone["a.two.example"] = Name(a=("127.0.0.21",), aaaa=("::1",))
    world.zone["b.two.example"] = Name(a=("127.0.0.22",))
    current = world.start_runtime()
    route = routing.routes_for({"two.example"}, now=now())["two.example"]

    hosts = current.run(routing.hosts_of(current.mx, route))

    assert [(host.name, host.address, host.port) for host in hosts] == [
        ("a.two.example", "127.0.0.21", 25),
        ("a.two.example", "::1", 25),
        ("b.two.example", "127.0.0.22", 25),
    ]


@pytest.mark.parametrize(
    ("address", "may"),
    [
        ("142.250.1.26", True),
        ("2a00:1450:400c:c00::1a", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("::1", False),
        ("::ffff:10.0.0.1", False),
    ],
)
def test_a_strangers_dns_cannot_point_us_at_our_own_network(
    monkeypatch: pytest.MonkeyPatch, address: str, may: bool
) -> None:
    outside = replace(conf.place(), is_sandbox=False, delivers_privately=False)
    monkeypatch.setattr(conf, "place", lambda: outside)

    assert routing.may_reach(address) is may
