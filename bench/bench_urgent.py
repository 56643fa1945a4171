"""How fast a transactional message is at the receiver, alone and while a campaign runs.

    python -m bench.bench_urgent --messages 200 --load 20000 --json

Starts its own PostgreSQL (fsync on), Valkey, sandbox (`--sink`, with STARTTLS) and all roles that
carry mail, with the nice levels they are shipped with, in a temporary folder. Then it submits
messages one by one, at a steady pace, to six domains of five providers:

  cold  the first message to each domain: no route is known, no connection is open
  idle  nothing else is being sent
  load  a campaign of --load messages runs (launched again when it ends too soon)

`ms` runs from the call of the outbox to the attempt's time, which is when the server's 250 was
read. `recorded_ms` ends when the outcome can be read in PostgreSQL, as a poll every few
milliseconds sees it. `submit_ms` is the call itself: accepted, committed and published.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from bench.bench_pipeline import fill, usage
from config.local import roles
from config.local.stage import Stage, enter, stage

DOMAINS = (
    *("gmail.com", "outlook.com", "yahoo.com", "icloud.com", "shop.example", "club.example"),
)
PACE_SECONDS = 0.08
LOOK_SECONDS = 0.004
LONGEST_SECONDS = 120.0
POOL = "Urgent"


@dataclass(slots=True)
class Sent:
    """One message, with what the clock said here."""

    message_id: int
    called_at: datetime
    submit_ms: float
    recorded_at: datetime | None = None


@dataclass(slots=True)
class Watch:
    """Sees outcomes as they become readable, over a connection of its own."""

    waiting: dict[int, Sent] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    is_over: threading.Event = field(default_factory=threading.Event)

    def add(self, sent: Sent) -> None:
        with self.lock:
            self.waiting[sent.message_id] = sent

    def run(self) -> None:
        from mailer.models import Message

        while not self.is_over.wait(LOOK_SECONDS):
            with self.lock:
                ids = list(self.waiting)
            if not ids:
                continue
            today = datetime.now(UTC).date()
            settled = Message.objects.filter(mailing_day=today, id__in=ids).exclude(state="waiting")
            for message_id in list(settled.values_list("id", flat=True)):
                with self.lock:
                    self.waiting.pop(message_id).recorded_at = datetime.now(UTC)


def sender() -> Callable[[str, int], Sent]:
    """A workspace with a pool of its own, and what submits one message from it."""
    from deliverability.models import Pool, Source, Workspace
    from mailer import outbox, tasks

    workspace = Workspace.objects.create(slug="urgent", name="Urgent")
    pool = Pool.objects.create(workspace=workspace, name=POOL)
    Source.objects.create(pool=pool, name="urgent-1", helo_name="urgent-1.send.example")
    content = outbox.freeze_content(
        workspace,
        subject="Your code is {{ code }}",
        html="<p>Hello {{ name }},</p><p>your code is <b>{{ code }}</b>.</p>",
        text="Hello {{ name }},\n\nyour code is {{ code }}.\n",
        from_header="Shop <code@send.example>",
    )

    def submit(condition: str, number: int) -> Sent:
        called_at, began = datetime.now(UTC), time.perf_counter()
        accepted = tasks.submit(
            outbox.Request(
                workspace_id=workspace.pk,
                pool_id=pool.pk,
                content_id=content.pk,
                dedup_key=f"{condition}-{number}",
                address=f"{condition}{number}@{DOMAINS[number % len(DOMAINS)]}",
                context={"name": "Ana", "code": str(4711 + number)},
            )
        )
        return Sent(accepted.message_id, called_at, (time.perf_counter() - began) * 1000)

    return submit


def measure(
    on: Stage, condition: str, count: int, submit: Callable[[str, int], Sent], load: Load | None
) -> dict[str, Any]:
    """Submit `count` messages at a steady pace and wait until all of them are recorded."""
    watch = Watch()
    thread = threading.Thread(target=watch.run, daemon=True)
    thread.start()
    before, began, sent = usage(on).cpu, time.monotonic(), []
    for number in range(count):
        if load is not None:
            load.keep_up()
        time.sleep(max(0.0, began + number * PACE_SECONDS - time.monotonic()))
        sent.append(submit(condition, number))
        watch.add(sent[-1])
    until = time.monotonic() + LONGEST_SECONDS
    while watch.waiting and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
    seconds, after = time.monotonic() - began, usage(on).cpu
    watch.is_over.set()
    thread.join()
    cpu = {name: round((after[name] - before[name]) / count * 1e3, 2) for name in after}
    told = {"condition": condition, "messages": count, **_figures(sent)}
    if load is None:
        told["cpu_ms_by_process"] = {name: spent for name, spent in cpu.items() if spent}
    else:
        told |= load.told(seconds)
    return told


def _figures(sent: list[Sent]) -> dict[str, Any]:
    from mailer.models import Attempt

    days = {one.called_at.date() for one in sent}
    ids = [one.message_id for one in sent]
    rows = Attempt.objects.filter(mailing_day__in=days, message_id__in=ids, reply_code=250)
    answered = dict(rows.values_list("message_id", "at"))
    to_250 = [
        _ms(one.called_at, answered[one.message_id]) for one in sent if one.message_id in answered
    ]
    recorded = [_ms(one.called_at, one.recorded_at) for one in sent if one.recorded_at]
    submits = [one.submit_ms for one in sent]
    return {
        "delivered": len(to_250),
        **{f"p{share}_ms": percentile(to_250, share) for share in (50, 90, 99)},
        "max_ms": percentile(to_250, 100),
        **{f"recorded_p{share}_ms": percentile(recorded, share) for share in (50, 99)},
        **{f"submit_p{share}_ms": percentile(submits, share) for share in (50, 99)},
    }


def percentile(values: list[float], share: int) -> float | None:
    """The smallest value that `share` percent of all do not exceed."""
    ranked = sorted(values)
    return round(ranked[max(0, -(-len(ranked) * share // 100) - 1)], 1) if ranked else None


def _ms(since: datetime, until: datetime) -> float:
    return (until - since).total_seconds() * 1000


class Load:
    """A campaign that runs as long as anybody measures."""

    def __init__(self, count: int) -> None:
        self._campaign = fill(count)
        self._count = count
        self._mailings: list[int] = []

    def keep_up(self) -> None:
        """See to it that bulk mail is waiting and being sent."""
        from campaigns import launch, tasks
        from mailer import account

        if self._mailings:
            now = account.account_of(self._mailings[-1])
            if not now.is_expanded or now.states["waiting"] > self._count // 10:
                return
        next_ = launch.launch(
            self._campaign(f"Load {len(self._mailings) + 1}").pk,
            actor="bench",
            now=datetime.now(UTC),
        )
        tasks.publish(next_)
        self._mailings.append(next_.mailing_id)
        self._await_flow()

    def _await_flow(self) -> None:
        """Until the campaign's mail really goes out."""
        from mailer import account

        until = time.monotonic() + LONGEST_SECONDS
        already = self._delivered()
        while self._delivered() <= already and time.monotonic() < until:
            time.sleep(0.05)
        self._at_start = getattr(self, "_at_start", self._delivered())
        assert account.account_of(self._mailings[-1]).states["waiting"]

    def _delivered(self) -> int:
        from mailer import account

        accounts = account.accounts_of(self._mailings).values()
        return sum(one.states["delivered"] for one in accounts)

    def told(self, seconds: float) -> dict[str, Any]:
        sent = self._delivered() - self._at_start
        return {"load_messages": sent, "load_messages_per_second": round(sent / seconds, 1)}


