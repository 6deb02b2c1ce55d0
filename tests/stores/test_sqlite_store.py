"""What is true of the SQLite store alone: one file, one process, one writer, and the ways a file can be wrong."""

# ruff: noqa: ASYNC220, ASYNC221, ASYNC240 -- these tests have the event loop to themselves

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import apsw
import pytest
from store_kit import response, running

from ore.errors import StartupError, StorageFailed
from ore.stores import sqlite, sqlite_file
from ore.stores.sqlite import SQLiteStore
from ore.stores.sqlite_file import Migration

pytestmark = pytest.mark.anyio


@contextmanager
def write_lock(path: Path) -> Iterator[None]:
    """Hold the lock that every transaction of the writer needs, as a backup might."""
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


async def refusal(path: Path) -> str:
    """The sentence with which a store refuses to start."""
    with pytest.raises(StartupError) as caught:
        await SQLiteStore(path).start()
    return caught.value.message


async def filled(path: Path, responses: int = 3) -> None:
    async with running(SQLiteStore(path)) as store:
        for n in range(responses):
            await store.save("ada", response(f"r{n}"))


class TestWriting:
    async def test_callers_share_commits(self, path: Path) -> None:
        """Two hundred saves that wait for the writer become one commit, beside the one it was busy with."""
        async with running(SQLiteStore(path)) as store:
            async with anyio.create_task_group() as tasks:
                with write_lock(path):
                    for n in range(200):
                        tasks.start_soon(store.save, "ada", response(f"r{n}"))
                    await anyio.lowlevel.checkpoint()
            assert store.commits <= 2
            assert all([await store.load("ada", f"r{n}") for n in range(200)])

    async def test_a_waiting_writer_blocks_nobody(self, path: Path) -> None:
        """While a write waits for the disk, the event loop runs on, and reads see what was committed before."""
        async with running(SQLiteStore(path)) as store:
            await store.save("ada", response("old", mark="before"))
            with write_lock(path):
                save = asyncio.ensure_future(store.save("ada", response("old", mark="after")))
                for _ in range(20):
                    assert await store.load("ada", "old") == response("old", mark="before")
                assert not save.done()
            await save
            assert await store.load("ada", "old") == response("old", mark="after")

    async def test_what_waits_is_bounded(self, path: Path) -> None:
        """A save beyond the bytes that may wait is refused; one alone is always taken, and room comes back."""
        async with running(SQLiteStore(path, max_pending_bytes=100)) as store:
            with write_lock(path):
                first = asyncio.ensure_future(store.save("ada", response("first")))
                await anyio.lowlevel.checkpoint()
                with pytest.raises(StorageFailed, match="Try again") as caught:
                    await store.save("ada", response("second"))
                assert caught.value.code == "server_is_overloaded"
            await first
            await store.save("ada", response("second"))

    async def test_a_hanging_disk_is_not_healthy(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A commit that takes longer than it may makes the store unhealthy until it is through."""
        monkeypatch.setattr(sqlite, "STALLED_SECONDS", -1.0)
        async with running(SQLiteStore(path)) as store:
            with write_lock(path):
                save = asyncio.ensure_future(store.save("ada", response("r")))
                while await store.health():
                    await anyio.lowlevel.checkpoint()
            await save
            assert await store.health() is True

    async def test_saving_again_writes_what_changed(self, path: Path) -> None:
        """The input of a run is not written a second time when its output arrives."""
        async with running(SQLiteStore(path)) as store:
            await store.save("ada", response("r", given=("a",), made=()))
            reader = apsw.Connection(str(path))
            before = reader.execute("SELECT seq FROM items").fetchall()
            await store.save("ada", response("r", given=("a",), made=("b",)))
            assert reader.execute("SELECT seq FROM items WHERE direction = 0").fetchall() == before
            reader.close()

    async def test_deleting_leaves_no_items(self, path: Path) -> None:
        """Items go with their response."""
        async with running(SQLiteStore(path)) as store:
            await store.save("ada", response("r"))
            await store.delete("ada", "r")
        db = apsw.Connection(str(path))
        assert db.execute("SELECT count(*) FROM items").fetchall() == [(0,)]
        db.close()

    async def test_every_commit_is_synced(self, path: Path) -> None:
        """The writer asks for `synchronous=FULL` in WAL mode, without which a power cut loses what was acknowledged."""
        async with running(SQLiteStore(path)) as store:
            pragmas = [
                await store._write(lambda db, name=name: db.pragma(name), 0)
                for name in ("journal_mode", "synchronous", "foreign_keys", "temp_store")
            ]
        assert pragmas == ["wal", 2, 1, 2]

    async def test_stop_leaves_one_file(self, path: Path) -> None:
        """After a clean stop nothing waits in the log, so that the database can be copied as it lies there."""
        await filled(path)
        assert sorted(file.name for file in path.parent.iterdir()) == ["ore.db", "ore.db.lock"]

    async def test_only_the_user_may_read(self, path: Path) -> None:
        """The database, its logs and its folder are closed to other users of the machine."""
        async with running(SQLiteStore(path)) as store:
            await store.save("ada", response("r"))
            for file in (path.parent, *path.parent.iterdir()):
                assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0

    async def test_a_lost_file_is_noticed(self, path: Path) -> None:
        """When the file is moved away, writes are refused instead of going where nobody finds them."""
        async with running(SQLiteStore(path)) as store:
            await store.save("ada", response("r"))
            path.rename(path.with_name("elsewhere.db"))
            with pytest.raises(StorageFailed):
                await store.save("ada", response("lost"))
            assert await store.health() is False
            path.with_name("elsewhere.db").rename(path)
            assert await store.health() is True

    async def test_errors_tell_no_secrets(self, path: Path) -> None:
        """What a caller sees of a failed read names no path, table or statement."""
        async with running(SQLiteStore(path)) as store:
            await store.save("ada", response("r"))
            await store._write(lambda db: db.execute("DROP TABLE items"), 0)
            for call in (store.load("ada", "r"), store.save("ada", response("s"))):
                with pytest.raises(StorageFailed) as caught:
                    await call
                assert "items" not in caught.value.message
                assert str(path.parent) not in caught.value.message


def overwritten_page(page: int) -> Callable[[bytes], bytes]:
    return lambda whole: whole[: page * 4096] + b"\xa5" * 4096 + whole[(page + 1) * 4096 :]


HARMS: list[Callable[[bytes], bytes]] = [
    lambda whole: whole[::-1],
    lambda whole: whole[:5000],
    lambda whole: b"\0" * 100 + whole[100:],
    *(overwritten_page(page) for page in range(8)),
]


class TestStarting:
    async def test_a_second_process_is_refused(self, path: Path) -> None:
        """While one process has the file, another is told so at once, and it may start when the first was killed."""
        script = (
            "import asyncio, sys; from pathlib import Path; from ore.stores.sqlite import SQLiteStore\n"
            "async def main():\n"
            "    store = SQLiteStore(Path(sys.argv[1])); await store.start(); print('up', flush=True)\n"
            "    await asyncio.Event().wait()\n"
            "asyncio.run(main())"
        )
        with subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE) as first:
            assert first.stdout is not None
            assert first.stdout.readline() == b"up\n"
            message = await refusal(path)
            assert f"pid {first.pid}" in message
            assert "--data-dir" in message
            first.send_signal(signal.SIGKILL)
        await filled(path)

    async def test_a_second_store_in_one_process_is_refused(self, path: Path) -> None:
        """The lock is between stores, not only between processes; a refused store lets go of everything."""
        async with running(SQLiteStore(path)):
            assert "Another ore process" in await refusal(path)
        await filled(path)

    async def test_a_cancelled_start_lets_go(self, path: Path) -> None:
        """A start that is given up does not keep the file."""
        store = SQLiteStore(path)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(store.start)
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        await store.stop()
        await filled(path)

    async def test_a_newer_schema_is_refused(self, path: Path) -> None:
        """A file of a newer ORE is left alone, and the message says what to do."""
        await filled(path)
        db = apsw.Connection(str(path))
        db.execute("INSERT INTO schema_migrations VALUES (9999, 'later', 'x', 0)")
        db.close()
        message = await refusal(path)
        assert "newer ORE" in message
        assert "upgrade ore or use another --data-dir" in message

    async def test_a_changed_step_is_refused(self, path: Path) -> None:
        """A schema step that was edited after it was applied is noticed by its checksum."""
        await filled(path)
        db = apsw.Connection(str(path))
        db.execute("UPDATE schema_migrations SET checksum = 'other'")
        db.close()
        assert "different build" in await refusal(path)

    async def test_a_strange_database_is_refused(self, path: Path) -> None:
        """Another program's database is not filled with our tables."""
        path.parent.mkdir()
        db = apsw.Connection(str(path))
        db.execute("CREATE TABLE theirs (x)")
        db.close()
        before = path.read_bytes()
        assert "another program" in await refusal(path)
        assert path.read_bytes() == before

    @pytest.mark.parametrize("harm", HARMS, ids=[f"harm {n}" for n in range(len(HARMS))])
    async def test_a_damaged_file_is_refused(self, path: Path, harm: Callable[[bytes], bytes]) -> None:
        """Whichever page is damaged, the start names the file and what to do, and leaves every byte as it is."""
        await filled(path, 50)
        assert path.stat().st_size >= 8 * 4096
        path.write_bytes(harm(path.read_bytes()))
        before = path.read_bytes()
        message = await refusal(path)
        assert str(path) in message
        assert "restore a backup" in message
        assert path.read_bytes() == before

    @pytest.mark.parametrize("left", [None, b""])
    async def test_a_log_without_its_database_is_refused(self, path: Path, left: bytes | None) -> None:
        """A write-ahead log whose database is gone holds somebody's data; SQLite would drop it silently."""
        path.parent.mkdir()
        path.with_name("ore.db-wal").write_bytes(b"x" * 100)
        if left is not None:
            path.write_bytes(left)
        assert "ore.db-wal is there" in await refusal(path)
        assert path.with_name("ore.db-wal").read_bytes() == b"x" * 100

    async def test_a_folder_that_cannot_be_written_is_refused(self, tmp_path: Path) -> None:
        """A data directory that cannot be made is named, with the fix."""
        (tmp_path / "file").write_text("in the way")
        message = await refusal(tmp_path / "file" / "ore.db")
        assert "--data-dir" in message

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    async def test_a_folder_without_rights_is_refused(self, tmp_path: Path) -> None:
        """A data directory of somebody else is named, with the fix."""
        tmp_path.chmod(0o500)
        assert "right to write" in await refusal(tmp_path / "ore.db")

    async def test_an_empty_file_is_a_new_database(self, path: Path) -> None:
        """A process that was killed between making the file and filling it leaves nothing that forbids a start."""
        path.parent.mkdir()
        path.touch()
        await filled(path)


class TestMigrating:
    async def test_a_failing_step_is_not_half_applied(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """When a step fails in its middle, the file keeps the schema it had, and works with the ORE it had."""
        await filled(path)
        known = sqlite_file.migrations()
        broken = Migration(
            len(known) + 1, "9999_broken", "CREATE TABLE added (x) STRICT; INSERT INTO nowhere VALUES (1);"
        )
        with monkeypatch.context() as patch:
            patch.setattr(sqlite_file, "migrations", lambda: [*known, broken])
            await refusal(path)
        async with running(SQLiteStore(path)) as store:
            assert await store.load("ada", "r0") == response("r0")
            assert await store._read(lambda db: db.table_exists("main", "added")) is False

    async def test_a_step_that_breaks_references_is_undone(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A step must leave every reference whole."""
        await filled(path)
        known = sqlite_file.migrations()
        broken = Migration(len(known) + 1, "9999_broken", "DELETE FROM responses;")
        with monkeypatch.context() as patch:
            patch.setattr(sqlite_file, "migrations", lambda: [*known, broken])
            assert "left as it was" in await refusal(path)
        async with running(SQLiteStore(path)) as store:
            assert await store.load("ada", "r0") == response("r0")

    @pytest.mark.parametrize("start", ["new", "filled"])
    async def test_a_killed_step_is_done_again(self, path: Path, start: str) -> None:
        """A process killed in the middle of a step leaves the old schema; the next start does the step."""
        if start == "filled":
            await filled(path)
        script = (
            "import asyncio, os, sys; from pathlib import Path; import apsw\n"
            "from ore.stores import sqlite, sqlite_file\n"
            "die = lambda: os.kill(os.getpid(), 9)\n"
            "apsw.connection_hooks.append(lambda db: db.create_scalar_function('die', die, 0))\n"
            "known = sqlite_file.migrations()\n"
            "added = 'CREATE TABLE added (x ANY) STRICT; SELECT die();'\n"
            "later = sqlite_file.Migration(len(known) + 1, '9999', added)\n"
            "sqlite_file.migrations = lambda: [*known, later]\n"
            "asyncio.run(sqlite.SQLiteStore(Path(sys.argv[1])).start())"
        )
        done = subprocess.run([sys.executable, "-c", script, path], check=False)
        assert done.returncode == -signal.SIGKILL
        async with running(SQLiteStore(path)) as store:
            assert await store._read(lambda db: db.table_exists("main", "added")) is False
            assert (await store.load("ada", "r0") is not None) is (start == "filled")

    def test_steps_are_numbered_without_gaps(self) -> None:
        """The n-th file has the number n, and every file is found in the package."""
        known = sqlite_file.migrations()
        assert [migration.version for migration in known] == list(range(1, len(known) + 1))
