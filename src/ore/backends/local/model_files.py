"""Brings models from a hub to this machine: each file resumed where it broke off, checked, then renamed into place.

Whoever calls knows where the file belongs, and draws the progress. It refuses to put anything at the target that is
not whole and of its kind, and it never runs while a server answers requests.
"""

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import aiohttp
import anyio
import anyio.to_thread
import msgspec

from ore.errors import StartupError

Progress = Callable[[int, int], None]
"""Called with the bytes that are here, and the bytes of the whole file (0 while unknown)."""

_KINDS: Final = {".gguf": "a GGUF", ".safetensors": "a safetensors", ".json": "a JSON"}
SMALL_FILES: Final = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "adapter_config.json",
)
WEIGHTS: Final = ("model.safetensors.index.json", "model.safetensors", "adapter_model.safetensors")
"""Of a model in several files, in one, or of an adapter. They come after the small files: with them, all is here."""

_PIECE: Final = 1024 * 1024
_SILENCE: Final = 60.0


async def fetch_model(
    repo: str,
    file: str,
    target: Path,
    *,
    hub_url: str,
    progress: Progress | None = None,
) -> Path:
    """Make sure that `target` holds `file` of the hub's `repo`; returns it. Raises `StartupError`.

    A file that is there already is not asked about again.
    """
    if await anyio.Path(target).is_file():
        return target
    await _fetch(repo, file, target, hub_url, progress)
    return target


async def fetch_repository(repo: str, folder: Path, *, hub_url: str, progress: Progress | None = None) -> Path:
    """Make sure that `folder` holds the model or the adapter of a hub's repository; returns it. Raises `StartupError`.

    Weights in safetensors, and what is needed to use them; nothing else of a repository is downloaded.
    """
    if not await _has_weights(folder):
        for file in [*SMALL_FILES, *WEIGHTS]:
            with contextlib.suppress(_Missing):
                await fetch_model(repo, file, folder / file, hub_url=hub_url, progress=progress)
    for shard in _shards(folder / WEIGHTS[0]):
        await fetch_model(repo, shard, folder / shard, hub_url=hub_url, progress=progress)
    if not await _has_weights(folder):
        raise StartupError(f"{repo} has no weights in safetensors on the hub. Check the repository.")
    return folder


async def _has_weights(folder: Path) -> bool:
    return any([await anyio.Path(folder / file).is_file() for file in WEIGHTS])


def _shards(index: Path) -> list[str]:
    """The files of weights that an index names, without folders of their own."""
    if not index.is_file():
        return []
    names = set(msgspec.json.decode(index.read_bytes())["weight_map"].values())
    return sorted(name for name in names if Path(name).name == name and name.endswith(".safetensors"))


class _Missing(StartupError):
    """The hub does not have the file."""


async def _fetch(repo: str, file: str, target: Path, hub_url: str, progress: Progress | None) -> None:
    download = _Download(f"{repo}:{file}", target, progress or (lambda _done, _total: None))
    headers = {"Accept-Encoding": "identity"}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=_SILENCE)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout, trust_env=True) as session:
            await download.run(session, f"{hub_url.rstrip('/')}/{repo}/resolve/main/{file}")
    except (aiohttp.ClientError, TimeoutError) as error:
        raise StartupError(
            f"The model {repo}:{file} could not be downloaded ({type(error).__name__}). Check the network and start "
            "again: the download goes on where it stopped. Or download the file by hand and give its path."
        ) from error
    except OSError as error:
        what = "the disk is full" if error.errno == errno.ENOSPC else (error.strerror or "the disk refused")
        raise StartupError(f"The model {repo}:{file} could not be saved: {what}. Mend that and start again.") from error


class _Download:
    """One file. The part and the version it belongs to lie beside the target until it is whole."""

    def __init__(self, name: str, target: Path, progress: Progress) -> None:
        self._name = name
        self._target = anyio.Path(target)
        self._part = anyio.Path(f"{target}.part")
        self._version = anyio.Path(f"{target}.part.etag")
        self._progress = progress

    async def run(self, session: aiohttp.ClientSession, url: str) -> None:
        start = (await self._part.stat()).st_size if await self._part.is_file() else 0
        version = await self._version.read_text() if start and await self._version.is_file() else ""
        headers = {"Range": f"bytes={start}-", "If-Range": version} if version else {}
        async with session.get(url, headers=headers) as response:
            if response.status == 416 and response.headers.get("Content-Range") == f"bytes */{start}":
                done = total = start  # it was whole already, and only not renamed
            else:
                done, total = await self._continue(response, start)
        await self._settle(done, total)

    async def _continue(self, response: aiohttp.ClientResponse, start: int) -> tuple[int, int]:
        """Bytes that are here then, and bytes of the whole file."""
        if response.status == 416:
            await self._forget()
            raise StartupError(f"The download of {self._name} did not fit what is on disk. Start again.")
        self._refuse(response.status)
        if response.status != 206:
            start = 0
            await self._forget()  # before the new version is noted: old bytes must never stand under its name
        total = start + (response.content_length or 0)
        await self._version.write_text(_strong(response.headers.get("ETag", "")))
        return await self._receive(response, start, total), total

    async def _receive(self, response: aiohttp.ClientResponse, done: int, total: int) -> int:
        async with await anyio.open_file(self._part, "ab" if done else "wb") as file:
            self._progress(done, total)
            async for piece in response.content.iter_chunked(_PIECE):
                await file.write(piece)
                done += len(piece)
                self._progress(done, total)
            await file.flush()
            await anyio.to_thread.run_sync(os.fsync, file.wrapped.fileno())
        return done

    async def _settle(self, done: int, total: int) -> None:
        if done < total:
            raise aiohttp.ClientPayloadError
        async with await anyio.open_file(self._part, "rb") as file:
            head = await file.read(9)
        if not _is_of_its_kind(self._target.suffix, head):
            await self._forget()
            kind = _KINDS[self._target.suffix]
            raise StartupError(f"The hub's answer for {self._name} is not {kind} file. Check the file's name.")
        await self._part.rename(self._target)
        await self._version.unlink(missing_ok=True)

    async def _forget(self) -> None:
        await self._part.unlink(missing_ok=True)
        await self._version.unlink(missing_ok=True)

    def _refuse(self, status: int) -> None:
        if status in {401, 403}:
            raise StartupError(
                f"The hub does not hand out {self._name} without permission: it is private or gated, or its name is "
                "misspelt. Check the name; or download the file by hand and give its path."
            )
        if status == 404:
            raise _Missing(f"There is no {self._name} on the hub. Check the repository and the file name.")
        if status not in {200, 206}:
            raise StartupError(f"The hub answered with status {status} for {self._name}. Try again later.")


def _is_of_its_kind(suffix: str, head: bytes) -> bool:
    """Whether a file begins as its name says; hubs answer with pages for people too."""
    if suffix == ".gguf":
        return head[:4] == b"GGUF"
    if suffix == ".safetensors":
        return head[8:9] == b"{"
    return suffix != ".json" or head.lstrip()[:1] == b"{"


def _strong(etag: str) -> str:
    """A weak tag cannot vouch for bytes: without a strong one, a broken download begins anew."""
    return "" if etag.startswith("W/") else etag
