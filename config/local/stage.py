"""A whole Postroad in a folder that goes away: for benches and for tests that kill processes.

The same programs, roles and settings as bin/start, with their own PostgreSQL, Valkey and
sandbox; nothing is restarted behind the caller's back. Needs what requirements.txt installs.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from config.local import ports, postgres, valkey
from config.local.child import TERMINATE, Child, Spec, Steps
from config.local.processes import await_true
from config.local.roles import Role

ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS = 60.0


class NotReady(RuntimeError):
    """A process did not show in time that it is ready. The message holds its last lines."""


@dataclass(slots=True)
class Stage:
    """What runs on it, by name: postgres, valkey, sandbox, and the roles that were started."""

    folder: Path
    environment: dict[str, str]
    children: dict[str, Child] = field(default_factory=dict)
    inbox: str = ""
    durable: bool = True  #: whether PostgreSQL would survive a power cut, and its caller's death

    def start(self, *wanted: Role) -> None:
        """Start roles and wait until each is ready."""
        for role in wanted:
            self.children[role.name] = Child(self._spec(role), self._log(role.name))
        for role in wanted:
            self._await_line(role.name, role.ready.what)

    def is_running(self, name: str) -> bool:
        return name in self.children and self.children[name].poll() is None

    def kill(self, *names: str) -> None:
        """End processes as the kernel does when it has no memory left: all at once, no farewell."""
        for name in names:
            self.children[name].signal(signal.SIGKILL)
        await_true(lambda: not any(self.is_running(name) for name in names), 10)

    def freeze(self, *names: str) -> None:
        for name in names:
            self.children[name].signal(signal.SIGSTOP)

    def thaw(self, *names: str) -> None:
        for name in names:
            self.children[name].signal(signal.SIGCONT)

    def drop_postgres(self) -> None:
        """Stop PostgreSQL at once (SIGQUIT): it drops every session, and recovers at its start."""
        child = self.children["postgres"]
        child.signal(signal.SIGQUIT)
        if not await_true(lambda: child.poll() is not None, 30):
            raise NotReady("postgres did not stop")

    def start_valkey(self) -> None:
        port, home = int(self.environment["STAGE_VALKEY_PORT"]), self.folder / "valkey"
        child = Child(valkey.prepare(home, port, durable=self.durable), self._log("valkey"))
        self.children["valkey"] = child
        valkey.await_ready(child, port, valkey.password_of(home))

    def start_postgres(self) -> None:
        port, home = int(self.environment["STAGE_POSTGRES_PORT"]), self.folder / "postgres"
        child = Child(postgres.prepare(home, port, durable=self.durable), self._log("postgres"))
        self.children["postgres"] = child
        postgres.await_ready(child, port, postgres.password_of(home))

    def start_sandbox(self, *options: str) -> None:
        state = self.folder / "sandbox"
        state.mkdir(exist_ok=True)
        (state / "sandbox.json").unlink(missing_ok=True)
        spec = self._python("sandbox", "sandbox", "--state-dir", str(state), *options)
        self.children["sandbox"] = Child(spec, self._log("sandbox"))
        self._await_line("sandbox", "sandbox ready")
        told = json.loads((state / "sandbox.json").read_text())
        self.inbox = told["http"]
        self.environment |= {"POSTROAD_DNS": told["dns"], "POSTROAD_SANDBOX_URL": told["http"]}

    def stop(self) -> None:
        """Stop everything, the last started first."""
        for name in reversed(list(self.children)):
            self.thaw(name)  # a frozen one would not hear
            self.children.pop(name).stop()

    def _spec(self, role: Role) -> Spec:
        stop: Steps = ((signal.SIGTERM, role.grace_seconds), (signal.SIGKILL, 5))
        return self._python(role.name, *role.command, nice=role.nice, stop=stop)

    def _python(
        self, name: str, module: str, *arguments: str, nice: int = 0, stop: Steps = TERMINATE
    ) -> Spec:
        return Spec(
            name=name,
            command=(sys.executable, "-m", module, *arguments),
            marker=module,
            folder=ROOT,
            environment=self.environment,
            nice=nice,
            stop=stop,
        )

    def _log(self, name: str) -> Path:
        return self.folder / "log" / f"{name}.log"

    def _await_line(self, name: str, line: str) -> None:
        child = self.children[name]
        if (
            not await_true(
                lambda: line in child.log_text() or child.poll() is not None, READY_SECONDS
            )
            or child.poll() is not None
        ):
            raise NotReady(f"{name} is not ready:\n{child.last_lines()}")


@contextlib.contextmanager
def stage(*sandbox_options: str, durable: bool = True, **settings: str) -> Iterator[Stage]:
    """PostgreSQL, Valkey and the sandbox, running; roles are started by the caller.

    `settings` are environment variables for all of them.
    """
    with tempfile.TemporaryDirectory(prefix="postroad-stage-") as name:
        folder = Path(name)
        # Where PostgreSQL runs as `nobody`, it must get through; each part inside is private.
        folder.chmod(0o711)
        built = Stage(folder, _environment(folder) | settings, durable=durable)
        try:
            built.start_postgres()
            built.start_valkey()
            built.environment |= {
                "DATABASE_URL": postgres.url(
                    int(built.environment["STAGE_POSTGRES_PORT"]),
                    postgres.password_of(folder / "postgres"),
                ),
                "REDIS_URL": valkey.url(
                    int(built.environment["STAGE_VALKEY_PORT"]),
                    valkey.password_of(folder / "valkey"),
                ),
            }
            built.start_sandbox(*sandbox_options)
            yield built
        finally:
            built.stop()


def _environment(folder: Path) -> dict[str, str]:
    return {
        "SECRET_KEY": "only for a stage, where nothing leaves this machine",
        "POSTROAD_VAR": str(folder / "var"),
        "POSTROAD_SANDBOX": "on",
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "REMAP_SIGTERM": "SIGQUIT",
        "PYTHONUNBUFFERED": "1",
        "STAGE_POSTGRES_PORT": str(ports.any_free()),
        "STAGE_VALKEY_PORT": str(ports.any_free()),
    }


def enter(environment: dict[str, str]) -> None:
    """Set up Django in this process against a stage, and migrate its database."""
    os.environ.update(environment)
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0, skip_checks=True)
