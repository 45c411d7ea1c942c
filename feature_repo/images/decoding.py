"""Read and decode images, and refuse the unusable ones. Every image of a catalogue goes through this module.

Any error of a library that decodes becomes an UnusableImageError, so one odd file never ends a run.

How much of a file may be missing: nothing that a pixel depends on. A JPEG without its end marker, or a PNG whose texts
are damaged, is decoded, because its pixels are complete; a picture whose lower part would be grey is refused.

Needs Pillow, NumPy and, if it is installed, simplejpeg; LMDB is imported when a path names an image in an LMDB. So the
module runs in decoding processes and on machines that only encode.
"""

import stat
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from feature_repo.errors import InvalidInputError
from feature_repo.images import colours, image_store
from feature_repo.images.formats import FORMATS, recognize_format
from feature_repo.location import BucketObject

try:
    import simplejpeg
except ImportError:  # optional: Pillow decodes the same pixels, more slowly
    simplejpeg = None

Source: TypeAlias = Path | BucketObject | bytes
"""An image: a file or an image in an LMDB, an object in a bucket, or the encoded bytes."""

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
NOT_READ = "not a format that is read"
TOO_LARGE = "image is too large"
TOO_NARROW = "image is too narrow"
UNKNOWN_RANGE = "image has 32-bit pixels of unknown range"

_JPEG_START = b"\xff\xd8\xff"
_APP1_MARKER = b"\xff\xe1"
"""The JPEG marker before EXIF or XMP, which may hold an orientation. It never occurs within coded pixels."""
_JPEG_END = b"\xff\xd9"
_PADDING = b"\xa7\x3c\xe9\x51" * 64
"""Bytes that a JPEG decoder reads as coded pixels if it misses some, and else skips."""
_PNG_CHUNKS_OF_PIXELS = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS")

# Pillow refuses a PNG with a text or a profile of more than 1 MiB. libpng, in browsers, allows 8.
PngImagePlugin.MAX_TEXT_CHUNK = 8 * 2**20


class UnusableImageError(InvalidInputError):
    """An image cannot be read, decoded or used.

    Attributes:
        reason: one of the constants MISSING to UNKNOWN_RANGE, NOT_READ with the name of the format in brackets, so that
            callers can count refusals by reason.
        detail: what was found, such as the path or the size; may be empty.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["UnusableImageError"], tuple[str, str]]:
        """Pickle both fields. An exception's default pickle keeps only the message."""
        return UnusableImageError, (self.reason, self.detail)


def open_image(source: Source, *, side: int | None = None) -> Image.Image:
    """Return an image decoded to mode RGB, in sRGB, rotated upright by its EXIF orientation: what a browser shows.

    Of an animation the first frame is decoded. Colour profiles are converted, 16-bit pixels are scaled to 8 bits and
    transparent pixels are laid over white (`images.colours`). The size limits are checked against the header before any
    pixel is decoded.

    Args:
        source: a file, a path `lmdb:/FOLDER#KEY` of an image in an LMDB, an object in a bucket, or the encoded bytes.
        side: the side in pixels that the caller will resize to. A larger JPEG is then decoded at 1/2, 1/4 or 1/8 of its
            size, never below `min_decoded_side(side)`: decoding 800 pixels for 224 takes half the time, and the resized
            image differs by at most one level of 255. None decodes at full size.

    Raises:
        UnusableImageError: the file is missing or unreadable, is empty, exceeds MAX_BYTES, MAX_PIXELS or
            MAX_ASPECT_RATIO, is truncated or damaged, is not in one of FORMATS, or has 32-bit pixels; or a decoder
            raised any other error.
    """
    content = source if isinstance(source, bytes) else read_bytes(source)
    if not content:
        raise UnusableImageError(EMPTY)
    if len(content) > MAX_BYTES:
        raise UnusableImageError(TOO_LARGE, f"{len(content):,} bytes, at most {MAX_BYTES:,} are read")
    image = _load(content, side)
    is_png = image.format == "PNG"
    try:
        _rotate_upright(image)
        if image.mode in ("I", "F"):
            raise UnusableImageError(UNKNOWN_RANGE, f"mode {image.mode}")
        return colours.convert_to_srgb(image, png_bit_depth=content[24] if is_png else 8)
    except UnusableImageError:
        raise
    except Exception as error:
        raise _as_damaged(error) from error


