"""Kombu's Redis transport, made to survive the loss of its server.

A channel whose connection was given up builds a new client when a task that ran meanwhile is
acknowledged or put back, and fails with an AttributeError, which Celery takes for a fault of its
own: the worker ends. Here it is what it is, a connection error, which all callers know.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import redis


class Channel(redis.Channel):
    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        if self.connection.client is None:
            raise ConnectionError("the connection of this channel was given up")
        found: dict[str, Any] = super()._connparams(asynchronous)
        return found


class Transport(redis.Transport):
    Channel = Channel
