"""What is acknowledged is kept, whatever happens: kill -9, a power cut, a disk that is full or fails.

The processes and the file systems are real. A preloaded library stands in for the disk where one must fail: it can
refuse to sync, and it keeps a copy of what was synced, which is all that a power cut leaves.
"""

# ruff: noqa: ASYNC221 -- these tests have the event loop to themselves

import asyncio
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_kit import response, running

from ore.errors import StartupError, StorageFailed
from ore.stores.base import StoredItem, StoredResponse
from ore.stores.sqlite import SQLiteStore

pytestmark = pytest.mark.anyio

WRITER = """
import asyncio, itertools, sys
from pathlib import Path
from ore.stores.sqlite import SQLiteStore
from store_kit import response

async def caller(store, name):
    for n in itertools.count():
        saved = response(f"{name}-{n}", mark="x" * 500)
        await store.save("ada", saved)
        print(saved.id, flush=True)

async def main():
    store = SQLiteStore(Path(sys.argv[1]))
    await store.start()
    await asyncio.gather(*(caller(store, f"{sys.argv[2]}-{c}") for c in range(4)))

asyncio.run(main())
"""

CONVERSING = """
import asyncio, itertools, sys
from pathlib import Path
from ore.stores.sqlite import SQLiteStore
from store_kit import conversation, items, response

async def caller(store, name):
    await store.create_conversation("ada", conversation(name), items(f"{name}-first"))
    print(name, f"{name}-first", flush=True)
    for n in itertools.count():
        await store.lock_conversation("ada", name, f"{name}-{n}", 3600)
        await store.save("ada", response(f"{name}-{n}", conversation=name))
        print(name, f"{name}-{n}_out", flush=True)
        await store.add_conversation_items("ada", name, items(f"{name}-{n}-by-hand"))
        print(name, f"{name}-{n}-by-hand", flush=True)

async def main():
    store = SQLiteStore(Path(sys.argv[1]))
    await store.start()
    await asyncio.gather(*(caller(store, f"{sys.argv[2]}-{c}") for c in range(4)))

asyncio.run(main())
"""

FAILING_DISK = """
import asyncio, os, sys
from pathlib import Path
from ore.errors import StorageFailed
from ore.stores.sqlite import SQLiteStore
from store_kit import response

async def main():
    store = SQLiteStore(Path(sys.argv[1]))
    flag = Path(os.environ["SYNC_FAILS_IF"])
    await store.start()
    await store.save("ada", response("before"))
    flag.touch()
    for name in ("during", "again"):
        try:
            await store.save("ada", response(name))
            print("acknowledged", name)
        except StorageFailed:
            print("refused", name)
        print("healthy", await store.health())
    print("read", await store.load("ada", "before") == response("before"))
    flag.unlink()
    print("healthy", await store.health())
    await store.save("ada", response("after"))
    sys.stdout.flush()
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""

SHIM = r"""
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int copy_of(const char *path, char *copy) {
    const char *folder = getenv("SYNCED"), *name = strrchr(path, '/');
    if (!folder || !name) return 0;
    return snprintf(copy, PATH_MAX, "%s%s", folder, name) < PATH_MAX;
}

