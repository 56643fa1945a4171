"""A Valkey (or Redis) of our own: on loopback, behind a password, its queue kept on disk.

What is lost here is published again from PostgreSQL, so one second of writes may go.
"""

from __future__ import annotations

import signal
import socket
from pathlib import Path

from config.local.binaries import find_valkey
from config.local.child import Child, Spec
from config.local.ports import LOOPBACK
from config.local.processes import await_true
from config.local.secret import kept_secret, write_private

#: SIGTERM writes what is pending and ends.
STOP = ((signal.SIGTERM, 15.0), (signal.SIGKILL, 5.0))


class CannotStart(RuntimeError):
    """The message says why."""


def url(port: int, password: str) -> str:
    return f"redis://:{password}@{LOOPBACK}:{port}/0"


def password_of(home: Path) -> str:
    return kept_secret(home / "password")


def configuration(folder: Path, port: int, password: str) -> str:
    """The server's configuration file. A file, because a command line can be read by all."""
    return "\n".join(
        [
            f"bind {LOOPBACK}",
            f"port {port}",
            f"requirepass {password}",
            f'dir "{folder}"',
            "daemonize no",
            "databases 64",  # one for each test worker
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            "maxmemory-policy noeviction",  # a queue must refuse, never forget
            "tcp-keepalive 60",
            "",
        ]
    )


def prepare(home: Path, port: int, *, durable: bool = True) -> Spec:
    """Make everything ready to run a server in `home`, and say how to run it."""
    program = find_valkey()
    folder = home / "data"
    folder.mkdir(parents=True, exist_ok=True)
    write_private(home / "valkey.conf", configuration(folder, port, password_of(home)))
    return Spec(
        name="valkey",
        command=(str(program), str(home / "valkey.conf")),
        marker=program.name,
        folder=folder,
        stop=STOP,
        # As for PostgreSQL: it outlives a killed supervisor until the workers are done.
        death_signal=None if durable else signal.SIGTERM,
    )


def answers(port: int, password: str) -> bool:
    """Ask with the password. While its data loads the server refuses, and is not ready."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=2) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode("ascii"))
            with connection.makefile("rb") as replies:
                return replies.readline() == b"+OK\r\n" and replies.readline() == b"+PONG\r\n"
    except OSError:
        return False


def await_ready(child: Child, port: int, password: str, seconds: float = 60) -> None:
    ready = await_true(lambda: child.poll() is not None or answers(port, password), seconds)
    if not ready or child.poll() is not None:
        raise CannotStart(f"Valkey did not start:\n{child.last_lines()}")
