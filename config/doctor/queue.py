"""Redis, and those who should be listening to it: workers and beat."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.utils import timezone

from config.celery import DELIVERY_QUEUES, app
from config.doctor.finding import Check, Finding, Needs, error, ok, warning

OLDEST_VERSION = (6, 2)
CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 2.0
#: The scheduler writes down what it sent every three minutes (its `sync_every`).
BEAT_SILENT_FOR = timedelta(minutes=4)
TICK = "mailer.tick"

#: Role → the queues that somebody must consume, and what happens otherwise.
ROLES = {
    "deliver": (DELIVERY_QUEUES, "campaigns are not sent"),
    "urgent": (("deliver.urgent",), "urgent messages are not sent"),
    "upkeep": (("dispatch", "expand", "feedback", "upkeep"), "nothing is launched or dispatched"),
}


@contextmanager
def redis_client() -> Iterator[Any]:
    """The broker's client, as Celery connects to it."""
    options = {"socket_timeout": CONNECT_SECONDS, "socket_connect_timeout": CONNECT_SECONDS}
    with app.connection_for_read(transport_options=options) as broker:
        yield broker.default_channel.client


def _reachable() -> Iterator[Finding]:
    try:
        with redis_client() as client:
            told = client.info()
    except Exception as problem:
        # Whatever the broker's client raises: refused, timed out, wrong password.
        advice = (
            "Start Redis or Valkey, or correct REDIS_URL. Sending pauses meanwhile, nothing is "
            "lost, and it resumes by itself."
        )
        yield error("redis", " ".join(f"does not answer: {problem}".split()), advice)
        return
    name = told.get("server_name", "redis").title()
    version = told.get("valkey_version") or told["redis_version"]
    readable = f"{name} {version}, {told['used_memory_human']} used"
    compatible = tuple(int(part) for part in re.findall(r"\d+", told["redis_version"])[:2])
    if compatible < OLDEST_VERSION:
        yield error("redis", readable, "Celery needs Redis 6.2 or newer, or Valkey.")
    else:
        yield ok("redis", readable)


def _memory_policy() -> Iterator[Finding]:
    with redis_client() as client:
        told = client.info("memory")
    policy, most = told.get("maxmemory_policy", "unknown"), int(told.get("maxmemory", 0))
    found = f"maxmemory-policy {policy}, maxmemory {told.get('maxmemory_human', most)}"
    if policy != "noeviction":
        advice = "Set maxmemory-policy noeviction: a queue must refuse, never forget."
        yield error("redis memory", found, advice)
    elif most and told["used_memory"] > most * 0.8:
        yield warning("redis memory", f"{found}, nearly full", "Give it more maxmemory.")
    else:
        yield ok("redis memory", found)


def _persistence() -> Iterator[Finding]:
    with redis_client() as client:
        told = client.info("persistence")
    if told.get("aof_enabled"):
        if told.get("aof_last_write_status") != "ok":
            yield error("redis disk", "the append-only file cannot be written", "Look at its disk.")
            return
        yield ok("redis disk", "append-only file on")
        return
    advice = (
        "Set `appendonly yes`. Without it a restart forgets what was published; it is found and "
        "published again, and each daily cap loses the block that was granted and not spent."
    )
    yield warning("redis disk", "append-only file off", advice)


def _limits() -> Iterator[Finding]:
    with redis_client() as client:
        run_id = str(client.info("server")["run_id"])
        built = client.get("postroad:generation")
    if built is None:
        yield ok(
            "limits",
            "none counted: no source with a limit has sent since Redis was empty (normal)",
        )
    elif built.decode() == run_id:
        yield ok("limits", "belong to this run of Redis")
    else:
        # The first admission rebuilds them; that nobody asks is what workers and beat are for.
        yield ok("limits", "will be rebuilt by the next admission, since Redis was restarted")


def _workers() -> Iterator[Finding]:
    answers = app.control.inspect(timeout=ANSWER_SECONDS).active_queues() or {}
    consumed = {
        node: {queue["name"].partition("@")[0] for queue in queues}
        for node, queues in answers.items()
    }
    with redis_client() as client:
        for role, (queues, consequence) in ROLES.items():
            nodes = sorted(node for node, names in consumed.items() if names & set(queues))
            orphaned = [q for q in queues if not any(q in names for names in consumed.values())]
            backlog = sum(client.llen(queue) for queue in queues)
            yield _role_told(role, nodes, orphaned, backlog, consequence)


def _role_told(
    role: str, nodes: list[str], orphaned: list[str], backlog: int, consequence: str
) -> Finding:
    waiting = f", {backlog} tasks waiting" if backlog else ""
    if not orphaned:
        return ok(f"worker {role}", f"{', '.join(nodes)}{waiting}")
    advice = (
        f"Until it runs, {consequence}: start it (docs/running.md), or see why it does not "
        "answer in its log."
    )
    found = f"nobody consumes {', '.join(orphaned)}{waiting}"
    return error(f"worker {role}", found, advice)


def _beat() -> Iterator[Finding]:
    from django_celery_beat.models import PeriodicTask

    entry = PeriodicTask.objects.filter(task=TICK).order_by("-enabled", "-last_run_at").first()
    if entry is None:
        yield error("beat", f"no entry for {TICK}", "Run `manage.py migrate`: it makes them.")
        return
    if not entry.enabled:
        yield error("beat", f"“{entry.name}” is disabled", "Enable it in the admin.")
        return
    advice = "Start beat, exactly one. Without it deferred messages are not tried again."
    if entry.last_run_at is None:
        is_new = timezone.now() - entry.date_changed < BEAT_SILENT_FOR
        yield (warning if is_new else error)("beat", f"no run of {TICK} was noted yet", advice)
        return
    ago = timezone.now() - entry.last_run_at
    told = f"{TICK} was noted {max(0, ago.total_seconds()):.0f} s ago"
    yield ok("beat", told) if ago < BEAT_SILENT_FOR else error("beat", told, advice)


CHECKS = (
    Check("redis", _reachable, Needs.REDIS, is_root=True),
    Check("redis memory", _memory_policy, Needs.REDIS),
    Check("redis disk", _persistence, Needs.REDIS),
    Check("limits", _limits, Needs.REDIS),
    Check("workers", _workers, Needs.REDIS),
    Check("beat", _beat, Needs.DATABASE),
)
