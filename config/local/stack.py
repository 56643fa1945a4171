"""What stands below the processes: PostgreSQL, Valkey and, unless real mail is wanted, the sandbox.

A service whose URL the environment gives is used as it is. Everything of our own lives in the
state folder, `POSTROAD_VAR`, by default `var/` in the project.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from config.local import ports, postgres, sandbox, valkey
from config.local.child import Child
from config.local.supervisor import DidNotStart, Supervisor

ROOT = Path(__file__).resolve().parent.parent.parent


class NotAnswering(RuntimeError):
    """A URL from the environment leads to no server."""


class WrongWorld(RuntimeError):
    """The state folder belongs to the sandbox and real mail was asked for, or vice versa."""


def state_folder(given: Mapping[str, str]) -> Path:
    return Path(given.get("POSTROAD_VAR") or ROOT / "var").expanduser().resolve()


def usual_port(supervisor: Supervisor, name: str) -> int:
    """The usual port of `name`, or another one; says so when somebody else has the usual one."""
    choice = ports.choose(ports.USUAL[name])
    if choice.taken is not None:
        supervisor.say(f"{name}: port {choice.taken} is taken, using {choice.port}")
    return choice.port


@dataclass(slots=True)
class Stack:
    """The services below, each started at most once."""

    supervisor: Supervisor
    given: Mapping[str, str]

    @property
    def var(self) -> Path:
        return self.supervisor.var

    def start_postgres(self) -> tuple[str, Child | None, int]:
        if given := self.given.get("DATABASE_URL"):
            if given.startswith("postgres") and not postgres.accepts(given):
                raise NotAnswering("DATABASE_URL is set, but no PostgreSQL lets us in there.")
            return given, None, 0
        home = self.var / "postgres"
        port = usual_port(self.supervisor, "postgres")
        child = self.supervisor.start(lambda: postgres.prepare(home, port))
        return postgres.url(port, postgres.password_of(home)), child, port

    def start_valkey(self) -> tuple[str, Child | None, int]:
        if given := self.given.get("REDIS_URL"):
            return given, None, 0
        home = self.var / "valkey"
        port = usual_port(self.supervisor, "valkey")
        child = self.supervisor.start(lambda: valkey.prepare(home, port))
        return valkey.url(port, valkey.password_of(home)), child, port

    def start_both(self) -> tuple[str, str]:
        """Start PostgreSQL and Valkey side by side; return their URLs once they answer."""
        redis_url, valkey_child, valkey_port = self.start_valkey()
        database_url, postgres_child, postgres_port = self.start_postgres()
        if valkey_child is not None:
            password = valkey.password_of(self.var / "valkey")
            self.supervisor.await_ready(
                valkey_child, lambda: valkey.answers(valkey_port, password), 120
            )
        if postgres_child is not None:
            password = postgres.password_of(self.var / "postgres")
            server = postgres.url(postgres_port, password, "postgres")
            # After a crash it recovers first, and that may take long.
            self.supervisor.await_ready(postgres_child, lambda: postgres.accepts(server), 600)
            postgres.ensure_database(server)
        return database_url, redis_url

    def start_sandbox(self) -> Child:
        folder = self.var / "sandbox"
        inbox, dns = (usual_port(self.supervisor, name) for name in ("inbox", "dns"))
        return self.supervisor.start(
            lambda: sandbox.prepare(folder, ROOT, inbox_port=inbox, dns_port=dns)
        )

    def await_sandbox(self, child: Child) -> sandbox.Answer:
        """Wait until it answers; say where."""
        folder = self.var / "sandbox"
        self.supervisor.await_ready(child, lambda: sandbox.read(folder) is not None, 60)
        answer = sandbox.read(folder)
        if answer is None:
            raise DidNotStart("The sandbox does not say where it answers.")
        return answer


def choose_world(var: Path, *, in_sandbox: bool) -> None:
    """Keep sandbox and real mail apart: a state folder belongs to one of them for good.

    A message that was meant for the sandbox must never go out because somebody restarted
    without it, nor real mail end in the sandbox.
    """
    mark = var / "world"
    world = "sandbox" if in_sandbox else "real"
    try:
        found = mark.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        var.mkdir(parents=True, exist_ok=True)
        mark.write_text(world + "\n", encoding="ascii")
        return
    if found != world:
        raise WrongWorld(
            f"{var} was made for {'the sandbox' if found == 'sandbox' else 'real mail'}. "
            f"Use another state folder for {'the sandbox' if in_sandbox else 'real mail'}: "
            "POSTROAD_VAR=/somewhere/else."
        )


def require_own(var: Path) -> None:
    """Files of two users in one state folder would shut both out."""
    if var.exists() and var.stat().st_uid != os.geteuid():
        raise WrongWorld(
            f"{var} belongs to user {var.stat().st_uid}: start as that user, or set POSTROAD_VAR."
        )
