"""Read and decode images, and refuse the unusable ones. Every image of a catalogue goes through this module.

Needs Pillow, NumPy and, if it is installed, simplejpeg; LMDB is imported when a path names an image in an LMDB. So the
module runs in decoding processes and on machines that only encode.
"""

import stat
import struct
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from feature_repo import image_store
from feature_repo.errors import InvalidInputError

try:
    import simplejpeg
except ImportError:  # optional: Pillow decodes the same pixels, more slowly
    simplejpeg = None

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""Formats that are decoded. A closed list, because Pillow runs other programs for some formats (EPS)."""
MAX_BYTES = 64 * 2**20
"""Size of the largest encoded image that is accepted, inclusive."""
MAX_PIXELS = 50_000_000
"""Largest width times height, inclusive, as the header gives them; 150 MB as decoded RGB."""
MAX_ASPECT_RATIO = 50
"""Largest ratio of the long side to the short side, inclusive. Scaling the short side of a narrower image up to the
encoder's input size would need too much memory."""

DRAFT_FACTOR = 1.5
"""A JPEG is decoded at a reduced size no smaller than this factor times the side it is resized to."""

MISSING = "image file is missing"
UNREADABLE = "image file cannot be read"
EMPTY = "image is empty"
DAMAGED = "image is truncated or damaged"
NOT_AN_IMAGE = "not an image of a known format"
TOO_LARGE = "image is too large"
TOO_NARROW = "image is too narrow"
UNKNOWN_RANGE = "image has 32-bit pixels of unknown range"

_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\0")
_JPEG_START = b"\xff\xd8\xff"
_APP1_MARKER = b"\xff\xe1"
"""The JPEG marker before EXIF or XMP, which may hold an orientation. It never occurs within coded pixels."""


class UnusableImageError(InvalidInputError):
    """An image cannot be read, decoded or used.

    Attributes:
        reason: one of the constants MISSING to UNKNOWN_RANGE, so that callers can count refusals by reason.
        detail: what was found, such as the path or the size; may be empty.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["UnusableImageError"], tuple[str, str]]:
        """Pickle both fields. An exception's default pickle keeps only the message."""
        return UnusableImageError, (self.reason, self.detail)


def open_image(source: Path | bytes, *, side: int | None = None) -> Image.Image:
    """Return an image decoded to mode RGB, rotated upright by its EXIF orientation.

    Of an animation the first frame is decoded. Transparent pixels are laid over white. 16-bit grey is scaled to 8 bits.
    The size limits are checked against the header before any pixel is decoded.

    Args:
        source: a file, a path `lmdb:/FOLDER#KEY` of an image in an LMDB, or the encoded bytes.
        side: the side in pixels that the caller will resize to. A larger JPEG is then decoded at 1/2, 1/4 or 1/8 of its
            size, never below `min_decoded_side(side)`: decoding 800 pixels for 224 takes half the time, and the resized
            image differs by at most one level of 255. None decodes at full size.

    Raises:
        UnusableImageError: the file is missing or unreadable, is empty, exceeds MAX_BYTES, MAX_PIXELS or
            MAX_ASPECT_RATIO, is truncated or damaged, is not in one of FORMATS, or has 32-bit pixels.
    """
    content = source if isinstance(source, bytes) else read_bytes(source)
    if not content:
        raise UnusableImageError(EMPTY)
    if len(content) > MAX_BYTES:
        raise UnusableImageError(TOO_LARGE, f"{len(content):,} bytes, at most {MAX_BYTES:,} are read")
    image = _open_header(content)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UnusableImageError(TOO_LARGE, f"{width} x {height} pixels, at most {MAX_PIXELS:,} are decoded")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise UnusableImageError(TOO_NARROW, f"{width} x {height} pixels, at most 1 : {MAX_ASPECT_RATIO} is accepted")
    if side is not None:
        image.draft(None, (min_decoded_side(side),) * 2)  # only JPEG supports it; other formats ignore the call
    try:
        image.load()
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise UnusableImageError(DAMAGED, str(error)) from error
    return _convert_to_rgb(_rotate_upright(image))


