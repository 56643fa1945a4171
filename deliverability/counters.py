"""The fast copy of limits, shared by all workers. The one file that imports redis.

Everything here may be lost at any moment. Each script checks that the server is the one the
limits were built on (its run id, stored as the generation); where it differs, nothing passes
until `rebuild`. When the server does not answer, `CountersUnavailable` is raised: callers
wait, they never guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Protocol

import redis

from deliverability.core.limits import DailyCap, Limit, RateLimit

_KEYS = ["postroad:generation", "postroad:rebuilt", "postroad:allowances", "postroad:rates"]
_PUBLISHED = "postroad:published"


class CountersUnavailable(Exception):
    """Redis did not answer. Nothing was taken as far as anyone can know."""


@dataclass(frozen=True, slots=True)
class Taken:
    """`count` of the asked messages pass. `wait_seconds` until there is room again, where the
    binding limit is a rate; `binding` is the limit that cut, None when none did."""

    count: int
    wait_seconds: float
    binding: Limit | None


class Stale(Exception):
    """The server restarted or was emptied: limits must be rebuilt before anything passes."""


class Counters(Protocol):
    def take(self, limits: Sequence[Limit], wanted: int) -> Taken: ...
    def peek(self, limits: Sequence[Limit], wanted: int) -> Taken: ...
    def give_back(self, limits: Sequence[Limit], count: int) -> None:
        """Return what was taken of daily caps. Rates are not given back: time does that."""

    def grant(self, cap: DailyCap, count: int) -> None: ...
    def rebuild(self) -> bool: ...
    def broker_was_lost(self) -> bool: ...


class RedisCounters:
    def __init__(self, url: str) -> None:
        # No retries: a script that took and whose answer was lost must not take again.
        self._redis: redis.Redis = redis.Redis.from_url(
            url, socket_timeout=5, socket_connect_timeout=5, health_check_interval=15, retry=None
        )
        lua = resources.files("deliverability") / "lua"
        self._admit = self._redis.register_script((lua / "admit.lua").read_text())
        self._give_back = self._redis.register_script((lua / "give_back.lua").read_text())
        self._rebuild = self._redis.register_script((lua / "rebuild.lua").read_text())

    def take(self, limits: Sequence[Limit], wanted: int) -> Taken:
        return self._ask("take", limits, wanted)

    def peek(self, limits: Sequence[Limit], wanted: int) -> Taken:
        return self._ask("peek", limits, wanted)

    def _ask(self, mode: str, limits: Sequence[Limit], wanted: int) -> Taken:
        try:
            answer = self._admit(keys=_KEYS, args=[mode, wanted, *_arguments(limits)])
        except redis.RedisError as error:
            raise CountersUnavailable(str(error)) from error
        if answer[0] == b"stale":
            raise Stale
        binding = int(answer[3])
        return Taken(int(answer[1]), int(answer[2]) / 1e6, limits[binding - 1] if binding else None)

    def give_back(self, limits: Sequence[Limit], count: int) -> None:
        try:
            self._give_back(keys=_KEYS, args=[count, *_arguments(limits)])
        except redis.RedisError as error:
            raise CountersUnavailable(str(error)) from error

    def grant(self, cap: DailyCap, count: int) -> None:
        """Add a block that PostgreSQL has granted. Lost on the way means forfeited."""
        try:
            self._redis.hincrby(_KEYS[2], cap.key, count)
        except redis.RedisError as error:
            raise CountersUnavailable(str(error)) from error

    def rebuild(self) -> bool:
        try:
            return bool(self._rebuild(keys=_KEYS)[1])
        except redis.RedisError as error:
            raise CountersUnavailable(str(error)) from error

    def broker_was_lost(self) -> bool:
        """Whether published tasks may be gone: the mark we left is not of this server's run.

        Leaves the mark anew, so that one loss is reported once.
        """
        try:
            run_id = self._redis.info("server")["run_id"].encode()
            if self._redis.get(_PUBLISHED) == run_id:
                return False
            self._redis.set(_PUBLISHED, run_id)
        except redis.RedisError as error:
            raise CountersUnavailable(str(error)) from error
        return True


def _arguments(limits: Sequence[Limit]) -> list[str | int]:
    arguments: list[str | int] = []
    for limit in limits:
        match limit:
            case DailyCap():
                arguments += ["day", limit.key, "", ""]
            case RateLimit():
                arguments += ["rate", limit.key, limit.interval_us, limit.burst]
    return arguments
