"""Colours: what `open_image` and `open_pixels` make of profiles, bit depths, transparency and printers' colours."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from feature_repo.images import colours, decoding
from feature_repo.images.decoding import open_image, open_pixels
from tests import colour_profiles as profiles
from tests.colour_profiles import make_profile

WIDE_GAMUTS = {
    "Display P3": (profiles.DISPLAY_P3, profiles.SRGB_CURVE),
    "Adobe RGB": (profiles.ADOBE_RGB, 2.19921875),
    "gamma 1.8": (profiles.SRGB, 1.8),
}
WHITE = (255, 255, 255)


def encode(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def make_png(width: int, depth: int, colour_type: int, row: bytes, **chunks: bytes) -> bytes:
    """Return a PNG of one row, with bit depths that Pillow does not write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, 1, depth, colour_type, 0, 0, 0)
    parts = [(b"IHDR", header), *((name.encode(), body) for name, body in chunks.items())]
    parts += [(b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def make_colours(rows: int = 24) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (rows, 24, 3), dtype=np.uint8)


def read_row(content: bytes) -> list[tuple[int, ...]]:
    return [tuple(pixel) for pixel in np.asarray(open_image(content))[0].tolist()]


@pytest.mark.parametrize("gamut", WIDE_GAMUTS)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_of_a_profile_are_those_of_the_formula(gamut: str, mode: str) -> None:
    matrix, curve = WIDE_GAMUTS[gamut]
    image = Image.fromarray(make_colours(8)).quantize(200) if mode == "P" else Image.fromarray(make_colours())
    stored = np.asarray(image.convert("RGB"))
    content = encode(image.convert(mode), icc_profile=make_profile(matrix, curve))
    wanted = profiles.convert_to_srgb(stored, matrix, curve).astype(int)
    assert np.abs(np.asarray(open_image(content)) - wanted).max() <= 2
    assert np.abs(stored - wanted).max() > 15


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "TIFF", "AVIF"])
def test_every_format_with_profiles_is_converted(form: str) -> None:
    green = Image.new("RGB", (64, 64), (60, 200, 90))
    content = encode(green, form, icc_profile=make_profile(profiles.ADOBE_RGB, 2.2))
    wanted = profiles.convert_to_srgb(np.array([60, 200, 90], np.uint8), profiles.ADOBE_RGB, 2.2).astype(int)
    for pixels in (np.asarray(open_image(content)), open_pixels(content, side=64)):
        assert np.abs(pixels[30, 30] - wanted).max() <= 6
    assert wanted[0] < 20


@pytest.mark.parametrize(
    "profile",
    [make_profile(profiles.SRGB, profiles.SRGB_CURVE), b"no profile", make_profile(None, 2.2, space=b"GRAY"), b""],
    ids=["sRGB", "damaged", "of another colour space", "none"],
)
def test_a_profile_that_changes_nothing_leaves_every_pixel_and_the_fast_path_as_they_are(
    profile: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image.fromarray(make_colours()).resize((96, 96))
    with_profile, without = encode(image, "JPEG", icc_profile=profile), encode(image, "JPEG")
    assert np.array_equal(np.asarray(open_image(with_profile)), np.asarray(open_image(without)))
    monkeypatch.setattr(decoding, "open_image", lambda *_, **__: pytest.fail("must be decoded by simplejpeg"))
    assert np.array_equal(open_pixels(with_profile, side=96), open_pixels(without, side=96))


def test_a_profile_in_several_parts_is_converted() -> None:
    profile = make_profile(profiles.DISPLAY_P3, profiles.SRGB_CURVE, padding=100_000)
    content = encode(Image.new("RGB", (64, 64), (60, 200, 90)), "JPEG", icc_profile=profile)
    assert content.count(b"ICC_PROFILE\0") == 2
    assert colours.read_jpeg_profile(content) is None
    assert open_pixels(content, side=64)[30, 30, 0] < 20


def test_grey_is_converted_by_a_profile_of_grey_and_by_one_of_colours() -> None:
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None].repeat(8, 0))
    wanted = profiles.convert_to_srgb(np.asarray(ramp.convert("RGB")), profiles.SRGB, 1.0).astype(int)
    for profile in (make_profile(None, 1.0, space=b"GRAY"), make_profile(profiles.SRGB, 1.0)):
        for mode in ("L", "LA"):
            pixels = np.asarray(open_image(encode(ramp.convert(mode), icc_profile=profile)))
            assert np.abs(pixels - wanted).max() <= 2