def open_pixels(source: Source, *, side: int) -> NDArray[np.uint8]:
    """Return the pixels of `open_image(source, side=side)` as a uint8 array [height, width, 3] in RGB.

    An ordinary JPEG that needs no reduced decoding goes straight through libjpeg-turbo (simplejpeg): the same
    pixels, bit for bit, in a third of the time. Every other image goes through Pillow. The array may be read-only.

    Args:
        source: a file, a path `lmdb:/FOLDER#KEY` of an image in an LMDB, an object in a bucket, or the encoded bytes.
        side: the side in pixels that the caller will resize to. A larger JPEG is decoded at a reduced size, never below
            `min_decoded_side(side)`; nothing is resized to `side` here.

    Raises:
        UnusableImageError: the file is missing or unreadable, is empty, exceeds MAX_BYTES, MAX_PIXELS or
            MAX_ASPECT_RATIO, is truncated or damaged, is not in one of FORMATS, or has 32-bit pixels; or a decoder
            raised any other error.
    """
    content = source if isinstance(source, bytes) else read_bytes(source)
    size = read_simple_jpeg_size(content) if len(content) <= MAX_BYTES else None
    if (
        size is not None
        and min(size) < 2 * min_decoded_side(side)  # a larger one is decoded at a reduced size, by Pillow
        and max(size) <= MAX_ASPECT_RATIO * min(size)
        and size[0] * size[1] <= MAX_PIXELS
    ):
        profile, pixels = colours.read_jpeg_profile(content), decode_simple_jpeg(content)
        if pixels is not None and profile is not None:
            return colours.convert_pixels(pixels, profile)
    return np.asarray(open_image(content, side=side))


def check_pixels(content: bytes, max_pixels: int) -> None:
    """Raise UnusableImageError if the header of an image gives more pixels. What has no readable header passes.

    Args:
        content: the encoded bytes. No pixel is decoded.
        max_pixels: largest width times height, inclusive.
    """
    try:
        width, height = Image.open(BytesIO(content), formats=FORMATS).size
    except Exception:  # decoding says what is wrong
        return
    if width * height > max_pixels:
        raise UnusableImageError(TOO_LARGE, f"{width} x {height} pixels, at most {max_pixels:,} are decoded")


def min_decoded_side(side: int) -> int:
    """Return the smallest side in pixels at which an image that will be resized to `side` pixels is decoded.

    It is DRAFT_FACTOR times `side`, rounded down.
    """
    return int(DRAFT_FACTOR * side)


def read_bytes(path: Path | BucketObject) -> bytes:
    """Return the encoded bytes of an image: from a file, from an LMDB for `lmdb:/FOLDER#KEY`, or from a bucket.

    Whether they are an image is not checked; an empty file gives empty bytes.

    Raises:
        UnavailableError: the bucket does not answer.
        UnusableImageError: the file, key or object is missing; the path is a folder, a pipe or a device, or cannot be
            read; or the file or object is larger than MAX_BYTES. The size of an image in an LMDB is not limited here.
    """
    try:
        if isinstance(path, BucketObject):
            return _read_from_bucket(path)
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


def _read_from_bucket(source: BucketObject) -> bytes:
    from feature_repo.bucket import read_object  # pyarrow, which a machine that only encodes may lack

    content = read_object(source, MAX_BYTES)
    if len(content) > MAX_BYTES:
        raise UnusableImageError(TOO_LARGE, f"more than {MAX_BYTES:,} bytes")
    return content


def read_simple_jpeg_size(content: bytes) -> tuple[int, int] | None:
    """Return width and height, in pixels, of a JPEG that `decode_simple_jpeg` decodes exactly as Pillow does.

    None for anything else: another format, damaged, ending in zeros (it may be unfinished), grey, CMYK, or with EXIF or
    XMP, which may hold an orientation.
    None for every image if simplejpeg is not installed.
    """
    if simplejpeg is None or not content.startswith(_JPEG_START) or _APP1_MARKER in content:
        return None
    if content.endswith(b"\0"):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
    except Exception:  # Pillow decides what is wrong
        return None
    return (width, height) if colours == "YCbCr" else None


