"""The two implementations of `Counters`, with a way to lose everything and to let time pass."""

from __future__ import annotations

from typing import Protocol

import redis

from deliverability.counters import Counters, RedisCounters
from deliverability.counters_memory import MemoryCounters


class Peer(Protocol):
    counters: Counters

    def lose(self) -> None:
        """Forget everything, as a flushed server does."""

    def let_pass(self, seconds: float) -> None: ...


class MemoryPeer:
    def __init__(self) -> None:
        self.now_us = 1_000_000_000_000
        self.counters = MemoryCounters(lambda: self.now_us)

    def lose(self) -> None:
        self.counters.lose()

    def let_pass(self, seconds: float) -> None:
        self.now_us += int(seconds * 1_000_000)


class RedisPeer:
    """A real server on the real clock. Time passes when what is stored grows older."""

    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(url)
        self.counters = RedisCounters(url)

    def lose(self) -> None:
        self.client.flushdb()

    def let_pass(self, seconds: float) -> None:
        older = int(seconds * 1_000_000)
        self.client.decrby("postroad:rebuilt", older)
        for field in self.client.hkeys("postroad:rates"):
            self.client.hincrby("postroad:rates", field, -older)
