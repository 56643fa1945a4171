from __future__ import annotations

from pathlib import Path

import pytest

from config.local.stack import ROOT
from config.local.testing import database_of, needs_servers


@pytest.mark.parametrize(
    ("named", "needed"),
    [
        ([], True),
        (["tests"], True),
        (["tests/unit"], False),
        (["tests/unit/config/test_roles.py::test_x", "tests/architecture"], False),
        (["tests/unit", "tests/integration"], True),
        (["tests/units"], True),
    ],
)
def test_servers_start_only_for_tests_that_may_want_them(named: list[str], needed: bool) -> None:
    assert needs_servers(named, ROOT) is needed


def test_names_are_read_from_the_folder_where_pytest_was_called() -> None:
    assert not needs_servers(["config"], ROOT / "tests" / "unit")
    assert needs_servers(["config"], Path("/elsewhere"))


def test_each_test_worker_has_a_redis_database_of_its_own() -> None:
    url = "redis://:pw@127.0.0.1:6379/0"

    assert database_of(url, "") == url
    assert database_of(url, "gw0") == "redis://:pw@127.0.0.1:6379/1"
    assert database_of(url, "gw11") == "redis://:pw@127.0.0.1:6379/12"
