"""A Valkey of our own: real servers, started, killed and started again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import redis

from config.local.ephemeral import running_valkey
from config.local.processes import await_true


def test_it_wants_its_password_and_never_forgets_a_key_for_room(tmp_path: Path) -> None:
    with running_valkey(tmp_path) as (_, url):
        client = redis.from_url(url)
        settings = client.config_get("*")

        assert settings["maxmemory-policy"] == "noeviction"
        assert settings["appendonly"] == "yes"
        assert settings["bind"] == "127.0.0.1"
        with pytest.raises(redis.AuthenticationError):
            redis.from_url(url.replace(client.get_connection_kwargs()["password"], "no")).ping()


def test_what_was_written_survives_a_kill(tmp_path: Path) -> None:
    with running_valkey(tmp_path) as (child, url):
        redis.from_url(url).rpush("queue", *range(1000))
        os.kill(child.pid, signal.SIGKILL)
        assert await_true(lambda: child.poll() is not None, 10)

    with running_valkey(tmp_path) as (_, url):
        assert redis.from_url(url).llen("queue") == 1000


def test_its_password_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    with running_valkey(tmp_path) as (child, _):
        password = (tmp_path / "valkey" / "password").read_text().strip()
        shown = Path(f"/proc/{child.pid}/cmdline")

        assert (tmp_path / "valkey" / "valkey.conf").stat().st_mode & 0o077 == 0
        if shown.exists():
            assert password not in shown.read_text()
