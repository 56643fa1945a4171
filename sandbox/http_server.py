"""Just enough HTTP/1.1 for the inbox: requests in, responses out, one at a time.

Knows nothing of mail. Each request is answered in a thread, so that a slow question holds up
no SMTP client. Requests whose Host is a name other than localhost are refused while the
server listens on loopback, so that no web page can read the inbox by DNS rebinding, and so
are POSTs that come from another site's page.

RFC 9112; bodies only with Content-Length.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

_HEAD_AT_MOST_BYTES = 32 * 1024
_BODY_AT_MOST_BYTES = 1 << 20
_IDLE_SECONDS = 60
_FOR_ALL = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]  #: names in lower case


@dataclass(frozen=True, slots=True)
class Response:
    body: bytes
    content_type: str = "text/html; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)


class BadRequest(ValueError):
    """What was sent is not HTTP as we speak it, or not a question we know."""


def json_response(value: Any, status: HTTPStatus = HTTPStatus.OK, **headers: str) -> Response:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Response(json.dumps(value).encode(), "application/json", status, named)


def failure(status: HTTPStatus, why: str) -> Response:
    return json_response({"error": why}, status)


def parse_request(head: bytes) -> Request:
    """Read the request line and the header fields."""
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise BadRequest("not an HTTP/1.1 request")
    headers = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon:
            if line:
                raise BadRequest("malformed header field")
            continue
        headers[name.strip().lower()] = value.strip()
    target = urlsplit(words[1])
    query = dict(parse_qsl(target.query))
    return Request(words[0], unquote(target.path), query, headers)


def is_local_request(request: Request) -> bool:
    """It was addressed to this machine, and not by another site's page."""
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    if host != "localhost":
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host", "")


class HttpServer:
    """Serves one handler."""

    def __init__(self, handle: Callable[[Request], Response], *, is_on_loopback: bool) -> None:
        self._handle = handle
        self._is_on_loopback = is_on_loopback

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        with contextlib.suppress(
            asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, TimeoutError
        ):
            while await self._serve_one(reader, writer):
                pass
        writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        async with asyncio.timeout(_IDLE_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
            try:
                request = parse_request(head[:-4])
                length = int(request.headers.get("content-length", "0"))
                if not 0 <= length <= _BODY_AT_MOST_BYTES:
                    raise BadRequest("body too big")
            except ValueError as error:
                writer.write(_head_of(failure(HTTPStatus.BAD_REQUEST, str(error)), False, True))
                return False
            await reader.readexactly(length)
        response = await self._respond(request)
        is_last = request.headers.get("connection", "").lower() == "close"
        writer.write(_head_of(response, request.method == "HEAD", is_last))
        await writer.drain()
        return not is_last

    async def _respond(self, request: Request) -> Response:
        if self._is_on_loopback and not is_local_request(request):
            return failure(HTTPStatus.FORBIDDEN, "ask for 127.0.0.1 or localhost")
        if request.method not in ("GET", "HEAD", "POST"):
            return failure(HTTPStatus.METHOD_NOT_ALLOWED, "GET, HEAD or POST")
        try:
            return await asyncio.to_thread(self._handle, request)
        except BadRequest as error:
            return failure(HTTPStatus.BAD_REQUEST, str(error))


def _head_of(response: Response, is_head: bool, is_last: bool) -> bytes:
    """The whole response as bytes; without its body for HEAD."""
    status = response.status
    headers = {
        "Content-Type": response.content_type,
        "Content-Length": str(len(response.body)),
        "Connection": "close" if is_last else "keep-alive",
        **_FOR_ALL,
        **response.headers,
    }
    lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n"
    return head if is_head else head + response.body


async def start_http(server: HttpServer, sock: Any) -> asyncio.Server:
    return await asyncio.start_server(server.serve, sock=sock, limit=_HEAD_AT_MOST_BYTES)
