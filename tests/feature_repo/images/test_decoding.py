"""`open_image`: which images it decodes, and which it refuses for what reason."""

import os
import pickle
import struct
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from feature_repo.images import decoding
from feature_repo.images.decoding import UnusableImageError, open_image, open_pixels
from tests.colour_profiles import ADOBE_RGB, make_profile

RED = (200, 30, 40)


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def make_noise(width: int = 64, height: int = 48) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


SMALL_FILES = {form: encode(make_noise(16, 12), form) for form in decoding.FORMATS}


def make_png_with_header(width: int, height: int) -> bytes:
    """Return a PNG of a few bytes whose header states the given size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def read_reason(source: Path | bytes) -> str:
    with pytest.raises(UnusableImageError) as caught:
        open_image(source)
    return caught.value.reason


def read_colour(image: Image.Image, x: int = 2, y: int = 2) -> tuple[int, ...]:
    assert image.mode == "RGB"
    pixel = image.getpixel((x, y))
    assert isinstance(pixel, tuple)
    return pixel


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_opens_every_known_format_from_a_file_and_from_bytes(form: str, tmp_path: Path) -> None:
    content = encode(Image.new("RGB", (20, 10), RED), form)
    (tmp_path / "any-name").write_bytes(content)
    for source in (content, tmp_path / "any-name"):
        image = open_image(source)
        assert image.size == (20, 10)
        assert np.abs(np.subtract(read_colour(image), RED)).max() <= 4


def test_reports_a_missing_file(tmp_path: Path) -> None:
    assert read_reason(tmp_path / "nothing.jpg") == decoding.MISSING


def test_reports_a_folder_as_unreadable(tmp_path: Path) -> None:
    assert read_reason(tmp_path) == decoding.UNREADABLE


def test_does_not_read_pipes_and_devices(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert read_reason(tmp_path / "pipe.jpg") == decoding.UNREADABLE
    assert read_reason(Path("/dev/zero")) == decoding.UNREADABLE


@pytest.mark.parametrize("name", ["a\0b.jpg", "x" * 5000])
def test_reports_an_invalid_path_as_unreadable(name: str, tmp_path: Path) -> None:
    assert read_reason(tmp_path / name) == decoding.UNREADABLE


def test_refuses_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    assert read_reason(tmp_path / "empty.jpg") == decoding.EMPTY


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_refuses_a_truncated_image_instead_of_filling_it_with_grey(form: str, share: float) -> None:
    content = encode(make_noise(), form)
    assert read_reason(content[: int(len(content) * share)]) == decoding.DAMAGED


def test_refuses_a_file_that_is_not_an_image_with_any_name(tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_bytes(b"<html>404 not found</html>")
    assert read_reason(tmp_path / "page.jpg") == f"{decoding.NOT_READ} (HTML)"
    (tmp_path / "note.jpg").write_bytes(b"to do: a picture")
    assert read_reason(tmp_path / "note.jpg") == decoding.NOT_AN_IMAGE


def test_never_runs_the_interpreter_of_a_program_format() -> None:
    assert read_reason(encode(Image.new("RGB", (20, 10), RED), "EPS")) == f"{decoding.NOT_READ} (PostScript)"


def make_box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + kind + body


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (make_box(b"ftyp", b"heic\0\0\0\0mif1heic"), "HEIC"),
        (make_box(b"ftyp", b"mif1\0\0\0\0mif1heic"), "HEIC"),
        (make_box(b"ftyp", b"isom\0\0\0\0isomavc1"), "MP4"),
        (make_box(b"ftyp", b"qt  \0\0\0\0qt  "), "QuickTime"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "WAV"),
        (b"RIFF\x24\0\0\0AVI LIST", "AVI"),
        (b"\xff\x0a\xfa\x1f", "JPEG XL"),
        (make_box(b"JXL ", b"\r\n\x87\n"), "JPEG XL"),
        (make_box(b"jP  ", b"\r\n\x87\n"), "JPEG 2000"),
        (b"%PDF-1.7\n", "PDF"),
        (b"\x1aE\xdf\xa3\x9f", "Matroska or WebM"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b'\xef\xbb\xbf  <svg width="4"/>', "SVG"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
        (b"\n<!DOCTYPE html><title>moved</title>", "HTML"),
        (b'{"error": "not found"}', "JSON"),
        (b"PK\x03\x04", "ZIP"),
    ],
)
def test_names_the_format_of_a_file_that_is_no_picture_that_is_read(content: bytes, name: str) -> None:
    assert read_reason(content + bytes(500)) == f"not a format that is read ({name})"


@pytest.mark.parametrize("brand", [b"avif\0\0\0\0mif1", b"mif1\0\0\0\0mif1avif"])
def test_a_damaged_avif_is_damaged_and_not_a_foreign_format(brand: bytes) -> None:
    assert read_reason(make_box(b"ftyp", brand) + bytes(200)) == decoding.DAMAGED


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("side", [None, 20])
def test_a_jpeg_without_its_end_marker_is_whole_and_one_without_a_pixel_is_damaged(
    progressive: bool, side: int | None
) -> None:
    content = encode(make_noise(100, 80), "JPEG", quality=90, progressive=progressive)
    whole = np.asarray(open_image(content, side=side))
    for end in (b"", b"\xff", b"\0" * 300):
        assert np.array_equal(np.asarray(open_image(content[:-2] + end, side=side)), whole)
    for missing in (4, 6, 10, 30, 300, 2000):
        for end in (b"", b"\0" * 300):
            try:
                pixels = np.asarray(open_image(content[:-missing] + end, side=side))
            except UnusableImageError as error:
                assert error.reason == decoding.DAMAGED  # noqa: PT017  # what is decoded must be whole
            else:
                assert np.array_equal(pixels, whole), missing


@pytest.mark.parametrize("size", [1_500_000, 9_000_000])
@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt"])
@pytest.mark.parametrize("at_end", [False, True])
def test_a_png_with_a_long_text_is_decoded(kind: bytes, size: int, at_end: bool) -> None:
    text = b"x" * size
    body = {b"tEXt": text, b"zTXt": b"\0" + zlib.compress(text), b"iTXt": b"\1\0\0\0" + zlib.compress(text)}[kind]
    chunk = struct.pack(">I", len(body) + 2) + kind + b"k\0" + body
    chunk += struct.pack(">I", zlib.crc32(chunk[4:]))
    content = encode(Image.new("RGB", (20, 10), RED), "PNG")
    place = content.index(b"IEND") - 4 if at_end else content.index(b"IDAT") - 4
    assert read_colour(open_image(content[:place] + chunk + content[place:])) == RED
    assert read_colour(open_image(content[:place] + chunk[:-4] + b"\0\0\0\0" + content[place:])) == RED


def test_a_png_with_a_profile_of_more_than_a_megabyte_is_decoded_by_it() -> None:
    profile = make_profile(ADOBE_RGB, 2.2, padding=1_500_000)
    content = encode(Image.new("RGB", (20, 10), (60, 200, 90)), "PNG", icc_profile=profile)
    assert read_colour(open_image(content))[0] < 20


def test_any_error_of_a_decoder_makes_the_image_unusable() -> None:
    no_palette = bytearray(make_png_with_header(4, 4))
    no_palette[25] = 3  # colours of a palette that is not there: Pillow raises AssertionError
    no_palette[29:33] = struct.pack(">I", zlib.crc32(no_palette[12:29]))
    assert read_reason(bytes(no_palette)) == decoding.DAMAGED
    avif = encode(make_noise(), "AVIF")
    assert read_reason(avif[: len(avif) // 2]) == decoding.DAMAGED  # RuntimeError


@pytest.mark.parametrize("form", decoding.FORMATS)
@given(data=st.data())
@settings(max_examples=settings.default.max_examples * 3 // 5)
@pytest.mark.filterwarnings("ignore")
def test_a_mutated_file_is_decoded_or_unusable_and_raises_nothing_else(form: str, data: st.DataObject) -> None:
    content = bytearray(SMALL_FILES[form])
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(1, len(content)))] if data.draw(st.booleans()) else content
    for decode in (lambda: open_image(bytes(content)).size, lambda: open_pixels(bytes(content), side=16).shape):
        with suppress(UnusableImageError):
            decode()


@pytest.mark.parametrize("size", [(8_000, 8_000), (12_000, 12_000), (60_000, 60_000)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_refuses_a_decompression_bomb_by_its_header_without_decoding_it(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    assert read_reason(make_png_with_header(*size)) == decoding.TOO_LARGE


def test_refuses_a_file_of_too_many_bytes_without_reading_it(tmp_path: Path) -> None:
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(decoding.MAX_BYTES + 1)
    assert read_reason(tmp_path / "huge.jpg") == decoding.TOO_LARGE


def test_refuses_an_image_with_an_extreme_aspect_ratio() -> None:
    assert read_reason(encode(Image.new("RGB", (5_000, 1), RED), "PNG")) == decoding.TOO_NARROW


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_decodes_the_first_frame_of_an_animation(form: str) -> None:
    first, second = Image.new("RGB", (16, 16), RED), Image.new("RGB", (16, 16), (0, 0, 255))
    content = encode(first, form, save_all=True, append_images=[second], duration=100)
    assert np.abs(np.subtract(read_colour(open_image(content)), RED)).max() <= 4


def test_converts_cmyk_to_the_printed_colour() -> None:
    content = encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    red, green, blue = read_colour(open_image(content))
    assert red > 245
    assert max(green, blue) < 10


def test_scales_sixteen_bit_grey_instead_of_clipping_it() -> None:
    grey = np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)
    for form in ("PNG", "TIFF"):
        image = open_image(encode(Image.fromarray(grey), form))
        assert [read_colour(image, x, 0)[0] for x in range(4)] == [0, 1, 128, 255]


def test_refuses_pixels_of_unknown_range() -> None:
    tiff = encode(Image.fromarray(np.ones((4, 4), dtype=np.float32)), "TIFF")
    assert read_reason(tiff) == decoding.UNKNOWN_RANGE


def test_decodes_the_colours_of_a_palette() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, *RED])
    assert read_colour(open_image(encode(image, "PNG"))) == RED


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_lays_transparency_over_white(alpha: int) -> None:
    content = encode(Image.new("RGBA", (8, 8), (*RED, alpha)), "PNG")
    wanted = [round(channel * alpha / 255 + 255 - alpha) for channel in RED]
    assert np.abs(np.subtract(read_colour(open_image(content)), wanted)).max() <= 1


def test_lays_the_transparent_entry_of_a_palette_over_white() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, *RED])
    assert read_colour(open_image(encode(image, "PNG", transparency=1))) == (255, 255, 255)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_rotates_an_image_upright_by_its_exif_orientation(orientation: int) -> None:
    stored = Image.new("RGB", (40, 20), (0, 0, 255))
    stored.paste(RED, (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = open_image(encode(stored, "PNG", exif=exif))
    width, height = image.size
    corner = {1: (2, 2), 3: (width - 3, height - 3), 6: (width - 3, 2), 8: (2, height - 3)}[orientation]
    assert image.size == ((40, 20) if orientation in (1, 3) else (20, 40))
    assert read_colour(image, *corner) == RED


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_decodes_an_image_with_broken_exif_as_stored() -> None:
    content = encode(Image.new("RGB", (20, 10), RED), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01")
    assert open_image(content).size == (20, 10)


def test_an_error_keeps_its_reason_when_pickled() -> None:
    error = pickle.loads(pickle.dumps(UnusableImageError(decoding.MISSING, "a.jpg")))
    assert (error.reason, str(error)) == (decoding.MISSING, f"{decoding.MISSING}: a.jpg")


@pytest.mark.parametrize(("size", "decoded"), [(400, 400), (800, 400), (1700, 425), (335, 335)])
def test_a_jpeg_that_will_be_reduced_is_decoded_at_reduced_size_and_looks_the_same(size: int, decoded: int) -> None:
    smooth = make_noise(size // 16, size // 16).resize((size, size), Image.Resampling.BICUBIC)
    content = encode(smooth, "JPEG", quality=90)
    fast, slow = open_image(content, side=224), open_image(content)
    assert fast.size == (decoded, decoded)
    assert slow.size == (size, size)
    small = [np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC)).astype(int) for image in (fast, slow)]
    assert np.abs(small[0] - small[1]).mean() < 1.5


def test_only_a_jpeg_is_decoded_at_reduced_size() -> None:
    assert open_image(encode(make_noise(500, 500), "PNG"), side=20).size == (500, 500)
