"""Images that clients send, for models on this machine: checked by their headers, then decoded out of harm's way.

Clients write the files, and a decoder may take any time and memory over one. So the header is judged first, and the
pixels are decoded, turned upright and made smaller in a process of its own, with limits of both. What comes out is
always a PNG of ours: nothing of the client's file gets to an engine but what is seen. It fetches nothing.
"""

import base64
import binascii
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import sha256
from importlib.util import find_spec
from typing import Final

import anyio.to_thread
import msgspec
from msgspec import Struct

from ore.backends.base import JsonObject
from ore.backends.image_headers import read_header
from ore.errors import InvalidRequest, StartupError
from ore.timed_process import TimedProcess

MAX_PIXELS: Final = 40_000_000
"""Of an image; its pixels take four bytes each while it is decoded."""

MAX_SIDE: Final = 16_384
MAX_IMAGES: Final = 64
"""Images of one request."""

LONGEST_SIDE: Final = {"low": 512}
LONGEST_SIDE_ELSE: Final = 1536
"""Pixels of a side that a model is shown, at most, by `detail`: models see smaller ones."""

CPU_LIMIT: Final = 5.0
"""Seconds of processor time for one image."""

CACHE_BYTES: Final = 32 * 1024 * 1024
"""Of images that were decoded: a conversation brings its images with every turn."""

FORMATS: Final = "PNG, JPEG, WebP or GIF"


class Job(Struct, frozen=True):
    """What the far end is asked: base64 of a file, and the longest side of what is to come out."""

    data: str
    longest: int


class Done(Struct, frozen=True):
    """Base64 of a PNG, or nothing where the file could not be decoded."""

    data: str = ""


class Eyes:
    """Makes images of parts. `start` it, and `stop` it."""

    def __init__(self, cpu_limit: float = CPU_LIMIT) -> None:
        self._process = TimedProcess("ore.backends.image_process", cpu_limit)
        self._known: OrderedDict[tuple[bytes, int], bytes] = OrderedDict()
        self._known_bytes = 0

    async def stop(self) -> None:
        """End the process, which the first image starts. Idempotent."""
        await self._process.stop()

    async def see(self, parts: Sequence[JsonObject], places: Sequence[str]) -> tuple[bytes, ...]:
        """A PNG for each `input_image`, whose place is what errors name. Raises `InvalidRequest`."""
        if len(parts) > MAX_IMAGES:
            raise InvalidRequest(
                f"The request has {len(parts)} images; this model takes {MAX_IMAGES} at most. Send fewer.",
                code="too_many_images",
                param="input",
            )
        files = await anyio.to_thread.run_sync(lambda: list(map(checked, parts, places)))
        longest = [LONGEST_SIDE.get(str(part.get("detail")), LONGEST_SIDE_ELSE) for part in parts]
        return tuple([await self._decoded(*asked) for asked in zip(files, longest, places, strict=True)])

    async def _decoded(self, file: bytes, longest: int, place: str) -> bytes:
        key = sha256(file).digest(), longest
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        answer = await self._process.ask(msgspec.json.encode(Job(base64.b64encode(file).decode(), longest)))
        if answer is None:
            raise _refused("takes too long to decode, or too much memory. Send a simpler one", place)
        made = base64.b64decode(msgspec.json.decode(answer, type=Done).data)
        if not made:
            raise _refused("is broken or cut off, and cannot be decoded. Send it again, or in another format", place)
        self._keep(key, made)
        return made

    def _keep(self, key: tuple[bytes, int], made: bytes) -> None:
        self._known_bytes += len(made) if key not in self._known else 0
        self._known[key] = made
        while self._known_bytes > CACHE_BYTES:
            self._known_bytes -= len(self._known.popitem(last=False)[1])


def check_installed() -> None:
    """Raise `StartupError` where nothing can decode images."""
    if find_spec("PIL") is None:
        raise StartupError(
            "A model with a projector sees images, and nothing here can decode them; install it with: "
            "pip install 'open-responses-engine[vision]'."
        )


def checked(part: JsonObject, place: str) -> bytes:
    """The file of an `input_image`, whose header is within bounds. Raises `InvalidRequest`."""
    declared, file = _data(part, place)
    header = read_header(file)
    if header is None:
        raise _refused(f"is no {FORMATS}, or is cut off. Send it in one of these formats", place)
    if declared not in (header.format, header.format.replace("jpeg", "jpg")):
        raise _refused(f"is {header.format}, and its data URL says {declared[:40]}. Let them agree", place)
    if header.animated:
        raise _refused("moves. Send one frame of it", place)
    if not header.width or not header.height:
        raise _refused("has no pixels. Send another", place)
    if header.width * header.height > MAX_PIXELS or max(header.width, header.height) > MAX_SIDE:
        raise _refused(
            f"has {header.width} x {header.height} pixels, and {MAX_PIXELS // 1_000_000} million are allowed, "
            f"{MAX_SIDE} on a side. Make it smaller",
            place,
            code="image_too_large",
        )
    return file


def _data(part: JsonObject, place: str) -> tuple[str, bytes]:
    """The media type and the bytes of a data URL."""
    url = part.get("image_url")
    if not isinstance(url, str):
        raise _refused("is only named by its file_id, which this model cannot be given. Send a data URL", place)
    if not url[:5].lower() == "data:":
        raise _refused("is elsewhere, and is not fetched for models on this machine. Send a data URL", place)
    head, _, encoded = url[5:].partition(",")
    media, *options = head.lower().split(";")
    if "base64" not in (option.strip() for option in options):
        raise _refused("is in a data URL without base64. Send data:image/png;base64,...", place)
    try:
        return media.strip(), base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        raise _refused("is not valid base64. Encode it again", place, code="invalid_base64_image") from None


def _refused(why: str, place: str, code: str = "invalid_image") -> InvalidRequest:
    return InvalidRequest(f"The image in '{place}' {why}.", code=code, param=place)
