"""The whole small internet in one process: binds, starts, and ends everything.

Decides nothing but the order: all ports are bound before anything is announced, and what was
received is closed last. `sandbox.json` in the state folder says where everything is; it
appears when all of it is ready, and goes when the process ends in good order.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sandbox import loopback
from sandbox.certificate import create_tls_context
from sandbox.conversation import Conversation
from sandbox.dns_server import DnsOverUdp, serve_tcp
from sandbox.http_server import HttpServer, start_http
from sandbox.inbox import Inbox
from sandbox.loopback import Endpoint, PortTaken
from sandbox.mailstore import Keeper, MailSink, MailStore
from sandbox.memory import GreylistMemory
from sandbox.providers import CATCH_ALL, PROVIDERS, Provider
from sandbox.reception import Delays, Memory, Reception
from sandbox.smtp_server import SmtpConnection, end_idle_connections
from sandbox.zone import Zone

_READY_FILE = "sandbox.json"
_PORTS_FILE = "ports.json"

_Bound = TypeVar("_Bound")


class StateDirTaken(Exception):
    """Another sandbox works in the same state folder."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What can be chosen at the start. A port of 0 means any."""

    state_dir: Path
    dns_port: int = 0
    http_port: int = 0
    smtp_port: int = 0
    http_address: str = loopback.LOCALHOST
    has_single_address: bool = False
    is_sink: bool = False
    idle_seconds: float = 300.0  #: RFC 5321 section 4.5.3.2.7
    delays: Delays = field(default_factory=Delays)


@dataclass(frozen=True, slots=True)
class Sockets:
    dns_udp: socket.socket
    dns_tcp: socket.socket
    http: socket.socket
    smtp: list[socket.socket]  #: in the order of PROVIDERS
    silent: socket.socket


def bind(settings: Settings) -> Sockets:
    """Take all ports, or raise `PortTaken`.

    Where any port would do, the last one is tried first, so that clients who remember where a
    killed sandbox was find the next one there.
    """
    has_many = not settings.has_single_address and loopback.has_many_addresses()
    last = _last_ports(settings.state_dir)

    def bind_smtp(port: int) -> list[socket.socket]:
        return loopback.bind_servers(len(PROVIDERS), port, has_many=has_many)

    def bind_http(port: int) -> socket.socket:
        return loopback.bind_tcp(settings.http_address, port)

    smtp = _bind_preferring(settings.smtp_port, last.get("smtp", 0), bind_smtp)
    http = _bind_preferring(settings.http_port, last.get("http", 0), bind_http)
    udp, tcp = _bind_preferring(settings.dns_port, last.get("dns", 0), loopback.bind_dns)
    return Sockets(udp, tcp, http, smtp, loopback.reserve_silent_port())


def _bind_preferring(asked: int, last: int, bind: Callable[[int], _Bound]) -> _Bound:
    if asked or not last:
        return bind(asked)
    try:
        return bind(last)
    except PortTaken:
        return bind(0)


