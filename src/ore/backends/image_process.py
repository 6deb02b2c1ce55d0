"""Decodes images in a process of its own, because clients write the files: the far end of `images.Eyes`.

Run as `python -m ore.backends.image_process CPU_LIMIT`. The one place that knows pillow. It refuses what is no
whitelisted format, and more memory than a large image needs.
"""

import base64
import contextlib
import io
import resource
import warnings
from typing import Final

import msgspec
from PIL import Image, ImageOps

from ore.backends.images import MAX_PIXELS, Done, Job
from ore.timed_process import answer_lines

MEMORY: Final = 1024 * 1024 * 1024
"""Bytes of address space."""

FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF")
BROKEN: Final = (
    *(OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, KeyError, MemoryError, OverflowError),
    Image.DecompressionBombError,
)
"""What decoders raise on files that are none."""


def decoded(file: bytes, longest: int) -> bytes:
    """A PNG of the first frame, upright, without transparency, no side longer than `longest`."""
    with Image.open(io.BytesIO(file), formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError
        small = _plain(image)
        small.thumbnail((longest, longest))  # a JPEG is decoded at a fraction of its size
        made = io.BytesIO()
        _opaque(ImageOps.exif_transpose(small)).save(made, "PNG", compress_level=1)
    return made.getvalue()


def _plain(image: Image.Image) -> Image.Image:
    """In colours that can be averaged: a palette's cannot."""
    if image.mode in ("RGB", "RGBA", "L", "LA", "CMYK"):
        return image
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _opaque(image: Image.Image) -> Image.Image:
    """On white, as pages are."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    seen = image.convert("RGBA")
    paper = Image.new("RGBA", seen.size, "white")
    paper.alpha_composite(seen)
    return paper.convert("RGB")


def _answer(question: bytes) -> bytes:
    job = msgspec.json.decode(question, type=Job)
    try:
        made = decoded(base64.b64decode(job.data), job.longest)
    except BROKEN:
        made = b""
    return msgspec.json.encode(Done(base64.b64encode(made).decode()))


def main() -> None:
    """A file in, a PNG or nothing out."""
    warnings.simplefilter("ignore")
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    answer_lines(_answer)


if __name__ == "__main__":
    main()
