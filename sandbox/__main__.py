"""Start the sandbox: `python -m sandbox --state-dir DIR`.

Prints one line when everything is ready; SIGTERM or SIGINT ends it. Exit status 1 and one
line on standard error say that it could not start.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from sandbox import network
from sandbox.loopback import PortTaken
from sandbox.network import Settings, StateDirTaken
from sandbox.reception import Delays


def parse_arguments(arguments: list[str]) -> Settings:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sandbox", description="A small internet on loopback: DNS, mail, an inbox."
    )
    add = parser.add_argument
    add("--state-dir", type=Path, required=True, help="folder for mail and sandbox.json")
    add("--dns-port", type=_port, default=0, help="0 means any (as for the other ports)")
    add("--http-port", type=_port, default=0)
    add("--smtp-port", type=_port, default=0, help="one port for all providers, or the first")
    add("--http-address", default="127.0.0.1", help="where the inbox listens")
    add("--single-address", action="store_true", help="all providers on 127.0.0.1")
    add("--sink", action="store_true", help="count messages, find duplicates, keep nothing")
    seconds = Delays()
    add(
        "--greylist-seconds",
        type=_seconds,
        default=seconds.greylist_seconds,
        help="how long greylisting refuses (default: %(default)s)",
    )
    add(
        "--slow-seconds",
        type=_seconds,
        default=seconds.slow_seconds,
        help="before the final reply to slow@ (default: %(default)s)",
    )
    add(
        "--slow-host-seconds",
        type=_seconds,
        default=seconds.slow_host_seconds,
        help="before each reply of slow.example (default: %(default)s)",
    )
    add("--idle-seconds", type=_seconds, default=300.0, help="until a silent client is sent away")
    chosen = parser.parse_args(arguments)
    return Settings(
        state_dir=chosen.state_dir,
        dns_port=chosen.dns_port,
        http_port=chosen.http_port,
        smtp_port=chosen.smtp_port,
        http_address=chosen.http_address,
        has_single_address=chosen.single_address,
        is_sink=chosen.sink,
        idle_seconds=chosen.idle_seconds,
        delays=Delays(chosen.greylist_seconds, chosen.slow_host_seconds, chosen.slow_seconds),
    )


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise ValueError(text)
    return port


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= 86400:
        raise ValueError(text)
    return seconds


async def run(settings: Settings, sockets: network.Sockets) -> None:
    """Serve until a signal comes."""
    has_ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, has_ended.set)
    async with network.running(settings, sockets):
        description = network.describe(settings, sockets)
        network.note_ports(settings.state_dir, sockets)
        network.announce(settings.state_dir, description)
        print(f"sandbox ready: inbox {description['http']}, DNS {description['dns']}", flush=True)
        await has_ended.wait()


def main(arguments: list[str]) -> int:
    settings = parse_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    # Index and inbox threads give way to the servers sooner than after the usual 5 ms.
    sys.setswitchinterval(0.001)
    gc.freeze()
    try:
        with network.state_dir_held(settings.state_dir):
            sockets = network.bind(settings)
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(run(settings, sockets))
    except (PortTaken, StateDirTaken, OSError) as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return 1
    return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # A thread that still answers a question must not hold up the end.
    os._exit(status)
