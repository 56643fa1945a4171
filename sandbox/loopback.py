"""Finding addresses and ports on loopback.

Where the whole of 127.0.0.0/8 can be bound (Linux), each provider gets an address of its own
and all share one port. Where only 127.0.0.1 exists (macOS), each gets a port of its own.
Which of the two it is, is found out by trying. A port that was asked for is taken or refused,
never replaced.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from dataclasses import dataclass

LOCALHOST = "127.0.0.1"
_TRIES = 50


class PortTaken(Exception):
    """A port that was asked for, or any at all, cannot be had."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


def endpoint_of(sock: socket.socket) -> Endpoint:
    address, port = sock.getsockname()[:2]
    return Endpoint(address, port)


def has_many_addresses() -> bool:
    """Whether addresses other than 127.0.0.1 can be bound."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.10.1", 0))
        except OSError:
            return False
    return True


def bind_tcp(address: str, port: int) -> socket.socket:
    """A listening socket, exactly there; port 0 means any."""
    if port > 65535:
        raise PortTaken(f"cannot listen on {address}:{port}: there is no such port")
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(1024)
    except OSError as error:
        sock.close()
        raise PortTaken(f"cannot listen on {address}:{port}: {error.strerror}") from error
    sock.setblocking(False)
    return sock


def bind_servers(count: int, port: int, *, has_many: bool) -> list[socket.socket]:
    """Listening sockets for that many providers.

    With many addresses: 127.0.10.1, 127.0.10.2, … on one port. With one: consecutive ports.
    """
    for tries_left in reversed(range(_TRIES)):
        first = bind_tcp(*_place(0, port, has_many=has_many))
        chosen = endpoint_of(first).port
        try:
            rest = [_place(i, chosen, has_many=has_many) for i in range(1, count)]
            return [first, *_bind_all(rest)]
        except PortTaken:
            first.close()
            if port or not tries_left:
                raise
    raise AssertionError("unreachable")


def _place(number: int, port: int, *, has_many: bool) -> tuple[str, int]:
    return (f"127.0.10.{number + 1}", port) if has_many else (LOCALHOST, port + number)


def _bind_all(places: Sequence[tuple[str, int]]) -> list[socket.socket]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(bind_tcp(*place)) for place in places]
        stack.pop_all()
    return sockets


def bind_dns(port: int) -> tuple[socket.socket, socket.socket]:
    """UDP and TCP sockets on the same port of 127.0.0.1."""
    for tries_left in reversed(range(_TRIES)):
        tcp = bind_tcp(LOCALHOST, port)
        chosen = endpoint_of(tcp).port
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            udp.bind((LOCALHOST, chosen))
        except OSError as error:
            udp.close()
            tcp.close()
            if port or not tries_left:
                message = f"cannot listen on {LOCALHOST}:{chosen} (UDP): {error.strerror}"
                raise PortTaken(message) from error
            continue
        udp.setblocking(False)
        return udp, tcp
    raise AssertionError("unreachable")


def reserve_silent_port() -> socket.socket:
    """A port on which nothing listens, kept free of others as long as the socket is open."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.bind((LOCALHOST, 0))
    return sock