def conditions(chosen: argparse.Namespace) -> Iterator[dict[str, Any]]:
    with stage("--sink") as on:
        enter(on.environment)
        submit, load = sender(), Load(chosen.load) if chosen.load else None
        delivering = [roles.deliver(n + 1) for n in range(roles.delivery_processes(os.environ))]
        on.start(*delivering, roles.urgent(), roles.upkeep(), roles.beat())
        yield measure(on, "cold", len(DOMAINS), submit, None)
        for run in range(chosen.runs):
            yield measure(on, f"idle{run or ''}", chosen.messages, submit, None)
            if load is not None:
                load.keep_up()
                yield measure(on, f"load{run or ''}", chosen.messages, submit, load)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--messages", type=int, default=200, help="for each condition")
    parser.add_argument("--load", type=int, default=20_000, help="of the campaign; 0: none")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON object per condition")
    chosen = parser.parse_args()
    if chosen.messages < 1 or chosen.load < 0 or chosen.runs < 1:
        parser.error("--messages and --runs must be at least 1, --load at least 0")
    for told in conditions(chosen):
        told["condition"] = told["condition"].rstrip("0123456789")
        if chosen.json:
            print(json.dumps(told), flush=True)
        else:
            print(
                f"{told['condition']:5} p50 {told['p50_ms']} ms, p90 {told['p90_ms']} ms, "
                f"p99 {told['p99_ms']} ms; recorded p50 {told['recorded_p50_ms']} ms",
                flush=True,
            )
        if told["delivered"] < told["messages"]:
            print(f"only {told['delivered']} were delivered", file=sys.stderr)


if __name__ == "__main__":
    main()
