"""What a server says in its data folder: true while it is up, and believed of the process that has the lock alone."""

from pathlib import Path

import pytest

from ore.stores.sqlite import SQLiteStore
from ore.whereabouts import FILE, announced, announced_url, is_held

URL = "http://127.0.0.1:9"
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_who_has_the_store_is_found_while_it_has_it(tmp_path: Path) -> None:
    """The lock is that of the store."""
    assert not is_held(tmp_path)
    store = SQLiteStore(tmp_path / "ore.db")
    await store.start()
    with announced(tmp_path, URL):
        assert (is_held(tmp_path), announced_url(tmp_path)) == (True, URL)
    assert (is_held(tmp_path), announced_url(tmp_path)) == (True, None)
    await store.stop()
    assert not is_held(tmp_path)


@pytest.mark.parametrize("left", ["", URL, f"{URL} 1", f"{URL} 1 2", "\udcff"])
async def test_what_another_process_left_is_not_believed(tmp_path: Path, left: str) -> None:
    """Nor what is no such file at all."""
    store = SQLiteStore(tmp_path / "ore.db")
    await store.start()
    (tmp_path / FILE).write_bytes(left.encode("utf-8", "surrogateescape"))
    assert announced_url(tmp_path) is None
    await store.stop()


async def test_a_folder_that_cannot_be_written_hinders_nobody(tmp_path: Path) -> None:
    """The server runs, and is not found."""
    with announced(tmp_path / "gone", URL):
        assert announced_url(tmp_path / "gone") is None