static int synced(int fd) {
    char link[64], path[PATH_MAX], copy[PATH_MAX], part[PATH_MAX + 8], chunk[65536];
    const char *flag = getenv("SYNC_FAILS_IF");
    struct stat about;
    ssize_t size;
    if (flag && access(flag, F_OK) == 0) { errno = EIO; return -1; }
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    size = readlink(link, path, sizeof path - 1);
    if (size < 0 || fstat(fd, &about) || !S_ISREG(about.st_mode)) return 0;
    path[size] = 0;
    if (!copy_of(path, copy)) return 0;
    snprintf(part, sizeof part, "%s.part", copy);
    int to = open(part, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    for (off_t at = 0; (size = pread(fd, chunk, sizeof chunk, at)) > 0; at += size)
        if (write(to, chunk, size) != size) abort();
    close(to);
    return rename(part, copy);
}

int fsync(int fd) { return synced(fd); }
int fdatasync(int fd) { return synced(fd); }
int unlink(const char *path) {
    char copy[PATH_MAX];
    if (copy_of(path, copy)) syscall(SYS_unlink, copy);
    return syscall(SYS_unlink, path);
}
"""


def child(script: str, *arguments: object, **environment: object) -> "subprocess.Popen[str]":
    """A Python process that can import what the tests share."""
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, **{name: str(value) for name, value in environment.items()}},
    )


def killed_after(lines: int, writer: "subprocess.Popen[str]") -> set[str]:
    """Kill the writer when it has printed so many ids; all the ids it printed until it was dead."""
    assert writer.stdout is not None
    printed = {writer.stdout.readline().strip() for _ in range(lines)}
    writer.kill()
    rest, _ = writer.communicate()
    *whole, _ = rest.split("\n")  # the last line may have been cut off
    return printed | set(whole)


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that stands in for the disk."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler and Linux to stand in for a failing disk")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "disk.c").write_text(SHIM)
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", folder / "disk.so", folder / "disk.c"], check=True)
    return folder / "disk.so"


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system (root)")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(ballast: Path) -> None:
    """Take all the space there is."""
    with ballast.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue


def large(name: str, size: int = 400_000) -> StoredResponse:
    return StoredResponse(
        id=name, created_at=0, status="completed", envelope=b"{}", input=(StoredItem("i", b"x" * size),)
    )


async def check(path: Path, acknowledged: set[str]) -> None:
    """The file opens, is sound, and has all that was acknowledged."""
    async with running(SQLiteStore(path)) as store:
        assert await store._write(lambda db: db.execute("PRAGMA integrity_check").fetchall(), 0) == [("ok",)]
        for name in acknowledged:
            assert await store.load("ada", name) is not None, name


@pytest.mark.parametrize("series", range(10))
async def test_kill_9_loses_nothing_acknowledged(path: Path, series: int) -> None:
    """Five times in a row a writing process is killed at a random moment; every id it printed is there afterwards."""
    moments = random.Random(series)
    acknowledged: set[str] = set()
    for repetition in range(5):
        acknowledged |= killed_after(moments.randrange(1, 120), child(WRITER, path, repetition))
    await check(path, acknowledged)


@pytest.mark.parametrize("series", range(3))
async def test_kill_9_leaves_conversations_whole(path: Path, series: int) -> None:
    """Each item that was acknowledged is in its conversation, in order, and no response is there by half."""
    moments = random.Random(series)
    acknowledged: set[str] = set()
    for repetition in range(3):
        acknowledged |= killed_after(moments.randrange(1, 120), child(CONVERSING, path, repetition))
    async with running(SQLiteStore(path)) as store:
        kept = {name: await store.conversation_items("ada", name) for name, _ in map(str.split, acknowledged)}
        order = {name: [item.id for item in found or ()] for name, found in kept.items()}
        assert {line for line in acknowledged if line.split()[1] not in order[line.split()[0]]} == set()
        for name, ids in order.items():
            made = [f"{name}-{n}{what}" for n in range(len(ids)) for what in ("_in", "_out", "-by-hand")]
            assert ids == [f"{name}-first", *made][: len(ids)]
            assert not ids[-1].endswith("_in")


@pytest.mark.parametrize("seed", range(5))
async def test_a_power_cut_loses_nothing_acknowledged(path: Path, tmp_path: Path, shim: Path, seed: int) -> None:
    """Of the files only what was synced is left, and it has every id that was printed before the lights went out."""
    synced = tmp_path / "synced"
    synced.mkdir()
    lines = random.Random(seed).randrange(1, 400)
    acknowledged = killed_after(lines, child(WRITER, path, seed, LD_PRELOAD=shim, SYNCED=synced))
    await check(synced / path.name, acknowledged)


async def test_a_failed_sync_is_not_acknowledged(path: Path, tmp_path: Path, shim: Path) -> None:
    """While the disk refuses to sync, saves are refused, reads go on; afterwards the store recovers by itself."""
    with child(FAILING_DISK, path, LD_PRELOAD=shim, SYNC_FAILS_IF=tmp_path / "flag") as process:
        lines, _ = process.communicate()
    assert lines.splitlines() == [
        "refused during",
        "healthy False",
        "refused again",
        "healthy False",
        "read True",
        "healthy True",
    ]
    await check(path, {"before", "after"})


async def test_a_full_disk_refuses_writes_and_recovers(tiny_disk: Path) -> None:
    """Without space, saves fail as `storage_full` and reads go on; with space again, saves go through by themselves."""
    path, ballast = tiny_disk / "data" / "ore.db", tiny_disk / "ballast"
    async with running(SQLiteStore(path)) as store:
        await store.save("ada", response("before"))
        fill(ballast)
        with pytest.raises(StorageFailed) as caught:
            await store.save("ada", large("during"))
        assert caught.value.code == "storage_full"
        assert str(tiny_disk) not in caught.value.message
        assert await store.health() is False
        assert await store.load("ada", "before") == response("before")
        assert await store.load("ada", "during") is None
        ballast.unlink()
        assert await store.health() is True
        await store.save("ada", large("after"))
    await check(path, {"before", "after"})


async def test_a_full_disk_refuses_only_what_does_not_fit(tiny_disk: Path) -> None:
    """Saves that wait together with one that is too large for the disk go through without it."""
    path = tiny_disk / "ore.db"
    async with running(SQLiteStore(path)) as store:
        saves = [store.save("ada", response(f"small{n}")) for n in range(4)]
        saves.insert(2, store.save("ada", large("huge", 5_000_000)))
        results = await asyncio.gather(*saves, return_exceptions=True)
    assert isinstance(results.pop(2), StorageFailed)
    assert results == [None] * 4
    await check(path, {f"small{n}" for n in range(4)})


async def test_starting_on_a_full_disk(tiny_disk: Path) -> None:
    """A start that needs space says so; one that does not, reads, and saves when there is space again."""
    path, ballast = tiny_disk / "data" / "ore.db", tiny_disk / "ballast"
    async with running(SQLiteStore(path)) as store:
        await store.save("ada", response("before"))
    fill(ballast)
    with pytest.raises(StartupError, match="Free some space"):
        await SQLiteStore(path).start()
    with pytest.raises(StartupError, match="Free some space"):
        await SQLiteStore(tiny_disk / "new" / "ore.db").start()
    os.truncate(ballast, ballast.stat().st_size - 200_000)
    async with running(SQLiteStore(path)) as store:
        assert await store.health() is False
        assert await store.load("ada", "before") == response("before")
        ballast.unlink()
        assert await store.health() is True


async def test_a_read_only_disk_is_refused(tiny_disk: Path) -> None:
    """A database that can only be read is no place to start, and the message names it."""
    path = tiny_disk / "ore.db"
    async with running(SQLiteStore(path)) as store:
        await store.save("ada", response("before"))
    subprocess.run(["mount", "-o", "remount,ro", tiny_disk], check=True)
    with pytest.raises(StartupError, match=r"Cannot write .*ore\.db.*--data-dir"):
        await SQLiteStore(path).start()
