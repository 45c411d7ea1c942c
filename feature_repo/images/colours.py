"""Convert decoded images to 8-bit sRGB, as a browser shows them.

Colour profiles (ICC) are converted by littlecms, 16-bit and 12-bit pixels are scaled, and transparent pixels are laid
over white. Colours that a file describes without a profile (`gAMA` or `cICP` of PNG, `nclx` of AVIF) are taken as sRGB.
"""

from functools import lru_cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

SRGB_TOLERANCE = 2
"""Levels of 255. A profile that changes no colour by more is sRGB (files of sRGB differ in rounding): it is ignored."""
MAX_PROFILES = 32
"""Profiles whose conversion is kept."""

_PROFILE_SPACES = {"RGB": ("RGB ",), "L": ("GRAY", "RGB "), "CMYK": ("CMYK",)}
"""The colour spaces that a profile may have for an image of each mode. Browsers ignore a profile of another space."""
_SPACE_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262
"""Tags of TIFF."""
_JPEG_PROFILE = b"ICC_PROFILE\0"


def convert_to_srgb(image: Image.Image, *, png_bit_depth: int = 8) -> Image.Image:
    """Return a loaded image in mode RGB: 8-bit sRGB over white.

    The image's profile is used if it can be read and fits the image; otherwise its colours are taken as sRGB. CMYK
    without a profile is converted as a complement. An opaque image that is RGB already is returned itself.

    Args:
        image: any mode but I and F, whose range of values is unknown.
        png_bit_depth: bits of a sample of a PNG, which Pillow does not tell; of other formats it is not used.
    """
    profile = image.info.get("icc_profile") or b""
    if image.mode.startswith("I;16"):
        image = _scale_to_8_bits(image)
    elif image.mode == "LAB":
        lab = ImageCms.buildTransform(ImageCms.createProfile("LAB"), _srgb(), "LAB", "RGB")
        image, profile = lab.apply(image), b""
    _scale_transparent_colour(image, png_bit_depth)
    if not image.has_transparency_data:
        return _apply_profile(image, profile).convert("RGB") if profile else _to_rgb(image)
    rgba = image.convert("RGBA")
    if profile:
        opaque = image.convert("L") if image.mode in ("L", "LA", "La", "1") else rgba.convert("RGB")
        converted = _apply_profile(opaque, profile).convert("RGB")
        converted.putalpha(rgba.getchannel("A"))
        rgba = converted
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


def convert_pixels(pixels: NDArray[np.uint8], profile: bytes) -> NDArray[np.uint8]:
    """Return pixels [height, width, 3] of a profile in sRGB; the given array if the profile changes nothing.

    Args:
        pixels: opaque colours, as decoded.
        profile: the bytes of an ICC profile; empty for none.
    """
    transform = build_transform(profile, "RGB") if profile else None
    return pixels if transform is None else np.asarray(transform.apply(Image.fromarray(pixels)))


def read_jpeg_profile(content: bytes) -> bytes | None:
    """Return the profile of a JPEG; empty if it has none, None if it is in several parts, which are not joined here.

    Args:
        content: the encoded bytes of a JPEG.
    """
    start = content.find(_JPEG_PROFILE)
    if start < 4:
        return b""
    head = start + len(_JPEG_PROFILE)
    if content[head : head + 2] != b"\x01\x01":  # the number of this part, and of all parts
        return None
    return content[head + 2 : start - 2 + int.from_bytes(content[start - 2 : start])]


@lru_cache(maxsize=MAX_PROFILES)
def build_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the conversion from a profile to sRGB for images of a mode.

    None if the colours stay as they are: the profile cannot be read, is of another colour space than the image, or is
    sRGB within SRGB_TOLERANCE. The intent is perceptual, as in browsers; it matters only for profiles with tables.

    Args:
        profile: the bytes of an ICC profile.
        mode: RGB, L or CMYK. The conversion of L may take RGB: see its `input_mode`.
    """
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        space = source.profile.xcolor_space
        if space not in _PROFILE_SPACES[mode]:
            return None
        flags = ImageCms.Flags.NOOPTIMIZE if space == "GRAY" else ImageCms.Flags.NONE  # optimized, grey is inexact
        transform = ImageCms.buildTransform(source, _srgb(), _SPACE_MODES[space], "RGB", flags=flags)
        if mode != "CMYK":
            samples = _sample_colours(mode)
            before = np.asarray(samples.convert("RGB")).astype(np.int16)
            after = np.asarray(transform.apply(samples.convert(transform.input_mode))).astype(np.int16)
            if np.abs(after - before).max() <= SRGB_TOLERANCE:
                return None
    except Exception:  # Pillow names no closed set of errors for a damaged profile; browsers ignore it
        return None
    return transform


def _to_rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


def _apply_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """Return an opaque image in sRGB, or as it is if the profile changes nothing."""
    mode = image.mode if image.mode in ("L", "CMYK") else "L" if image.mode == "1" else "RGB"
    transform = build_transform(profile, mode)
    if transform is None:
        return image
    return transform.apply(image if image.mode == transform.input_mode else image.convert(transform.input_mode))


def _scale_to_8_bits(image: Image.Image) -> Image.Image:
    """Return 16-bit grey as mode L, or LA where a PNG names a transparent grey; 12-bit TIFF fills 16 bits in part."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    values = np.asarray(image).astype(np.uint32)
    largest = (1 << bits) - 1
    grey = np.minimum((values * 255 + largest // 2) // largest, 255).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == 0:  # 0 is white
        grey = 255 - grey
    scaled = Image.fromarray(grey)
    transparent = image.info.get("transparency")
    if transparent is not None:
        scaled.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return scaled


def _scale_transparent_colour(image: Image.Image, png_bit_depth: int) -> None:
    """Scale the transparent colour of a PNG to 8 bits, in place: Pillow scales the pixels only."""
    colour = image.info.get("transparency")
    if image.mode == "L" and isinstance(colour, int) and png_bit_depth in (2, 4):
        image.info["transparency"] = colour * (255 // ((1 << png_bit_depth) - 1))
    elif image.mode == "RGB" and isinstance(colour, tuple) and png_bit_depth == 16:
        image.info["transparency"] = tuple(channel >> 8 for channel in colour)


@lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _sample_colours(mode: str) -> Image.Image:
    """Return an image with all greys, or with 9 levels of each channel in all combinations."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3))