def decode_simple_jpeg(content: bytes) -> NDArray[np.uint8] | None:
    """Return the pixels of a JPEG in RGB, uint8 [height, width, 3]; None if it is damaged.

    Args:
        content: the encoded bytes of an image for which `read_simple_jpeg_size` did not return None.
    """
    try:
        return simplejpeg.decode_jpeg(content)
    except Exception:  # Pillow decides what is wrong
        return None


def _load(content: bytes, side: int | None) -> Image.Image:
    """Return a decoded image of any mode, whose missing or damaged parts, if any, hold no pixels.

    Raises:
        UnusableImageError: as `open_image`.
    """
    is_jpeg = content.startswith(_JPEG_START)
    if is_jpeg and content.endswith(b"\0") and not content.rstrip(b"\0").endswith(_JPEG_END):
        # Some programs fill an unfinished file with zeros, which are valid as coded pixels.
        return _load_without_end_marker(content, side, UnusableImageError(DAMAGED, "no end marker"))
    try:
        return _load_strictly(content, side)
    except UnusableImageError as error:
        if error.reason == DAMAGED and is_jpeg:
            return _load_without_end_marker(content, side, error)
        if error.reason == DAMAGED and recognize_format(content) == "PNG":
            return _load_strictly(_drop_png_metadata(content), side)
        raise


def _load_strictly(content: bytes, side: int | None) -> Image.Image:
    """Return a decoded image of any mode.

    Raises:
        UnusableImageError: it exceeds a limit, is not of one of FORMATS, or Pillow raised any error.
    """
    try:
        image = Image.open(BytesIO(content), formats=FORMATS)
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise UnusableImageError(TOO_LARGE, f"{width} x {height} pixels, at most {MAX_PIXELS:,} are decoded")
        if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
            raise UnusableImageError(
                TOO_NARROW, f"{width} x {height} pixels, at most 1 : {MAX_ASPECT_RATIO} is accepted"
            )
        if side is not None:
            image.draft(None, (min_decoded_side(side),) * 2)  # only JPEG supports it; other formats ignore the call
        image.load()
    except UnusableImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnusableImageError(TOO_LARGE, str(error)) from error
    except Exception as error:  # decoders of odd files raise RuntimeError, AssertionError, TypeError and others
        name = recognize_format(content)
        if name in FORMATS:
            raise _as_damaged(error) from error
        raise UnusableImageError(NOT_AN_IMAGE if name is None else f"{NOT_READ} ({name})") from error
    return image


def _load_without_end_marker(content: bytes, side: int | None, error: UnusableImageError) -> Image.Image:
    """Return a JPEG that lacks its end marker only.

    It is decoded twice, with different bytes between its end and an end marker. They change the pixels if, and only if,
    coded pixels are missing.

    Raises:
        UnusableImageError: `error`, if pixels are missing; or what decoding raised.
    """
    end = content.rstrip(b"\0")
    if end.endswith(b"\xff"):  # a half end marker; before a zero it is a coded byte
        end = end + b"\0" if len(end) < len(content) else end[:-1]
    image, padded = (_load_strictly(end + padding + _JPEG_END, side) for padding in (b"", _PADDING))
    if image.tobytes() != padded.tobytes():
        raise error
    return image


def _drop_png_metadata(content: bytes) -> bytes:
    """Return a PNG without the chunks that its pixels do not need, such as texts; damaged chunks stay as they are."""
    parts, position = [content[:8]], 8
    while position < len(content):
        end = position + 12 + int.from_bytes(content[position : position + 4])
        if content[position + 4 : position + 8] in _PNG_CHUNKS_OF_PIXELS:
            parts.append(content[position:end])
        position = end
    return b"".join(parts)


def _as_damaged(error: Exception) -> UnusableImageError:
    if isinstance(error, UnidentifiedImageError):  # its message names an address in memory
        return UnusableImageError(DAMAGED)
    return UnusableImageError(DAMAGED, str(error) or type(error).__name__)


def _rotate_upright(image: Image.Image) -> None:
    # In place: otherwise Pillow copies an image that has no orientation.
    # An image with unreadable EXIF is used as stored, as browsers do.
    with suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
