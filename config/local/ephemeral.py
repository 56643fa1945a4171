"""PostgreSQL and Valkey for one run of the tests: in a folder that goes away with it.

A service whose URL the environment gives is used as it is, and none is started for it.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from config.local import ports, postgres, valkey
from config.local.child import Child
from config.local.running_user import Mode


@contextlib.contextmanager
def running_postgres(folder: Path, *, mode: Mode | None = None) -> Iterator[tuple[Child, str]]:
    port = ports.any_free()
    spec = postgres.prepare(folder / "postgres", port, durable=False, mode=mode)
    child = Child(spec, folder / "postgres.log")
    try:
        password = postgres.password_of(folder / "postgres")
        postgres.await_ready(child, port, password)
        yield child, postgres.url(port, password)
    finally:
        child.stop()


@contextlib.contextmanager
def running_valkey(folder: Path) -> Iterator[tuple[Child, str]]:
    port = ports.any_free()
    spec = valkey.prepare(folder / "valkey", port, durable=False)
    child = Child(spec, folder / "valkey.log")
    try:
        password = valkey.password_of(folder / "valkey")
        valkey.await_ready(child, port, password)
        yield child, valkey.url(port, password)
    finally:
        child.stop()


@contextlib.contextmanager
def test_environment(given: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Yield the variables that the tests need on top of `given`; stop everything afterwards."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="postroad-test-")))
        # Where PostgreSQL runs as `nobody`, it must get through; each part inside is private.
        folder.chmod(0o711)
        found = {
            "SECRET_KEY": "only for tests, where nothing leaves this machine",
            "POSTROAD_VAR": str(folder / "var"),
            # The tests' mail servers are on this machine.
            "POSTROAD_PRIVATE_NETWORKS": "on",
        }
        if not given.get("DATABASE_URL"):
            found["DATABASE_URL"] = stack.enter_context(running_postgres(folder))[1]
        if not given.get("REDIS_URL"):
            found["REDIS_URL"] = stack.enter_context(running_valkey(folder))[1]
        yield {name: value for name, value in found.items() if not given.get(name)}
