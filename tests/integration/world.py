"""A small world for the engine: a workspace, a pool, sources, mail servers and DNS in memory."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.db import connection

from deliverability.models import Pool, Source, Workspace
from mailer import account, delivery, dispatch, outbox, routing, runtime
from mailer.models import Attempt, Batch, Content, Mailing, Message
from mailer.transport.memory import MemoryTransport, ServerScript
from mailer.transport.mx_memory import Name, memory_mx

_numbers = itertools.count(1)

GMAIL, OUTLOOK, SHOP, CLOSED = "127.0.0.11", "127.0.0.12", "127.0.0.13", "127.0.0.14"

ZONE = {
    "gmail.com": Name(mx=((5, "gmail-smtp-in.l.google.com"),)),
    "gmail-smtp-in.l.google.com": Name(a=(GMAIL,)),
    "outlook.com": Name(mx=((5, "outlook-com.olc.protection.outlook.com"),)),
    "outlook-com.olc.protection.outlook.com": Name(a=(OUTLOOK,)),
    "shop.example": Name(mx=((10, "mx.shop.example"),)),
    "branch.example": Name(mx=((10, "mx.shop.example"),)),
    "mx.shop.example": Name(a=(SHOP,)),
    "closed.example": Name(mx=((10, "mx.closed.example"),)),
    "mx.closed.example": Name(a=(CLOSED,)),
    "nullmx.example": Name(mx=((0, ""),)),
    "servfail.example": Name(fails=frozenset({"MX", "A", "AAAA"})),
    "lostmx.example": Name(mx=((10, "mx.lost.example"),)),
    "mx.lost.example": Name(fails=frozenset({"A", "AAAA"})),
}

AUDIENCE = """
    SELECT r.id AS recipient_id, r.address, lower(r.address) AS address_key,
           split_part(r.address, '@', 2) AS domain,
           jsonb_build_object('first_name', 'Ann' || r.id) AS context, r.exclusion
    FROM unnest(%(ids)s::bigint[], %(addresses)s::text[], %(exclusions)s::text[])
        AS r(id, address, exclusion)
    WHERE r.id > %(cursor)s ORDER BY r.id LIMIT %(page)s
