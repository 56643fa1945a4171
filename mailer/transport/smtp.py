"""Real connections: TCP, greeting, EHLO, STARTTLS and AUTH, up to where mail may flow.

The only file that knows aiosmtplib, which says all that comes before the first envelope; then
`session.Session` takes the connection over. Decides how a connection is secured, and what a
failure on the way is called. Never sends a message and never tries a second host.

RFC 5321 section 3.1-3.2, RFC 3207 (STARTTLS), RFC 4954 (AUTH), RFC 7435 (opportunistic TLS).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import cast

import aiosmtplib

from deliverability.core.outcome import Phase, Reply
from mailer.core.reply_lines import reply_of
from mailer.core.smtp_commands import Abilities
from mailer.transport.door import Destination, Host, Unreached
from mailer.transport.pool import NoConnection, PooledTransport
from mailer.transport.session import Session

_IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h; not in Python's socket module before 3.14


class SmtpTransport(PooledTransport):
    """The transport to real servers. One per process, used in one event loop."""

    def __init__(self, *, connections: int = 200, ca_file: str | None = None) -> None:
        super().__init__(SmtpDialler(ca_file=ca_file), connections=connections)


class SmtpDialler:
    """Opens connections. Shares its TLS contexts: building one costs as much as 50 handshakes."""

    def __init__(self, *, ca_file: str | None = None) -> None:
        self._ca_file = ca_file  #: trusted instead of the system's authorities
        self._contexts: dict[bool, ssl.SSLContext] = {}

    async def dial(self, destination: Destination, host: Host) -> Session:
        try:
            return await self._dial(destination, host, may_use_tls=destination.tls != "none")
        except TlsFailed as error:
            # Opportunistic TLS guards against listeners only; without it, they may listen.
            may_fall_back = destination.tls == "opportunistic"
            if not may_fall_back or destination.verify_certificate:
                raise NoConnection(error.unreached) from error
        return await self._dial(destination, host, may_use_tls=False)

    async def _dial(self, destination: Destination, host: Host, *, may_use_tls: bool) -> Session:
        sock = await _connected_socket(destination, host)
        client = aiosmtplib.SMTP(
            hostname=host.name.rstrip("."),
            sock=sock,
            local_hostname=destination.helo_name,
            timeout=destination.timeouts.command_seconds,
            start_tls=False,
        )
        try:
            await _greet(client, destination, host)
            if may_use_tls:
                await self._start_tls(client, destination, host)
            await _log_in(client, destination, host)
            return _taken_over(client, destination, host)
        except BaseException:
            client.close()
            sock.close()
            raise

    async def _start_tls(
        self, client: aiosmtplib.SMTP, destination: Destination, host: Host
    ) -> None:
        if not client.supports_extension("starttls"):
            if destination.tls == "required":
                reply = Reply(0, "", "the server does not offer STARTTLS", Phase.TLS)
                raise NoConnection(Unreached(reply, host.name))
            return
        context = await self._context(destination.verify_certificate)
        try:
            with _told_as(Phase.TLS, host):
                await client.starttls(tls_context=context)
        except NoConnection as error:
            raise TlsFailed(error.unreached) from error
        with _told_as(Phase.EHLO, host):
            await client.ehlo()

    async def _context(self, is_verified: bool) -> ssl.SSLContext:
        if is_verified not in self._contexts:
            context = await asyncio.to_thread(_build_context, is_verified, self._ca_file)
            self._contexts.setdefault(is_verified, context)
        return self._contexts[is_verified]


class TlsFailed(NoConnection):
    """STARTTLS was offered and did not lead to an encrypted connection."""


def _build_context(is_verified: bool, ca_file: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    if not is_verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def _connected_socket(destination: Destination, host: Host) -> socket.socket:
    address = ipaddress.ip_address(host.address)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with _told_as(Phase.CONNECT, host):
            _bind(sock, destination)
            connecting = asyncio.get_running_loop().sock_connect(sock, (host.address, host.port))
            await asyncio.wait_for(connecting, destination.timeouts.connect_seconds)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind(sock: socket.socket, destination: Destination) -> None:
    source = destination.source_address
    if source is None:
        return
    version = 4 if sock.family == socket.AF_INET else 6
    if ipaddress.ip_address(source).version != version:
        raise OSError(f"{source} cannot connect to an IPv{version} address")
    if sys.platform == "linux":
        # Choose the port when connecting: else one source could hold 28,000 connections in all,
        # not to each destination.
        sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((source, 0))


async def _greet(client: aiosmtplib.SMTP, destination: Destination, host: Host) -> None:
    with _told_as(Phase.GREETING, host):
        await client.connect(timeout=destination.timeouts.greeting_seconds)
    with _told_as(Phase.EHLO, host):
        try:
            await client.ehlo()
        except aiosmtplib.SMTPHeloError:
            if not client.is_connected:
                raise
            await client.helo()  # RFC 5321 section 3.2: a server before ESMTP


async def _log_in(client: aiosmtplib.SMTP, destination: Destination, host: Host) -> None:
    if destination.username is None:
        return
    is_encrypted = client.get_transport_info("sslcontext") is not None
    if not is_encrypted and destination.tls != "none":
        reply = Reply(0, "", "no password is sent over an unencrypted connection", Phase.AUTH)
        raise NoConnection(Unreached(reply, host.name))
    with _told_as(Phase.AUTH, host):
        if destination.oauth_token is not None:
            token = await _fresh_token(destination.oauth_token)
            await client.auth_xoauth2(destination.username, token)
        else:
            await client.login(destination.username, destination.password or "")


async def _fresh_token(oauth_token: Callable[[], Awaitable[str]]) -> str:
    try:
        return await oauth_token()
    except Exception as error:
        raise OSError(f"no OAuth token could be had: {error!r}") from error


def _taken_over(client: aiosmtplib.SMTP, destination: Destination, host: Host) -> Session:
    """Put our own protocol in the place of aiosmtplib's, which would drop pipelined replies."""
    transport = client.transport
    if transport is None or transport.is_closing():
        reply = Reply(0, "", "the server closed the connection", Phase.EHLO)
        raise NoConnection(Unreached(reply, host.name))
    session = Session(
        host,
        Abilities.of(client.esmtp_extensions),
        destination.timeouts,
        destination.limits,
        asyncio.get_running_loop(),
    )
    session.attach(cast(asyncio.Transport, transport))
    return session


@contextmanager
def _told_as(phase: Phase, host: Host) -> Iterator[None]:
    """Turn what goes wrong inside into `NoConnection`, with the server's words where it spoke."""
    try:
        yield
    except aiosmtplib.SMTPResponseException as error:
        code = error.code if 400 <= error.code <= 599 else 0
        raise NoConnection(Unreached(reply_of(code, error.message, phase), host.name)) from error
    except TimeoutError as error:
        text = f"timed out: {error}" if str(error) else "timed out"
        raise NoConnection(Unreached(Reply(0, "", text, phase), host.name)) from error
    except (OSError, aiosmtplib.SMTPException) as error:
        raise NoConnection(Unreached(reply_of(0, str(error), phase), host.name)) from error
