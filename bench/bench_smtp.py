"""What sending a message costs: CPU microseconds of the client, over loopback.

    python -m bench.bench_smtp --messages 20000 --json

Sends 28 KB messages over 20 warm connections to a small server in another process: with the
mailer's transport (pipelined and plain, on both event loops), and with aiosmtplib's own sendmail
in the same run for comparison. CPU time is the client process's own; connecting is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import aiosmtplib
import uvloop

from mailer.core.envelope import Envelope
from mailer.transport.door import Destination, Host, Limits, Replied, Result
from mailer.transport.smtp import SmtpTransport

CONNECTIONS = 20
PASSES = 3
CONTENT = b"Subject: bench\r\n\r\n" + (b"x" * 74 + b"=\r\n") * 363


ENVELOPE = Envelope(1, 1, "b@sender.test", "r@recipient.test", CONTENT, is_dot_safe=True)


@dataclass
class CountingFeed:
    """Hands out the same envelope again and again; counts what was accepted."""

    left: int
    accepted: int = 0

    def next(self) -> Envelope | None:
        if self.left == 0:
            return None
        self.left -= 1
        return ENVELOPE

    def starting(self, envelope: Envelope) -> None:
        pass

    def settle(self, envelope: Envelope, result: Result) -> None:
        self.accepted += isinstance(result, Replied) and result.reply.code == 250


class FastServer(asyncio.Protocol):
    """Accepts everything, with the least work."""

    transport: asyncio.Transport
    offers = b"250-bench\r\n250-PIPELINING\r\n250 8BITMIME\r\n"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.buffer = bytearray()
        self.in_content = False
        self.transport.write(b"220 bench\r\n")

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        output: list[bytes] = []
        while self.step(output):
            pass
        if output:
            self.transport.write(b"".join(output))

    def step(self, output: list[bytes]) -> bool:
        mark = b"\r\n.\r\n" if self.in_content else b"\r\n"
        end = self.buffer.find(mark)
        if end < 0:
            return False
        verb = b"." if self.in_content else bytes(self.buffer[:4]).upper()
        del self.buffer[: end + len(mark)]
        self.in_content = verb == b"DATA"
        ok = b"250 2.0.0 Ok: queued as 4F1B2C3D\r\n"
        others = {b"DATA": b"354 Go\r\n", b"EHLO": self.offers, b"QUIT": b"221 Bye\r\n"}
        output.append(others.get(verb, ok))
        return True


class PlainServer(FastServer):
    offers = b"250-bench\r\n250 8BITMIME\r\n"


async def serve() -> None:
    """Serve both kinds until standard input ends; print the ports."""
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(kind, "127.0.0.1", 0) for kind in (FastServer, PlainServer)]
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


@contextmanager
def servers() -> Iterator[tuple[int, int]]:
    command = [sys.executable, "-m", "bench.bench_smtp", "--serve"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        fast, plain = process.stdout.readline().split()
        yield int(fast), int(plain)
        process.communicate()


Figures = tuple[float, float]  # CPU µs and wall µs for each message
Work = Callable[[int, int], Coroutine[None, None, Figures]]
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


async def by_transport(port: int, messages: int) -> Figures:
    transport = SmtpTransport()
    destination = Destination(
        "bench",
        (Host("bench.test", "127.0.0.1", port),),
        "client.test",
        tls="none",
        limits=Limits(connections=CONNECTIONS, messages_per_connection=10**9),
    )
    await transport.send(destination, CountingFeed(CONNECTIONS * 5), CONNECTIONS)
    feed = CountingFeed(messages)
    figures = await measured(lambda: transport.send(destination, feed, CONNECTIONS), messages)
    assert feed.accepted == messages
    await transport.close(1.0)
    return figures


async def by_sendmail(port: int, messages: int) -> Figures:
    """The same with aiosmtplib alone, one task for each connection."""
    clients = [
        aiosmtplib.SMTP(
            hostname="127.0.0.1", port=port, local_hostname="client.test", start_tls=False
        )
        for _ in range(CONNECTIONS)
    ]
    for client in clients:
        await client.connect()

    async def worker(client: aiosmtplib.SMTP) -> None:
        for _ in range(messages // CONNECTIONS):
            await client.sendmail("b@sender.test", ["r@recipient.test"], CONTENT)

    whole = messages // CONNECTIONS * CONNECTIONS
    figures = await measured(lambda: asyncio.gather(*map(worker, clients)), whole)
    for client in clients:
        await client.quit()
    return figures


async def measured(work: Callable[[], Awaitable[object]], messages: int) -> Figures:
    cpu, wall = time.process_time(), time.perf_counter()
    await work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return cpu / messages * 1e6, wall / messages * 1e6


def variants(fast: int, plain: int) -> Iterator[tuple[str, str, Callable[[int], Figures]]]:
    loops: dict[str, LoopFactory] = {
        "uvloop": uvloop.new_event_loop,
        "asyncio": asyncio.new_event_loop,
    }
    works: dict[str, tuple[Work, int]] = {
        "pipelined": (by_transport, fast),
        "plain": (by_transport, plain),
        "aiosmtplib.sendmail": (by_sendmail, fast),
    }
    for loop_name, factory in loops.items():
        for name, (work, port) in works.items():
            yield name, loop_name, functools.partial(run_on, factory, work, port)


def run_on(factory: LoopFactory, work: Work, port: int, messages: int) -> Figures:
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work(port, messages))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--messages", type=int, default=20_000, help="for each pass and variant")
    parser.add_argument("--json", action="store_true", help="one JSON line for each variant")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())
        return
    with servers() as (fast, plain):
        for name, loop_name, run in variants(fast, plain):
            # sendmail is some twenty times slower; a tenth of the messages measures it as well.
            messages = options.messages // 10 if name == "aiosmtplib.sendmail" else options.messages
            passes = [run(messages) for _ in range(PASSES)]
            report(name, loop_name, passes, as_json=options.json)


def report(name: str, loop_name: str, passes: list[Figures], *, as_json: bool) -> None:
    cpu_us = statistics.median(cpu for cpu, _ in passes)
    per_second = 1e6 / statistics.median(wall for _, wall in passes)
    figures = {
        "bench": "smtp",
        "variant": name,
        "loop": loop_name,
        "content_bytes": len(CONTENT),
        "cpu_us_per_message": round(cpu_us, 1),
        "messages_per_second": round(per_second),
    }
    if as_json:
        print(json.dumps(figures), flush=True)
    else:
        print(f"{name:20} {loop_name:8} {cpu_us:8.1f} µs  {per_second:8.0f} messages/s", flush=True)


if __name__ == "__main__":
    main()
