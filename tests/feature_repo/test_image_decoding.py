"""`open_image`: which images it decodes, and which it refuses for what reason."""

import os
import pickle
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from feature_repo import image_decoding
from feature_repo.image_decoding import UnusableImageError, open_image

RED = (200, 30, 40)


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def make_noise(width: int = 64, height: int = 48) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


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
    assert read_reason(tmp_path / "nothing.jpg") == image_decoding.MISSING


def test_reports_a_folder_as_unreadable(tmp_path: Path) -> None:
    assert read_reason(tmp_path) == image_decoding.UNREADABLE


def test_does_not_read_pipes_and_devices(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert read_reason(tmp_path / "pipe.jpg") == image_decoding.UNREADABLE
    assert read_reason(Path("/dev/zero")) == image_decoding.UNREADABLE


@pytest.mark.parametrize("name", ["a\0b.jpg", "x" * 5000])
def test_reports_an_invalid_path_as_unreadable(name: str, tmp_path: Path) -> None:
    assert read_reason(tmp_path / name) == image_decoding.UNREADABLE


def test_refuses_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    assert read_reason(tmp_path / "empty.jpg") == image_decoding.EMPTY


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_refuses_a_truncated_image_instead_of_filling_it_with_grey(form: str, share: float) -> None:
    content = encode(make_noise(), form)
    assert read_reason(content[: int(len(content) * share)]) == image_decoding.DAMAGED


def test_refuses_a_file_that_is_not_an_image_with_any_name(tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_bytes(b"<html>404 not found</html>")
    assert read_reason(tmp_path / "page.jpg") == image_decoding.NOT_AN_IMAGE


def test_never_runs_the_interpreter_of_a_program_format() -> None:
    assert read_reason(encode(Image.new("RGB", (20, 10), RED), "EPS")) == image_decoding.NOT_AN_IMAGE


@pytest.mark.parametrize("size", [(8_000, 8_000), (12_000, 12_000), (60_000, 60_000)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_refuses_a_decompression_bomb_by_its_header_without_decoding_it(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    assert read_reason(make_png_with_header(*size)) == image_decoding.TOO_LARGE


def test_refuses_a_file_of_too_many_bytes_without_reading_it(tmp_path: Path) -> None:
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(image_decoding.MAX_BYTES + 1)
    assert read_reason(tmp_path / "huge.jpg") == image_decoding.TOO_LARGE


def test_refuses_an_image_with_an_extreme_aspect_ratio() -> None:
    assert read_reason(encode(Image.new("RGB", (5_000, 1), RED), "PNG")) == image_decoding.TOO_NARROW


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
    assert read_reason(tiff) == image_decoding.UNKNOWN_RANGE


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
    error = pickle.loads(pickle.dumps(UnusableImageError(image_decoding.MISSING, "a.jpg")))
    assert (error.reason, str(error)) == (image_decoding.MISSING, f"{image_decoding.MISSING}: a.jpg")


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
