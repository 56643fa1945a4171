"""The whole pipeline, as shipped, into a sink: from launch to the last outcome in PostgreSQL.

    python -m bench.bench_pipeline --messages 20000 --json

Starts its own PostgreSQL (fsync on), Valkey, sandbox (`--sink`: counts, keeps nothing) and
Celery workers in a temporary folder, fills a list, and launches a campaign with default
settings: gate, ledger and journal on. The message is that of bench_content: 28 KB, five fields.
The clock runs from the launch to the moment when nothing waits; CPU is user + system time of
every process but the sink and this one. One JSON object per run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bench.bench_content import newsletter
from config.local import roles
from config.local.stage import Stage, enter, stage

_TICKS = os.sysconf("SC_CLK_TCK")
_LONGEST_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds by process name, and the largest memory of a delivery worker."""

    cpu: dict[str, float]
    rss_mb: float


def usage(on: Stage) -> Usage:
    cpu = {name: sum(map(_cpu_seconds, _family(child.pid))) for name, child in on.children.items()}
    rss = [_rss_mb(child.pid) for name, child in on.children.items() if name.startswith("deliver")]
    return Usage(cpu, max(rss, default=0.0))


def fill(count: int) -> Any:
    """A workspace with a list of `count` recipients and a campaign that is ready to launch."""
    from django.db import connection

    from campaigns.models import Campaign, List, Template
    from deliverability.models import Pool, Source, Workspace

    workspace = Workspace.objects.create(slug="bench", name="Bench")
    audience = List.objects.create(workspace=workspace, name="Everyone")
    pool = Pool.objects.create(workspace=workspace, name="Bench")
    Source.objects.create(pool=pool, name="bench-1", helo_name="bench-1.send.example")
    content = newsletter()
    template = Template.objects.create(workspace=workspace, name="Newsletter")
    html = content.html.replace("{{ tracking_token }}", "0")
    template.add_version(subject=content.subject, html=html, text=content.text)
    with connection.cursor() as cursor:
        cursor.execute(_RECIPIENTS_SQL, {"workspace": workspace.pk, "count": count})
        cursor.execute(_SUBSCRIPTIONS_SQL, {"list": audience.pk, "workspace": workspace.pk})
        cursor.execute("ANALYZE campaigns_recipient, campaigns_subscription")
    return lambda name: _campaign(Campaign, workspace, audience, pool, template, name)


def _campaign(
    model: Any, workspace: Any, audience: Any, pool: Any, template: Any, name: str
) -> Any:
    campaign = model.objects.create(
        workspace=workspace,
        name=name,
        template=template,
        pool=pool,
        from_header="Novedades <news@send.example>",
    )
    campaign.lists.add(audience)
    return campaign


_RECIPIENTS_SQL = """
    INSERT INTO campaigns_recipient (workspace_id, address, address_key, domain, attributes)
    SELECT %(workspace)s, a.address, a.address, split_part(a.address, '@', 2), jsonb_build_object(
        'first_name', (ARRAY['José', 'Ana & Luis', 'María', 'Li', 'Bob'])[1 + n %% 5],
        'city', (ARRAY['Madrid', 'Sevilla', 'A Coruña', 'Zürich'])[1 + n %% 4],
        'company', 'ACME <' || n %% 97 || '> S.A.', 'code', 'X' || n || '=Y',
        'amount', n %% 500 || ',50', 'unused', repeat('x', 100))
    FROM generate_series(1, %(count)s) n,
    LATERAL (SELECT 'u' || n || '@' || (ARRAY['gmail.com', 'outlook.com', 'yahoo.com',
        'icloud.com', 'shop.example', 'club.example'])[1 + n %% 6] AS address) a
"""
_SUBSCRIPTIONS_SQL = """
    INSERT INTO campaigns_subscription (list_id, recipient_id, state, origin)
    SELECT %(list)s, id, 'subscribed', 'bench' FROM campaigns_recipient
    WHERE workspace_id = %(workspace)s
"""


def run(on: Stage, campaign: Any, count: int) -> dict[str, Any]:
    """Launch one campaign and wait until nothing waits."""
    from campaigns import launch, tasks
    from mailer import account

    before, began = usage(on), time.monotonic()
    next_ = launch.launch(campaign.pk, actor="bench", now=datetime.now(UTC))
    tasks.publish(next_)
    expanded = 0.0
    while True:
        now = account.account_of(next_.mailing_id)
        expanded = expanded or (time.monotonic() - began if now.is_expanded else 0.0)
        if now.is_settled:
            break
        if time.monotonic() - began > _LONGEST_SECONDS:
            raise SystemExit(f"not settled after {_LONGEST_SECONDS:g} s: {now.states}")
        time.sleep(0.2)
    seconds, after = time.monotonic() - began, usage(on)
    told = _counts(on, next_.mailing_id)
    cpu = {name: round((after.cpu[name] - before.cpu[name]) / count * 1e6, 1) for name in after.cpu}
    sink = cpu.pop("sandbox")
    return {
        "messages": count,
        "messages_per_second": round(count / seconds, 1),
        "cpu_us_per_message": round(sum(cpu.values()), 1),
        "dkim": "none",
        "rss_mb": round(after.rss_mb, 1),
        "duplicates": told["duplicates"],
        "lost": count - told["distinct"],
        "seconds": round(seconds, 2),
        "expansion_seconds": round(expanded, 2),
        "cpu_us_by_process": cpu,
        "sink_us_per_message": sink,
        "states": {state: n for state, n in now.states.items() if n},
        "attempts": now.attempts,
    }


def _counts(on: Stage, mailing_id: int) -> dict[str, Any]:
    with urllib.request.urlopen(f"{on.inbox}/api/counts?mailing={mailing_id}") as answer:
        told: dict[str, Any] = json.load(answer)
    return told


def _family(pid: int) -> Iterator[int]:
    """A process and its living descendants."""
    yield pid
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            children = file.read().split()
    except OSError:
        return
    for child in children:
        yield from _family(int(child))


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process and of its children that have ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / _TICKS


def _rss_mb(pid: int) -> float:
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--workers", type=int, default=roles.delivery_processes(os.environ))
    parser.add_argument("--json", action="store_true", help="one JSON object per run and line")
    chosen = parser.parse_args()
    if chosen.messages < 1 or chosen.runs < 1 or chosen.workers < 1:
        parser.error("--messages, --runs and --workers must be at least 1")
    results = list(_runs(chosen))
    if not chosen.json:
        median = statistics.median(one["messages_per_second"] for one in results)
        print(f"median {median:g} messages per second over {chosen.runs} runs", file=sys.stderr)


def _runs(chosen: argparse.Namespace) -> Iterator[dict[str, Any]]:
    with stage("--sink") as on:
        enter(on.environment)
        campaign = fill(chosen.messages)
        delivering = [roles.deliver(number) for number in range(1, chosen.workers + 1)]
        on.start(*delivering, roles.upkeep(), roles.beat())
        for number in range(chosen.runs):
            result = run(on, campaign(f"Run {number}"), chosen.messages)
            print(json.dumps(result), flush=True)
            yield result


if __name__ == "__main__":
    main()