def open_pixels(source: Path | bytes, *, side: int) -> NDArray[np.uint8]:
    """Return the pixels of `open_image(source, side=side)` as a uint8 array [height, width, 3] in RGB.

    An ordinary JPEG that needs no reduced decoding goes straight through libjpeg-turbo (simplejpeg): the same pixels,
    bit for bit, in a third of the time. Every other image goes through Pillow. The array may be read-only.

    Args:
        source: a file, a path `lmdb:/FOLDER#KEY` of an image in an LMDB, or the encoded bytes.
        side: the side in pixels that the caller will resize to. A larger JPEG is decoded at a reduced size, never below
            `min_decoded_side(side)`; nothing is resized to `side` here.

    Raises:
        UnusableImageError: the file is missing or unreadable, is empty, exceeds MAX_BYTES, MAX_PIXELS or
            MAX_ASPECT_RATIO, is truncated or damaged, is not in one of FORMATS, or has 32-bit pixels.
    """
    content = source if isinstance(source, bytes) else read_bytes(source)
    size = read_simple_jpeg_size(content) if len(content) <= MAX_BYTES else None
    if (
        size is not None
        and min(size) < 2 * min_decoded_side(side)  # a larger one is decoded at a reduced size, by Pillow
        and max(size) <= MAX_ASPECT_RATIO * min(size)
        and size[0] * size[1] <= MAX_PIXELS
    ):
        pixels = decode_simple_jpeg(content)
        if pixels is not None:
            return pixels
    return np.asarray(open_image(content, side=side))


def min_decoded_side(side: int) -> int:
    """Return the smallest side in pixels at which an image that will be resized to `side` pixels is decoded.

    It is DRAFT_FACTOR times `side`, rounded down.
    """
    return int(DRAFT_FACTOR * side)


def read_bytes(path: Path) -> bytes:
    """Return the encoded bytes of an image, from a file or, for `lmdb:/FOLDER#KEY`, from an LMDB.

    Whether they are an image is not checked; an empty file gives empty bytes.

    Raises:
        UnusableImageError: the file or the key is missing; the path is a folder, a pipe or a device, or cannot be read;
            or the file is larger than MAX_BYTES. The size of an image in an LMDB is not limited here.
    """
    try:
        if image_store.is_stored(path):
            content = image_store.read(path)
            if content is None:
                raise UnusableImageError(MISSING, str(path))
            return content
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would block, reading a device would not end
            raise UnusableImageError(UNREADABLE, f"{path}: a folder, a pipe or a device")
        if status.st_size > MAX_BYTES:
            raise UnusableImageError(TOO_LARGE, f"{status.st_size:,} bytes, at most {MAX_BYTES:,} are read")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UnusableImageError(MISSING, str(path)) from error
    except (OSError, ValueError) as error:  # no permission, a NUL in the name
        raise UnusableImageError(UNREADABLE, f"{path}: {error}") from error


def read_simple_jpeg_size(content: bytes) -> tuple[int, int] | None:
    """Return width and height, in pixels, of a JPEG that `decode_simple_jpeg` decodes exactly as Pillow does.

    None for anything else: another format, damaged, grey, CMYK, or with EXIF or XMP, which may hold an orientation.
    None for every image if simplejpeg is not installed.
    """
    if simplejpeg is None or not content.startswith(_JPEG_START) or _APP1_MARKER in content:
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError:
        return None
    return (width, height) if colours == "YCbCr" else None


def decode_simple_jpeg(content: bytes) -> NDArray[np.uint8] | None:
    """Return the pixels of a JPEG in RGB, uint8 [height, width, 3]; None if it is damaged.

    Args:
        content: the encoded bytes of an image for which `read_simple_jpeg_size` did not return None.
    """
    try:
        return simplejpeg.decode_jpeg(content)
    except ValueError:
        return None


def _open_header(content: bytes) -> Image.Image:
    try:
        return Image.open(BytesIO(content), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnusableImageError(TOO_LARGE, str(error)) from error
    except UnidentifiedImageError as error:
        # Pillow reads some formats whole to find the header, so it does not recognise a truncated file of these.
        raise UnusableImageError(DAMAGED if content.startswith(_SIGNATURES) else NOT_AN_IMAGE) from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise UnusableImageError(DAMAGED, str(error)) from error


def _rotate_upright(image: Image.Image) -> Image.Image:
    # In place: otherwise Pillow copies an image that has no orientation.
    # An image with unreadable EXIF is used as stored, as browsers do.
    with suppress(OSError, SyntaxError, ValueError, TypeError, KeyError, EOFError, struct.error):
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _convert_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise UnusableImageError(UNKNOWN_RANGE, f"mode {image.mode}")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
