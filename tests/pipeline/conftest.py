"""One stage for all tests here and in tests/faults; each says which roles it wants."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.world import USUAL, World, close_shared, shared


@pytest.fixture(scope="session")
def stage_of_all() -> Iterator[World]:
    yield shared()
    close_shared()


@pytest.fixture
def world(stage_of_all: World) -> World:
    """With the usual roles running, whatever the test before has done to them."""
    stage_of_all.run(*USUAL)
    return stage_of_all
