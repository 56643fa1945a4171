"""The processes that make up Postroad: one table for bin/start, Docker and systemd.

docker-compose.yml and deploy/ repeat these commands, and a test compares them with this table.
Standard library only.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping
from dataclasses import dataclass

MAX_DELIVERY_PROCESSES = 4  #: by default; more cores want a decision, not a guess
BULK_NICE = 5  #: urgent mail and the web overtake bulk on a busy machine

#: A worker whose batches are in flight finishes or gives them back within
#: a second, Celery waits 3 s, and then replies that are due are awaited for up to 15 s.
WORKER_GRACE_SECONDS = 30.0


class InvalidProcessCount(ValueError):
    """POSTROAD_DELIVERY_PROCESSES is not a whole number from 1 to 64."""


class Sign(enum.Enum):
    """How a process shows that it is ready."""

    HTTP = "an address answers"
    LOG = "a line in its log"


@dataclass(frozen=True, slots=True)
class Ready:
    sign: Sign
    what: str  #: the path, or a piece of the line
    seconds: float = 90


@dataclass(frozen=True, slots=True)
class Role:
    """One process: `python -m` and `command`."""

    name: str
    command: tuple[str, ...]
    ready: Ready
    nice: int = 0
    grace_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the two servers for people listen."""

    host: str = "127.0.0.1"
    web_port: int = 8000
    flower_port: int = 5555


def delivery_processes(environment: Mapping[str, str], cores: int | None = None) -> int:
    """How many bulk delivery processes: one per core, unless the environment says."""
    given = environment.get("POSTROAD_DELIVERY_PROCESSES", "")
    if not given:
        return max(1, min(cores or os.cpu_count() or 1, MAX_DELIVERY_PROCESSES))
    if not given.isdecimal() or not 1 <= int(given) <= 64:
        raise InvalidProcessCount(
            f"POSTROAD_DELIVERY_PROCESSES={given!r}: give a whole number from 1 to 64."
        )
    return int(given)


def _worker(name: str, queues: str, *, nice: int) -> Role:
    return Role(
        name=name,
        command=(
            *("celery", "-A", "config", "worker", "-n", f"{name}@%h", "-Q", queues),
            *("--pool", "threads", "-c", "4", "--without-gossip", "--without-mingle"),
            *("--loglevel", "INFO"),
        ),
        ready=Ready(Sign.LOG, " ready."),
        nice=nice,
        grace_seconds=WORKER_GRACE_SECONDS,
    )


def deliver(number: int) -> Role:
    """A bulk delivery worker. `-Q` is an order: high before normal before low."""
    queues = "deliver.high,deliver.normal,deliver.low"
    return _worker(f"deliver-{number}", queues, nice=BULK_NICE)


def urgent() -> Role:
    return _worker("urgent", "deliver.urgent", nice=0)


def upkeep() -> Role:
    return _worker("upkeep", "dispatch,feedback,upkeep,expand", nice=BULK_NICE)


def beat() -> Role:
    return Role(
        name="beat",
        command=(
            # No pid file: one that a crash left behind could stop the next start.
            *("celery", "-A", "config", "beat", "--loglevel", "INFO", "--pidfile="),
            *("--scheduler", "django_celery_beat.schedulers:DatabaseScheduler"),
        ),
        ready=Ready(Sign.LOG, "beat: Starting"),
    )


def flower(listen: Listen) -> Role:
    """Its user and password come from FLOWER_BASIC_AUTH, since all can read a command line."""
    return Role(
        name="flower",
        command=(
            *("celery", "-A", "config", "flower", f"--address={listen.host}"),
            *(f"--port={listen.flower_port}", "--read-only"),
            *("--max-tasks=5000", "--purge-offline-workers=300"),
        ),
        ready=Ready(Sign.HTTP, "/healthcheck"),
        nice=BULK_NICE,
    )


def web(listen: Listen) -> Role:
    return Role(
        name="web",
        command=(
            *("gunicorn", "config.wsgi", "--bind", f"{listen.host}:{listen.web_port}"),
            *("--workers", "1", "--threads", "8"),
        ),
        ready=Ready(Sign.HTTP, "/health"),
    )


def all_roles(listen: Listen, deliverers: int) -> tuple[Role, ...]:
    """Every role, in the order of starting. They stop in the reverse order."""
    return (
        *(deliver(number) for number in range(1, deliverers + 1)),
        urgent(),
        upkeep(),
        flower(listen),
        beat(),
        web(listen),
    )
