"""bin/start: everything on one machine, in one terminal, until Ctrl-C.

The order: database, broker and sandbox; migrations; the first user; the processes; the first
campaign. Progress goes to stderr. With --exit-when-done the campaign's account is the last line
of stdout, and everything was stopped in order before it is printed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from config.local import ports, roles
from config.local.child import Child, Spec
from config.local.demo import Demo, last_object
from config.local.environment import FLOWER_USER, Addresses, Secrets, build_environment
from config.local.leftovers import remove_data, stop_running
from config.local.progress import Screen
from config.local.roles import Listen, Role, Sign
from config.local.secret import write_private
from config.local.stack import ROOT, Stack, choose_world, require_own, state_folder, usual_port
from config.local.state import AlreadyRuns, end_orphans, lock, read_state
from config.local.supervisor import Stopped, Supervisor

MIGRATE_SECONDS = 600.0
INTERRUPTED = 130  #: as a shell reports a command ended by Ctrl-C


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bin/start", description="Run Postroad on this machine; Ctrl-C stops it in order."
    )
    parser.add_argument(
        "--exit-when-done",
        action="store_true",
        help="send the first campaign, stop everything, print its account as JSON, and exit",
    )
    demo = parser.add_mutually_exclusive_group()
    demo.add_argument("--demo", action="store_true", help="send a first campaign once more")
    demo.add_argument("--no-demo", action="store_true", help="send nothing")
    parser.add_argument("--recipients", type=int, default=2000, metavar="N", help="default 2000")
    parser.add_argument(
        "--settle-within",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="how long the campaign may take (default 600)",
    )
    parser.add_argument(
        "--no-sandbox",
        action="store_true",
        help="send REAL mail from this machine; wants a state folder of its own (POSTROAD_VAR)",
    )
    parser.add_argument("--web-port", type=int, metavar="PORT", help="default 8000")
    parser.add_argument(
        "--fresh", action="store_true", help="first delete everything that the sandbox has kept"
    )
    parser.add_argument("--stop", action="store_true", help="stop what runs here, and exit")
    options = parser.parse_args(arguments)
    if not 1 <= options.recipients <= 1_000_000:
        parser.error("--recipients lies between 1 and 1,000,000")
    if options.web_port is not None and not 1 <= options.web_port <= 65_535:
        parser.error("--web-port lies between 1 and 65535")
    if options.no_sandbox and (options.demo or options.exit_when_done or options.fresh):
        parser.error("--no-sandbox sends real mail: no demo, no --fresh")
    if options.exit_when_done and options.no_demo:
        parser.error("--exit-when-done needs the demo")
    return options


@dataclass(slots=True)
class Run:
    """One run of bin/start, from the first process to the last."""

    options: argparse.Namespace
    var: Path
    screen: Screen
    supervisor: Supervisor
    environment: dict[str, str]
    listen: Listen = field(default_factory=Listen)
    sandbox_url: str = ""
    admin: str = ""  #: how to log in, at the first start only

    def bring_up(self) -> None:
        """Start everything and wait until each part answers."""
        self._start_below()
        self._migrate()
        self._start_processes()

    def _start_below(self) -> None:
        stack = Stack(self.supervisor, os.environ)
        self.listen = Listen(web_port=self._web_port(), flower_port=self._port("flower"))
        sandbox_child = None
        if not self.options.no_sandbox:
            sandbox_child = stack.start_sandbox()
        database_url, redis_url = stack.start_both()
        answer = stack.await_sandbox(sandbox_child) if sandbox_child else None
        self.sandbox_url = answer.inbox_url if answer else ""
        addresses = Addresses(
            database_url=database_url,
            redis_url=redis_url,
            web_url=f"http://127.0.0.1:{self.listen.web_port}",
            flower_url=f"http://127.0.0.1:{self.listen.flower_port}",
            dns=answer.dns if answer else None,
            sandbox_url=answer.inbox_url if answer else None,
        )
        secrets = Secrets.kept_in(self.var / "secrets")
        self.environment.update(build_environment(os.environ, addresses, secrets, self.var))
        write_private(self.var / "run" / "environment.json", json.dumps(self.environment) + "\n")
        self.screen.step("database, queue" + (" and sandbox are up" if answer else " are up"))

    def _port(self, name: str) -> int:
        return usual_port(self.supervisor, name)

    def _web_port(self) -> int:
        wanted = self.options.web_port
        if wanted is None:
            return self._port("web")
        if not ports.is_free(wanted):
            raise RuntimeError(f"Port {wanted} is taken. Choose another with --web-port.")
        return int(wanted)

    def manage(self, name: str, *arguments: str) -> Spec:
        """How to run a management command in this environment."""
        return Spec(
            name=name,
            command=(sys.executable, str(ROOT / "manage.py"), name, *arguments),
            marker="manage.py",
            folder=ROOT,
            environment={**self.environment, "POSTROAD_ROLE": name},
        )

    def _migrate(self) -> None:
        self.supervisor.run(self.manage("migrate", "--noinput"), MIGRATE_SECONDS)
        first_user = self.supervisor.run(self.manage("bootstrap", "--json"), MIGRATE_SECONDS)
        answer = last_object(first_user.log_text()) or {}
        first_user.log.unlink()  # it holds the password
        if answer.get("password"):
            # Shown once, and kept where only this user reads it: a terminal scrolls away.
            self.admin = f"user {answer['username']}, password {answer['password']}"
            write_private(self.var / "secrets" / "admin", self.admin + "\n")
        self.screen.step("the database has its tables")

    def _start_processes(self) -> None:
        deliverers = roles.delivery_processes(os.environ)
        started = [
            (role, self.supervisor.start(partial(self._spec, role)))
            for role in roles.all_roles(self.listen, deliverers)
        ]
        for role, child in started:
            self.supervisor.await_ready(
                child, partial(self._is_ready, role, child), role.ready.seconds
            )
        self.screen.step(
            f"{len(started)} processes are ready: {', '.join(r.name for r, _ in started)}"
        )

    def _spec(self, role: Role) -> Spec:
        return Spec(
            name=role.name,
            command=(sys.executable, "-m", *role.command),
            marker=role.command[0],
            folder=ROOT,
            environment={**self.environment, "POSTROAD_ROLE": role.name},
            nice=role.nice,
            stop=((signal.SIGTERM, role.grace_seconds), (signal.SIGKILL, 5)),
        )

    def _is_ready(self, role: Role, child: Child) -> bool:
        if role.ready.sign is Sign.LOG:
            return role.ready.what in child.log_text()
        port = self.listen.web_port if role.name == "web" else self.listen.flower_port
        return answers(f"http://127.0.0.1:{port}{role.ready.what}")

    def demo(self) -> dict[str, Any]:
        demo = Demo(self.supervisor, self.screen, self.manage, self.sandbox_url)
        account = demo.run(self.options.recipients, self.options.settle_within)
        (self.var / "demo-done").touch()
        return account

    def wants_demo(self) -> bool:
        """The first campaign goes out once; afterwards only when asked for."""
        if self.options.no_demo or self.options.no_sandbox:
            return False
        asked = self.options.demo or self.options.exit_when_done
        return asked or not (self.var / "demo-done").exists()

    def announce(self) -> None:
        """Say where everything is, and how to get in."""
        web, flower = (self.environment[n] for n in ("POSTROAD_PUBLIC_URL", "POSTROAD_FLOWER_URL"))
        self.supervisor.addresses = {"admin": f"{web}/admin/", "flower": flower}
        if self.sandbox_url:
            self.supervisor.addresses["sandbox inbox"] = self.sandbox_url
        self.supervisor.write_state()
        for line in address_lines(self.var, self.supervisor.addresses, self.admin):
            self.screen.say(line)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2) as answer:
            return bool(200 <= answer.status < 400)
    except (urllib.error.URLError, OSError):
        return False


def address_lines(var: Path, addresses: dict[str, str], admin: str = "") -> list[str]:
    """The addresses, each with the way in."""
    flower_password = var / "secrets" / "flower-password"
    ways_in = {
        "admin": admin or f"first user's password: {var / 'secrets' / 'admin'}",
        "flower": f"user {FLOWER_USER}, password: {flower_password}",
    }
    if admin and not os.environ.get("FLOWER_BASIC_AUTH"):
        password = flower_password.read_text(encoding="ascii").strip()
        ways_in["flower"] = f"user {FLOWER_USER}, password {password}"
    rows = [(name, at, ways_in.get(name, "")) for name, at in addresses.items()]
    lines = [f"  {name:<14} {at}   {way_in}".rstrip() for name, at, way_in in rows]
    return ["", *lines, f"  {'logs':<14} {var / 'log'}", ""]


def run(options: argparse.Namespace, var: Path, screen: Screen) -> tuple[int, str]:
    """Start, stay, stop. Returns the exit code and what belongs on stdout."""
    end_orphans(var, screen.say)
    if options.fresh:
        remove_data(var, os.environ, screen.say)
    choose_world(var, in_sandbox=not options.no_sandbox)
    supervisor = Supervisor(var, screen.say)
    current = Run(options, var, screen, supervisor, environment={})
    account: dict[str, Any] | None = None
    code = 0
    with supervisor.signals():
        try:
            current.bring_up()
            if not options.exit_when_done:
                current.announce()
            if current.wants_demo():
                account = demo_or_reason(current)
            if not options.exit_when_done:
                screen.say("Postroad runs. Ctrl-C stops it in order.")
                supervisor.until(lambda: False, math.inf)
        except Stopped:
            code = INTERRUPTED if options.exit_when_done else 0
        finally:
            screen.say("Stopping …")
            supervisor.stop_all()
            screen.step("stopped")
    text = json.dumps(account) if options.exit_when_done and account else ""
    return code, text


def demo_or_reason(current: Run) -> dict[str, Any] | None:
    """Send the first campaign. Where a person watches, its failure is no reason to stop."""
    try:
        account = current.demo()
    except (RuntimeError, OSError, KeyError, ValueError) as error:
        if current.options.exit_when_done:
            raise
        current.screen.say(f"The first campaign did not come to its end: {error}")
        return None
    if not current.options.exit_when_done:
        current.screen.say(json.dumps(account, indent=2))
    return account


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    screen = Screen()
    var = state_folder(os.environ)
    try:
        require_own(var)
        if options.stop:
            stop_running(var, screen.say)
            return 0
        with lock(var):
            code, text = run(options, var, screen)
    except AlreadyRuns:
        screen.say("Postroad already runs here:")
        for line in address_lines(var, dict(read_state(var).get("addresses", {}))):
            screen.say(line)
        screen.say("bin/start --stop stops it.")
        return 1
    except (RuntimeError, OSError, ValueError) as error:
        screen.say(f"bin/start: {error}")
        return 1
    if text:
        print(text, flush=True)
    return code


if __name__ == "__main__":
    os.umask(0o077)  # what is kept is people's data
    sys.exit(main(sys.argv[1:]))
