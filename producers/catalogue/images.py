"""Pictures decoded, the unusable refused: every image of a catalogue goes through `open_image` or `open_pixels`.

Needs Pillow, NumPy and LMDB alone, so that it runs in decoding processes and on machines that only encode.
"""

import stat
import struct
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from feature_repo.errors import VitrineError
from producers.catalogue import jpeg

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""Formats that are decoded. A closed list: Pillow also knows formats that start other programs (EPS)."""
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 50_000_000
"""Width times height as the header says; 150 MB as decoded RGB."""
MAX_ASPECT = 50
"""Long side over short side. An encoder that scales the short side up would blow a sliver up to a bomb."""

IN_A_STORE = "lmdb:"
"""What the path of a picture in an LMDB begins with: picture_store.STORED."""

SPARE = 1.5
"""Of the size that a picture will be made small to: what is left to the resizing filter."""

MISSING = "image file is missing"
UNREADABLE = "image file cannot be read"
EMPTY = "image is empty"
DAMAGED = "image is truncated or damaged"
NOT_AN_IMAGE = "not an image of a known format"
TOO_LARGE = "image is too large"
TOO_NARROW = "image is a sliver"
NO_RANGE = "image has 32-bit pixels of unknown range"

_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\0")


class UnusableImage(VitrineError):
    """A picture that cannot be used; `reason` is one of this module's few, so that they can be counted."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["UnusableImage"], tuple[str, str]]:
        """Travels whole from a decoding process (an exception's own pickle knows only the message)."""
        return UnusableImage, (self.reason, self.detail)


def open_image(source: Path | bytes, *, side: int | None = None) -> Image.Image:
    """Decode a picture: mode RGB, upright by its EXIF orientation, the first frame of an animation.

    Transparent pixels are laid over white, as a shop shows them; 16-bit grey is scaled to 8 bits. The size is read from
    the header and checked before a pixel is decoded.

    Args:
        source: a file, a picture in an LMDB, or the bytes themselves.
        side: what the picture will be made small to, in pixels. A JPEG that is large beside it is decoded at a half, a
            quarter or an eighth of its size, never under SPARE times `side`: 800 pixels for 224 in half the time, and
            after resizing a level (of 255) apart. As it is, if not given.

    Raises:
        UnusableImage: the file is missing or unreadable, empty, over MAX_BYTES or MAX_PIXELS, narrower than
            1 : MAX_ASPECT, truncated, damaged, or no image of FORMATS.
    """
    content = source if isinstance(source, bytes) else read(source)
    if not content:
        raise UnusableImage(EMPTY)
    if len(content) > MAX_BYTES:
        raise UnusableImage(TOO_LARGE, f"{len(content):,} bytes, at most {MAX_BYTES:,} are read")
    image = _open_header(content)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UnusableImage(TOO_LARGE, f"{width} x {height} pixels, at most {MAX_PIXELS:,} are decoded")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise UnusableImage(TOO_NARROW, f"{width} x {height} pixels, at most 1 : {MAX_ASPECT} is used")
    if side is not None:
        image.draft(None, (spared(side),) * 2)  # JPEG alone knows how
    try:
        image.load()
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise UnusableImage(DAMAGED, str(error)) from error
    return _to_rgb(_upright(image))


def open_pixels(source: Path | bytes, *, side: int) -> NDArray[np.uint8]:
    """As `open_image`, into an array [height, width, 3]; the same pixels, an everyday JPEG in a third of the time."""
    content = source if isinstance(source, bytes) else read(source)
    size = jpeg.size(content) if len(content) <= MAX_BYTES else None
    whole = size is not None and min(size) < 2 * spared(side)  # else it is decoded smaller
    if size and whole and max(size) <= MAX_ASPECT * min(size) and size[0] * size[1] <= MAX_PIXELS:
        pixels = jpeg.pixels(content)
        if pixels is not None:
            return pixels
    return np.asarray(open_image(content, side=side))


def spared(side: int) -> int:
    """Least pixels of a side that is decoded for a picture to be made small to `side`."""
    return int(SPARE * side)


def read(path: Path) -> bytes:
    """The bytes of a picture, in a file or in an LMDB (picture_store.py), as they are.

    Raises:
        UnusableImage: it is missing or unreadable, or over MAX_BYTES.
    """
    try:
        if str(path).startswith(IN_A_STORE):
            from producers.catalogue import picture_store

            content = picture_store.read(path)
            if content is None:
                raise UnusableImage(MISSING, str(path))
            return content
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for, a device read without end
            raise UnusableImage(UNREADABLE, f"{path}: a folder, a pipe or a device")
        if found.st_size > MAX_BYTES:
            raise UnusableImage(TOO_LARGE, f"{found.st_size:,} bytes, at most {MAX_BYTES:,} are read")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UnusableImage(MISSING, str(path)) from error
    except (OSError, ValueError) as error:  # no permission, a NUL in the name
        raise UnusableImage(UNREADABLE, f"{path}: {error}") from error


def _open_header(content: bytes) -> Image.Image:
    try:
        return Image.open(BytesIO(content), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnusableImage(TOO_LARGE, str(error)) from error
    except UnidentifiedImageError as error:
        # Some formats are read whole to find their header, so a truncated one is not recognised as theirs.
        raise UnusableImage(DAMAGED if content.startswith(_SIGNATURES) else NOT_AN_IMAGE) from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise UnusableImage(DAMAGED, str(error)) from error


def _upright(image: Image.Image) -> Image.Image:
    # In place, because without an orientation it copies the picture otherwise.
    # Unreadable EXIF: shown as stored, as browsers do.
    with suppress(OSError, SyntaxError, ValueError, TypeError, KeyError, EOFError, struct.error):
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise UnusableImage(NO_RANGE, f"mode {image.mode}")
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, picture).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