"""


def now() -> datetime:
    return datetime.now(UTC)


def a_workspace() -> Workspace:
    number = next(_numbers)
    return Workspace.objects.create(name=f"Workspace {number}", slug=f"workspace-{number}")


def a_pool(workspace: Workspace | None = None) -> Pool:
    return Pool.objects.create(workspace=workspace, name=f"pool-{next(_numbers)}")


def a_source(pool: Pool, **fields: Any) -> Source:
    name = f"out-{next(_numbers)}"
    return Source.objects.create(pool=pool, **{"name": name, "helo_name": "m.acme.test", **fields})


def a_content(workspace: Workspace, **fields: Any) -> Content:
    usual = {
        "subject": "Hello {{ first_name }}",
        "html": "<p>Hello {{ first_name }}</p>",
        "text": "",
        "from_header": "Acme <news@acme.example>",
    }
    return outbox.freeze_content(workspace, **{**usual, **fields})


def audience(
    addresses: Sequence[str], exclusions: Mapping[int, str] | None = None
) -> tuple[str, dict[str, Any]]:
    """What `outbox.accept_page` takes: recipients 1, 2, … with these addresses."""
    ids = list(range(1, len(addresses) + 1))
    why = [(exclusions or {}).get(number) for number in ids]
    return AUDIENCE, {"ids": ids, "addresses": list(addresses), "exclusions": why}


def people(count: int, domain: str = "gmail.com") -> list[str]:
    return [f"r{number}@{domain}" for number in range(1, count + 1)]


@dataclass
class World:
    workspace: Workspace
    forget: Callable[[], None]
    pool: Pool = field(init=False)
    source: Source = field(init=False)
    servers: dict[str, ServerScript] = field(default_factory=dict)
    zone: dict[str, Name] = field(default_factory=lambda: dict(ZONE))

    def __post_init__(self) -> None:
        self.pool = a_pool(self.workspace)
        self.servers.update({ip: ServerScript() for ip in (GMAIL, OUTLOOK, SHOP)})

    # -- making mail

    def open_mailing(self, *, day: date | None = None, **fields: Any) -> Mailing:
        content = fields.pop("content", None) or a_content(self.workspace)
        usual: dict[str, Any] = {
            "reference": f"campaign:{next(_numbers)}",
            "name": "A test",
            "content": content,
            "pool": self.pool,
            "priority": 2,
            "retry": "exponential",
            "unsubscribe_scope": "list:1",
            "day": day or now().date(),
        }
        return outbox.open_mailing(self.workspace, **{**usual, **fields})

    def mailing_to(self, addresses: Sequence[str], **fields: Any) -> Mailing:
        """A mailing whose audience is expanded already."""
        mailing = self.open_mailing(**fields)
        report = outbox.accept_page(mailing, *audience(addresses))
        assert report.done
        return mailing

    def request(self, key: str, address: str = "ann@gmail.com", **fields: Any) -> outbox.Request:
        content = fields.pop("content", None) or a_content(self.workspace)
        return outbox.Request(
            workspace_id=self.workspace.pk,
            pool_id=self.pool.pk,
            content_id=content.pk,
            dedup_key=key,
            address=address,
            context={"first_name": "Ann"},
            **fields,
        )

    # -- the machinery

    def start_runtime(self) -> runtime.Runtime:
        """This process's runtime, with the world's servers and DNS instead of real ones."""
        current = runtime.current()
        if not isinstance(current.transport, MemoryTransport):
            current.run(self._replace(current))
        return current

    async def _replace(self, current: runtime.Runtime) -> None:
        await current.transport.close(0)
        current.transport = MemoryTransport(self.servers)
        current.mx = memory_mx(self.zone)

    def published(self, at: datetime | None = None) -> list[dispatch.Publication]:
        return dispatch.dispatch(now=at or now())

    def deliver(self, publications: Iterable[dispatch.Publication]) -> int:
        """Do what workers would. Returns how many tasks did something."""
        self.start_runtime()
        done = 0
        for one in publications:
            if one.needs_route:
                done += routing.route_batch(one.batch_id, now=now())
            else:
                done += delivery.deliver(one.batch_id)
        return done

    def work(self) -> None:
        """Dispatch and deliver until nothing more can be published; check the law at each turn."""
        for _ in range(200):
            publications = self.published()
            if not publications:
                return
            self.deliver(publications)
            for mailing_id in Mailing.objects.values_list("id", flat=True):
                self.check(mailing_id)
        raise AssertionError("the same batches are published over and over")

    # -- looking

    def check(self, mailing_id: int) -> account.Account:
        """The account of a mailing, which must agree with the rows."""
        recount = account.recount(mailing_id)
        assert recount.broken == []
        return recount.account

    def states(self, mailing: Mailing) -> dict[str, int]:
        """How many messages are in which state, by an account that agrees with the rows."""
        return {state: n for state, n in self.check(mailing.pk).states.items() if n}

    def message(self, address: str) -> Message:
        return Message.objects.get(address=address)

    def attempts(self, address: str) -> list[Attempt]:
        found = Attempt.objects.filter(message_id=self.message(address).pk)
        return list(found.order_by("attempt_no"))

    def batches(self, mailing: Mailing, **fields: Any) -> list[Batch]:
        return list(Batch.objects.filter(mailing_id=mailing.pk, **fields).order_by("id"))

    def inbox(self) -> list[str]:
        """Who got a copy, once for each copy."""
        return sorted(got.recipient for server in self.servers.values() for got in server.inbox)

    def make_due(self) -> None:
        """Let the deferred messages' waiting, and that of batches put back, be over."""
        past = now() - timedelta(seconds=1)
        Message.objects.filter(due_at__isnull=False).update(due_at=past)
        Batch.objects.filter(state="untaken", due_at__isnull=False).update(due_at=past)


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Run `work` in threads that start together, each with a connection of its own."""
    start, results = threading.Barrier(count), []

    def run(number: int) -> None:
        try:
            start.wait(30)
            results.append(work(number))
        except BaseException as error:
            results.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    assert len(results) == count
    return results


def eventually(holds: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"the condition did not come true in {seconds} s"
        time.sleep(0.01)
