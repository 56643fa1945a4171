"""How fast an audience becomes messages and batches, and what dispatch costs before them all.

    python -m bench.bench_expansion --recipients 100000 --json

Starts its own PostgreSQL (fsync on), Valkey and sandbox in a temporary folder, fills one list,
launches a campaign and expands it in this process, page by page as a worker does; nothing is
sent. Then it dispatches, again and again, with every batch still waiting, and takes what was
published away as if it had been sent. Time should grow with the number of recipients, memory and
the cost of a dispatch should not.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import sys
import time
from datetime import UTC, datetime
from typing import Any

from bench.bench_pipeline import fill, usage
from config.local.stage import Stage, enter, stage

DISPATCHES = 50
PAGES_AT_THE_ENDS = 5


def expand(on: Stage, mailing_id: int) -> dict[str, Any]:
    """Expand to the end; times of the pages, memory of this process, CPU of PostgreSQL."""
    from campaigns import expansion

    pages: list[tuple[float, int]] = []  #: seconds since the start, and recipients matched
    before, rss_before, began = usage(on).cpu, _peak_mb(), time.monotonic()
    own_before = time.process_time()
    expansion.expand_step(
        mailing_id,
        budget_seconds=float("inf"),
        on_page=lambda page: pages.append((time.monotonic() - began, page.matched)),
    )
    seconds, own = time.monotonic() - began, time.process_time() - own_before
    rows = sum(matched for _, matched in pages)
    postgres = usage(on).cpu["postgres"] - before["postgres"]
    return {
        "recipients": rows,
        "seconds": round(seconds, 2),
        "rows_per_second": round(rows / seconds),
        "first_page_ms": round(pages[0][0] * 1000, 1),
        **_pace_at_the_ends(pages),
        "postgres_cpu_us_per_row": round(postgres / rows * 1e6, 1),
        "own_cpu_us_per_row": round(own / rows * 1e6, 2),
        "peak_rss_mb": round(_peak_mb(), 1),
        "rss_growth_mb": round(_peak_mb() - rss_before, 1),
    }


def _pace_at_the_ends(pages: list[tuple[float, int]]) -> dict[str, float]:
    """Milliseconds of a full page near the start and at the end: equal, if nothing grows."""
    took = [
        (now[0] - before[0]) * 1000
        for before, now in itertools.pairwise(pages)
        if now[1] == max(matched for _, matched in pages)
    ]
    if not took:
        return {}
    return {
        "early_page_ms": round(statistics.median(took[:PAGES_AT_THE_ENDS]), 1),
        "late_page_ms": round(statistics.median(took[-PAGES_AT_THE_ENDS:]), 1),
    }


def dispatch_all(mailing_id: int) -> dict[str, Any]:
    """Dispatch with every batch waiting; what was published is taken away each time."""
    from mailer import dispatch
    from mailer.models import Batch

    waiting = Batch.objects.filter(mailing_id=mailing_id, state="untaken").count()
    took, published = [], 0
    for turn in range(DISPATCHES):
        began = time.perf_counter()
        chosen = dispatch.dispatch(now=datetime.now(UTC), turn=turn)
        took.append((time.perf_counter() - began) * 1000)
        published += len(chosen)
        Batch.objects.filter(pk__in=[one.batch_id for one in chosen]).update(state="done")
        if not chosen:
            break
    return {
        "batches_waiting": waiting,
        "dispatch_ms": round(statistics.median(took), 1),
        "dispatch_max_ms": round(max(took), 1),
        "batches_per_dispatch": round(published / len(took), 1),
    }


def resolve_routes() -> None:
    """Ask the sandbox's DNS once, as a campaign's first mail to these domains would have."""
    from campaigns.models import Recipient
    from mailer import routing

    domains = set(Recipient.objects.values_list("domain", flat=True).distinct())
    routing.routes_for(domains, now=datetime.now(UTC))


def run(on: Stage, campaign: Any) -> dict[str, Any]:
    from campaigns import launch
    from mailer import account

    resolve_routes()
    next_ = launch.launch(campaign.pk, actor="bench", now=datetime.now(UTC))
    told = expand(on, next_.mailing_id)
    now = account.account_of(next_.mailing_id)
    return {
        **told,
        **dispatch_all(next_.mailing_id),
        "matched": now.matched,
        "excluded": now.excluded,
        "states": {state: count for state, count in now.states.items() if count},
        "holds": account.recount(next_.mailing_id).holds,
    }


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--recipients", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON object per run")
    chosen = parser.parse_args()
    if chosen.recipients < 1 or chosen.runs < 1:
        parser.error("--recipients and --runs must be at least 1")
    with stage("--sink") as on:
        enter(on.environment)
        campaign = fill(chosen.recipients)
        for number in range(chosen.runs):
            told = run(on, campaign(f"Run {number}"))
            if chosen.json:
                print(json.dumps(told), flush=True)
            else:
                print(
                    f"{told['recipients']} recipients in {told['seconds']} s, "
                    f"{told['rows_per_second']} a second; a dispatch before "
                    f"{told['batches_waiting']} batches {told['dispatch_ms']} ms",
                    flush=True,
                )


if __name__ == "__main__":
    main()
