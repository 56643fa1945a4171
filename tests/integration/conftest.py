"""What the engine's tests share: an empty Redis, and a world in which mail can be sent.

The world's mail servers and its DNS live in memory, behind the same doors as the real ones;
everything else (PostgreSQL, Redis, the journal's files, the loop) is real.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from deliverability import conf as deliverability_conf
from mailer import compiling, runtime
from mailer import conf as mailer_conf
from tests.integration.world import World, a_source, a_workspace

#: All that the counters keep. Only these are deleted: the server may be somebody's broker.
COUNTER_KEYS = ("generation", "rebuilt", "allowances", "rates", "published")


@pytest.fixture
def redis_client(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url)


@pytest.fixture
def empty_redis(redis_client: redis.Redis) -> Iterator[redis.Redis]:
    """A Redis that knows no limits."""
    keys = [f"postroad:{name}" for name in COUNTER_KEYS]
    redis_client.delete(*keys)
    deliverability_conf.counters.cache_clear()
    yield redis_client
    redis_client.delete(*keys)


@pytest.fixture
def policy(settings: Any, tmp_path: Path) -> Iterator[Any]:
    """Settings that may be changed in a test; call `forget` after a change."""
    settings.POSTROAD_JOURNALS = tmp_path / "journals"
    settings.POSTROAD_HOST = "host-of-tests"
    forget()
    yield settings
    forget()


def forget() -> None:
    mailer_conf.place.cache_clear()
    mailer_conf.delivery_policy.cache_clear()
    compiling.compiled.cache_clear()


@pytest.fixture
def world(
    empty_redis: redis.Redis, policy: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """Wants `db` or `transactional_db`, whichever the test has."""
    monkeypatch.setattr(runtime, "SHUTDOWN_GRACE_SECONDS", 0.2)
    assert os.environ["DATABASE_URL"]
    made = World(a_workspace(), forget)
    made.source = a_source(made.pool)
    yield made
    runtime.shut_down()
