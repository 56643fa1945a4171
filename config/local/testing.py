"""A pytest plugin: gives the tests a PostgreSQL and a Valkey before Django reads its settings.

Loaded by `-p config.local.testing`, earlier than any conftest.py, because pytest-django loads the
settings before those. Starts nothing when only tests that need no I/O were named, when the
environment has URLs (bin/test, continuous integration), or in a worker of pytest-xdist, which
has its controller's environment.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from config.local.ephemeral import test_environment
from config.local.stack import ROOT

WITHOUT_SERVERS = (ROOT / "tests" / "unit", ROOT / "tests" / "architecture")

_until_the_end = contextlib.ExitStack()


def needs_servers(named: Sequence[str], here: Path) -> bool:
    """Say whether any of the files and folders named on the command line may want a server."""
    if not named:
        return True  # everything
    paths = [(here / name.split("::", 1)[0]).resolve() for name in named]
    return not all(any(path.is_relative_to(quiet) for quiet in WITHOUT_SERVERS) for path in paths)


def database_of(redis_url: str, worker: str) -> str:
    """Give each xdist worker (gw0, gw1, …) a Redis database of its own; 0 is the controller's."""
    if not worker.startswith("gw"):
        return redis_url
    return urlunsplit(urlsplit(redis_url)._replace(path=f"/{int(worker[2:]) + 1}"))


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    options = early_config.known_args_namespace
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker and "REDIS_URL" in os.environ:
        os.environ["REDIS_URL"] = database_of(os.environ["REDIS_URL"], worker)
    os.environ.setdefault("SECRET_KEY", "only for tests, where nothing leaves this machine")
    if worker or options.help or options.version or options.collectonly:
        return
    if needs_servers(options.file_or_dir, Path.cwd()):
        os.environ.update(_until_the_end.enter_context(test_environment(os.environ)))


def pytest_unconfigure() -> None:
    _until_the_end.close()