def test_transparent_pixels_of_a_profile_are_white_and_not_converted_white() -> None:
    image = Image.new("RGBA", (8, 8), (60, 200, 90, 0))
    image.putpixel((0, 0), (60, 200, 90, 255))
    first, second = read_row(encode(image, icc_profile=make_profile(profiles.ADOBE_RGB, 2.2)))[:2]
    assert first[0] < 20
    assert second == WHITE


def test_cmyk_without_a_usable_profile_is_a_complement() -> None:
    content = encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "TIFF")
    with_foreign = encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "TIFF", icc_profile=make_profile(None, 2.2))
    assert read_row(content)[0] == read_row(with_foreign)[0] == (255, 0, 0)


def test_a_transparent_grey_of_16_bits_is_white_as_one_of_8_bits_is() -> None:
    grey16 = make_png(3, 16, 0, struct.pack(">3H", 0x1234, 0x1235, 65535), tRNS=struct.pack(">H", 0x1234))
    grey8 = make_png(3, 8, 0, bytes([0x12, 0x13, 255]), tRNS=struct.pack(">H", 0x12))
    assert read_row(grey16) == [WHITE, (0x12,) * 3, WHITE]
    assert read_row(grey8) == [WHITE, (0x13,) * 3, WHITE]


@pytest.mark.parametrize(
    ("depth", "row", "key", "opaque"),
    [(1, b"\x80", 0, 255), (2, b"\x70", 1, 255), (4, b"\x7f", 7, 255), (8, b"\x07\xff", 7, 255)],
)
def test_a_transparent_grey_of_any_depth_is_white(depth: int, row: bytes, key: int, opaque: int) -> None:
    expected = [WHITE, (opaque,) * 3] if depth > 1 else [(opaque,) * 3, WHITE]
    black = make_png(2, depth, 0, row, tRNS=struct.pack(">H", key))
    assert read_row(black) == expected


def test_a_transparent_colour_of_16_bits_is_white() -> None:
    row = struct.pack(">6H", 0x1234, 0x2234, 0x3234, 0x1334, 0x2234, 0x3234)
    content = make_png(2, 16, 2, row, tRNS=struct.pack(">3H", 0x1234, 0x2234, 0x3234))
    assert read_row(content) == [WHITE, (0x13, 0x22, 0x32)]


def test_grey_and_alpha_of_16_bits_are_laid_over_white() -> None:
    content = make_png(3, 16, 4, struct.pack(">6H", 0, 65535, 0, 0, 0, 0x8000))
    assert read_row(content) == [(0, 0, 0), WHITE, (127, 127, 127)]


def test_a_tiff_of_12_bits_fills_the_range_of_8() -> None:
    values = [0, 2048, 4095, 16]
    packed = b"".join(((a << 12) | b).to_bytes(3) for a, b in zip(values[::2], values[1::2], strict=True))
    tags = [(256, 4), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, len(packed))]
    entries = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags)
    tiff = struct.pack("<2sHI", b"II", 42, 8 + len(packed)) + packed + struct.pack("<H", len(tags)) + entries
    assert [pixel[0] for pixel in read_row(tiff + b"\0\0\0\0")] == [0, 128, 255, 1]


def test_a_tiff_of_16_bits_whose_zero_is_white_is_inverted() -> None:
    grey = Image.fromarray(np.array([[0, 257, 65535]], np.uint16))
    assert [pixel[0] for pixel in read_row(encode(grey, "TIFF", tiffinfo={262: 0}))] == [255, 254, 0]


def test_lab_is_converted() -> None:
    lab = encode(Image.new("LAB", (4, 4), (255, 128, 128)), "TIFF")
    assert np.abs(np.subtract(read_row(lab)[0], WHITE)).max() <= 1
