"""What all tests share. The servers behind the URLs come from `config/local/testing.py`."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def redis_url() -> str:
    """A Valkey of the tests' own, one database of it for each test worker."""
    return os.environ["REDIS_URL"]


@pytest.fixture(scope="session")
def database_url() -> str:
    """A PostgreSQL of the tests' own. Tests that use Django's ORM want pytest-django's `db`."""
    return os.environ["DATABASE_URL"]
