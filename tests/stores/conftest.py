"""Fixtures for the tests of stores."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from store_kit import KINDS, StoreFactory, running

from ore.stores.base import Store


@pytest.fixture(params=KINDS)
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> StoreFactory:
    """Stores of each kind in turn."""
    return KINDS[request.param](tmp_path)


@pytest.fixture
async def store(make_store: StoreFactory) -> AsyncIterator[Store]:
    """A running store without any data."""
    async with running(make_store()) as store:
        yield store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a SQLite database may be made; its folder is not there yet."""
    return tmp_path / "data" / "ore.db"