def _last_ports(folder: Path) -> dict[str, int]:
    try:
        ports = json.loads((folder / _PORTS_FILE).read_text())
        return {name: int(port) for name, port in ports.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def note_ports(folder: Path, sockets: Sockets) -> None:
    """Remember the ports for the next start."""
    taken = {"smtp": sockets.smtp[0], "http": sockets.http, "dns": sockets.dns_tcp}
    ports = {name: loopback.endpoint_of(sock).port for name, sock in taken.items()}
    _write_whole(folder / _PORTS_FILE, ports)


@contextlib.contextmanager
def state_dir_held(folder: Path) -> Iterator[None]:
    """Create the state folder and keep other sandboxes out of it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(folder / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StateDirTaken(f"another sandbox works in {folder}") from error
        (folder / _READY_FILE).unlink(missing_ok=True)
        try:
            yield
        finally:
            (folder / _READY_FILE).unlink(missing_ok=True)


def describe(settings: Settings, sockets: Sockets) -> dict[str, Any]:
    """What `sandbox.json` says."""
    providers = {}
    for provider, sock in zip(PROVIDERS, sockets.smtp, strict=True):
        at = loopback.endpoint_of(sock)
        hosts = [
            {"name": host.name, "address": at.address, "port": at.port} for host in provider.hosts
        ]
        providers[provider.name] = {"hosts": hosts, "domains": list(provider.domains)}
    return {
        "pid": os.getpid(),
        "dns": str(loopback.endpoint_of(sockets.dns_tcp)),
        "http": f"http://{loopback.endpoint_of(sockets.http)}",
        "providers": providers,
    }


def announce(folder: Path, description: Mapping[str, Any]) -> None:
    """Write `sandbox.json`: everything it names can be used now."""
    _write_whole(folder / _READY_FILE, description)


def _write_whole(path: Path, value: Mapping[str, Any]) -> None:
    """Replace the file at once, so that a reader sees all of it or nothing."""
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(value, indent=2) + "\n")
    draft.replace(path)


@contextlib.asynccontextmanager
async def running(settings: Settings, sockets: Sockets) -> AsyncIterator[None]:
    """Serve as long as the context lasts."""
    endpoints = {
        provider.name: loopback.endpoint_of(sock)
        for provider, sock in zip(PROVIDERS, sockets.smtp, strict=True)
    }
    memory = Memory(GreylistMemory(settings.delays.greylist_seconds))
    keeper: Keeper = MailSink() if settings.is_sink else MailStore(settings.state_dir)
    connections: set[SmtpConnection] = set()
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(keeper.close)
        await _start_dns(stack, sockets, _zone(endpoints, loopback.endpoint_of(sockets.silent)))
        await _start_smtp(stack, settings, sockets, keeper, memory, connections)
        await _start_inbox(stack, settings, sockets, keeper, memory)
        idle = asyncio.create_task(end_idle_connections(connections, settings.idle_seconds))
        stack.callback(idle.cancel)
        try:
            yield
        finally:
            await _take_leave(connections)


def _zone(endpoints: Mapping[str, Endpoint], unreachable: Endpoint) -> Zone:
    return Zone(PROVIDERS, endpoints, unreachable=unreachable, catch_all=CATCH_ALL)


async def _start_dns(stack: contextlib.AsyncExitStack, sockets: Sockets, zone: Zone) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: DnsOverUdp(zone), sock=sockets.dns_udp
    )
    stack.callback(transport.close)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve_tcp(zone, reader, writer)

    server = await asyncio.start_server(serve, sock=sockets.dns_tcp)
    stack.callback(server.close)


async def _start_smtp(
    stack: contextlib.AsyncExitStack,
    settings: Settings,
    sockets: Sockets,
    keeper: Keeper,
    memory: Memory,
    connections: set[SmtpConnection],
) -> None:
    names = [host.name for provider in PROVIDERS for host in provider.hosts]
    tls_context = create_tls_context(names, settings.state_dir)

    async def start(provider: Provider, sock: socket.socket) -> None:
        reception = Reception(provider, memory, settings.delays)
        host = provider.hosts[0].name

        def begin(peer: str, now: float) -> Conversation:
            return Conversation(reception, host=host, peer=peer, now=now)

        server = await asyncio.get_running_loop().create_server(
            lambda: SmtpConnection(begin, keeper, tls_context, connections), sock=sock
        )
        stack.callback(server.close)

    for provider, sock in zip(PROVIDERS, sockets.smtp, strict=True):
        await start(provider, sock)


async def _start_inbox(
    stack: contextlib.AsyncExitStack,
    settings: Settings,
    sockets: Sockets,
    keeper: Keeper,
    memory: Memory,
) -> None:
    loop = asyncio.get_running_loop()

    def clear_on_loop(done: threading.Event) -> None:
        keeper.clear()
        memory.forget_all()
        done.set()

    def clear() -> None:
        # On the loop, where the servers append, so that the two never overlap.
        done = threading.Event()
        loop.call_soon_threadsafe(clear_on_loop, done)
        done.wait()

    inbox = Inbox(keeper, PROVIDERS, clear)
    server = HttpServer(inbox.respond, is_on_loopback=settings.http_address.startswith("127."))
    stack.callback((await start_http(server, sockets.http)).close)


async def _take_leave(connections: set[SmtpConnection]) -> None:
    """Say 421 to every client, and give what was written a moment to go out."""
    for connection in list(connections):
        connection.shut_down()
    for _ in range(10):
        if not connections:
            return
        await asyncio.sleep(0.02)
