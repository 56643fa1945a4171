"""Which port a server gets: its usual one when free, else whatever the system offers."""

from __future__ import annotations

import socket
from dataclasses import dataclass

LOOPBACK = "127.0.0.1"
USUAL = {
    "web": 8000,
    "flower": 5555,
    "inbox": 8025,
    "dns": 8053,
    "postgres": 54320,
    "valkey": 63790,
}


@dataclass(frozen=True, slots=True)
class Choice:
    port: int
    taken: int | None = None  #: the usual port, when somebody else has it


def is_free(port: int) -> bool:
    """Say whether a server could listen there, by TCP and by UDP."""
    return all(_binds(kind, port) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM))


def _binds(kind: socket.SocketKind, port: int) -> bool:
    with socket.socket(socket.AF_INET, kind) as probe:
        if kind is socket.SOCK_STREAM:
            # As servers do: a connection that lingers after a close is no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            if kind is socket.SOCK_STREAM:
                probe.listen(1)
        except OSError:
            return False
        return True


def any_free() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def choose(usual: int) -> Choice:
    """Take `usual` when it is free, another one when not."""
    return Choice(usual) if is_free(usual) else Choice(any_free(), taken=usual)
