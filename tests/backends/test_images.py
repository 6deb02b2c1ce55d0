"""Files that claim to be images: what is taken, what is refused from its first bytes, and what that costs."""

import asyncio
import base64
import io
import os
import resource
import struct
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ore.backends.base import JsonObject
from ore.backends.image_headers import ImageHeader, read_header
from ore.backends.images import LONGEST_SIDE_ELSE, MAX_IMAGES, MAX_PIXELS, MAX_SIDE, Eyes, checked
from ore.errors import InvalidRequest

Image: Any = pytest.importorskip("PIL.Image")

pytestmark = pytest.mark.anyio

PLACE = "input[0].content[1].image_url"


def encoded(format: str, size: tuple[int, int] = (60, 40), color: Any = "red", **options: Any) -> bytes:
    file = io.BytesIO()
    mode = "RGBA" if isinstance(color, tuple) and len(color) == 4 else "RGB"
    Image.new(mode, size, color).save(file, format, **options)
    return file.getvalue()


def moving(format: str) -> bytes:
    file = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(file, format, save_all=True, append_images=frames[1:], duration=100)
    return file.getvalue()


def png(width: int, height: int, body: bytes = b"") -> bytes:
    """A PNG by hand: its header may say what it likes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def bomb(side: int = 20_000) -> bytes:
    """400 million pixels of one bit in 50 kB."""
    packer, row = zlib.compressobj(9), bytes(1 + side // 8)
    return png(side, side, b"".join(packer.compress(row) for _ in range(side)) + packer.flush())


def part(file: bytes, media: str = "image/png", **fields: Any) -> JsonObject:
    return {"type": "input_image", "image_url": f"data:{media};base64,{base64.b64encode(file).decode()}", **fields}


@pytest.fixture
async def eyes() -> AsyncIterator[Eyes]:
    made = Eyes()
    yield made
    await made.stop()


async def see(eyes: Eyes, *parts: JsonObject) -> list[Any]:
    made = await eyes.see(parts, [PLACE] * len(parts))
    return [Image.open(io.BytesIO(file), formats=("PNG",)) for file in made]


# What is taken


@pytest.mark.parametrize(
    ("file", "media"),
    [
        (encoded("PNG"), "image/png"),
        (encoded("JPEG"), "image/jpeg"),
        (encoded("JPEG"), "image/jpg"),
        (encoded("JPEG", progressive=True), "IMAGE/JPEG"),
        (encoded("GIF"), "image/gif"),
        (encoded("WEBP"), "image/webp"),
        (encoded("WEBP", lossless=True), "image/webp"),
        (encoded("WEBP", color=(255, 0, 0, 128)), "image/webp"),
    ],
)
async def test_four_formats(eyes: Eyes, file: bytes, media: str) -> None:
    """All of them come out as a PNG of their size."""
    header = read_header(file)
    assert header is not None
    assert (header.width, header.height, header.animated) == (60, 40, False)
    (made,) = await see(eyes, part(file, media))
    assert (made.size, made.mode, made.format) == ((60, 40), "RGB", "PNG")


async def test_large_ones_are_made_smaller(eyes: Eyes) -> None:
    """To what a model sees, less with `detail: low`; their shape stays."""
    file = encoded("JPEG", (4000, 2000))
    high, low = await see(eyes, part(file, "image/jpeg"), part(file, "image/jpeg", detail="low"))
    assert (high.size, low.size) == ((LONGEST_SIDE_ELSE, LONGEST_SIDE_ELSE // 2), (512, 256))


async def test_photos_are_turned_upright(eyes: Eyes) -> None:
    """As EXIF says, and nothing else of it is left."""
    image, exif = Image.new("RGB", (60, 40), "red"), Image.Exif()
    image.paste("blue", (0, 0, 60, 20))
    exif[0x0112], exif[0x010F] = 6, "a maker"
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif)
    (made,) = await see(eyes, part(file.getvalue(), "image/jpeg"))
    assert made.size == (40, 60)
    assert made.getpixel((35, 30))[2] > 200
    assert not made.getexif()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "I;16", "RGBA"])
async def test_every_kind_of_colour(eyes: Eyes, mode: str) -> None:
    """Black and white, grey, palettes, sixteen bits: white stays white, and black is black."""
    made = []
    for color in ("white", "black"):
        image = Image.new("L", (20, 20), color)
        image = image.point(lambda value: value * 257, "I").convert(mode) if mode == "I;16" else image.convert(mode)
        file = io.BytesIO()
        image.save(file, "PNG")
        made += await see(eyes, part(file.getvalue()))
    assert [image.getpixel((5, 5)) for image in made] == [(255, 255, 255), (0, 0, 0)]


async def test_what_shows_through_is_on_white(eyes: Eyes) -> None:
    (made,) = await see(eyes, part(encoded("PNG", color=(255, 0, 0, 0))))
    assert made.getpixel((0, 0)) == (255, 255, 255)


async def test_a_file_that_is_something_else_too_leaves_only_its_pixels(eyes: Eyes) -> None:
    """What follows the image, or is hidden in its comments, reaches no engine."""
    secret = b"PK\x03\x04 a whole archive"
    (made,) = await eyes.see([part(encoded("PNG") + secret)], [PLACE])
    assert secret not in made
    (made,) = await eyes.see([part(encoded("JPEG", comment=secret), "image/jpeg")], [PLACE])
    assert secret not in made


async def test_what_was_decoded_is_known(eyes: Eyes) -> None:
    """A conversation brings its images with each turn; the process that decodes is not asked again."""
    first = await eyes.see([part(encoded("PNG"))], [PLACE])
    await eyes.stop()
    assert await eyes.see([part(encoded("PNG"))], [PLACE]) == first
    assert eyes._process._process is None


# What is refused

HALF = encoded("JPEG", (600, 400), quality=95)
REFUSED: dict[str, tuple[bytes, str, str]] = {
    "400 million pixels in 50 kB": (bomb(), "image/png", "image_too_large"),
    "more than four bytes can count": (png(2**32 - 1, 2**32 - 1), "image/png", "image_too_large"),
    "too long a side": (png(MAX_SIDE + 1, 1), "image/png", "image_too_large"),
    "too many pixels": (png(MAX_PIXELS // 1000 + 1, 1000), "image/png", "image_too_large"),
    "no pixels": (png(0, 5), "image/png", "invalid_image"),
    "a size without pixels": (png(50, 50), "image/png", "invalid_image"),
    "pixels that are none": (png(50, 50, b"no zlib at all"), "image/png", "invalid_image"),
    "an animated GIF": (moving("GIF"), "image/gif", "invalid_image"),
    "an animated PNG": (moving("PNG"), "image/png", "invalid_image"),
    "an animated WebP": (moving("WEBP"), "image/webp", "invalid_image"),
    "a JPEG cut off in its pixels": (HALF[: len(HALF) // 2], "image/jpeg", "invalid_image"),
    "a JPEG cut off in its header": (HALF[:20], "image/jpeg", "invalid_image"),
    "a JPEG without a frame": (b"\xff\xd8\xff\xd9" + b"\0" * 99, "image/jpeg", "invalid_image"),
    "a JPEG whose header never ends": (b"\xff\xd8" + b"\xff\xe0\0\0" * 9, "image/jpeg", "invalid_image"),
    "a JPEG of millions of segments": (b"\xff\xd8\xff" + b"\xff\xe0\0\2" * 3_000_000, "image/jpeg", ""),
    "a GIF of millions of blocks": (encoded("GIF")[:-2] + b"\1\0" * 3_000_000, "image/gif", ""),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>', "image/svg+xml", ""),
    "HTML": (b"<html>", "image/png", ""),
    "a script that begins like a GIF": (b"GIF89a/*\0\0\0*/=1;alert(1)//", "image/gif", ""),
    "a RIFF that is no WebP": (b"RIFF\x24\0\0\0WAVEfmt ", "image/webp", ""),
    "TIFF": (encoded("TIFF"), "image/tiff", ""),
    "BMP": (encoded("BMP"), "image/bmp", ""),
    "nothing": (b"", "image/png", ""),
    "a JPEG that says PNG": (encoded("JPEG"), "image/png", ""),
    "a PNG without a type": (encoded("PNG"), "", ""),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_files_that_are_refused(eyes: Eyes, name: str) -> None:
    """With a 400 that names their place, and the process that decodes goes on."""
    file, media, code = REFUSED[name]
    with pytest.raises(InvalidRequest) as refused:
        await eyes.see([part(file, media)], [PLACE])
    assert (refused.value.code, refused.value.param) == (code or "invalid_image", PLACE)
    assert len(await see(eyes, part(encoded("PNG")))) == 1


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://example.org/a.png", "invalid_image"),
        ("data:image/png,abc", "invalid_image"),
        ("data:image/png;base64", "invalid_image"),
        ("data:image/png;base64,?", "invalid_base64_image"),
        ("data:image/png;base64,AAA", "invalid_base64_image"),
        (None, "invalid_image"),
    ],
)
def test_addresses_that_are_no_data(url: str | None, code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        checked({"type": "input_image", "image_url": url, "file_id": "file_1"}, PLACE)
    assert (refused.value.code, refused.value.param) == (code, PLACE)


async def test_too_many(eyes: Eyes) -> None:
    with pytest.raises(InvalidRequest, match="at most"):
        await eyes.see([part(b"")] * (MAX_IMAGES + 1), [PLACE] * (MAX_IMAGES + 1))


async def test_who_takes_too_long_is_ended() -> None:
    """The far end is killed by its own timer, and the next image has a new one."""
    eyes = Eyes(cpu_limit=0.05)
    noise = Image.frombytes("RGB", (3000, 3000), os.urandom(27_000_000))
    file = io.BytesIO()
    noise.save(file, "PNG", compress_level=0)
    slow = part(file.getvalue())
    try:
        with pytest.raises(InvalidRequest, match="too long"):
            await eyes.see([slow], [PLACE])
    finally:
        await eyes.stop()


async def test_bombs_cost_this_process_nothing() -> None:
    """All small files that are refused, fifty times over, are less than 50 MB."""
    eyes = Eyes()
    files = [part(file, media) for file, media, _ in REFUSED.values() if len(file) < 1_000_000]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        for each in files:
            await asyncio.gather(*(eyes.see([each], [PLACE]) for _ in range(50)), return_exceptions=True)
    finally:
        await eyes.stop()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024


def test_headers_of_any_bytes_are_read_in_peace() -> None:
    """Whatever stands behind the first bytes: a header, or None."""
    for start in (encoded("PNG"), encoded("JPEG"), encoded("GIF"), encoded("WEBP"), moving("GIF")):
        for cut in range(min(len(start), 300)):
            for file in (start[:cut], start[:cut] + os.urandom(40), start[:cut] + b"\xff" * 40):
                assert isinstance(read_header(file), ImageHeader | None)
