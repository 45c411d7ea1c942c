"""`open_pixels` gives the same pixels or the same error as `open_image` for every image."""

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from feature_repo.images import decoding
from feature_repo.images.decoding import UnusableImageError, open_image, open_pixels
from tests.colour_profiles import DISPLAY_P3, SRGB, SRGB_CURVE, make_profile

SIDE = 64
PROFILES = [make_profile(SRGB, SRGB_CURVE), make_profile(DISPLAY_P3, SRGB_CURVE), b"damaged"]


def make_jpeg(width: int, height: int, mode: str, seed: int, **options: object) -> bytes:
    """Return a JPEG of smooth colours with a hard edge."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    image.paste((250, 10, 10), (0, 0, width // 3, height // 2))
    stream = BytesIO()
    image.convert(mode).save(stream, "JPEG", **options)
    return stream.getvalue()


def make_rotated_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def decode_by_pillow(content: bytes, side: int) -> np.ndarray | str:
    try:
        return np.asarray(open_image(content, side=side))
    except UnusableImageError as error:
        return str(error)


def is_same(content: bytes, side: int = SIDE) -> bool:
    slow = decode_by_pillow(content, side)
    try:
        fast: np.ndarray | str = open_pixels(content, side=side)
    except UnusableImageError as error:
        fast = str(error)
    return type(fast) is type(slow) and bool(np.array_equal(fast, slow))


@given(
    width=st.integers(1, 260),
    height=st.integers(1, 260),
    seed=st.integers(0, 9),
    quality=st.sampled_from([5, 75, 95, 100]),
    subsampling=st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
    progressive=st.booleans(),
    mode=st.sampled_from(["RGB", "L", "CMYK"]),
    exif=st.booleans(),
    profile=st.sampled_from([None, *PROFILES]),
)
def test_any_jpeg_has_the_pixels_of_pillow(
    width: int,
    height: int,
    seed: int,
    quality: int,
    subsampling: str,
    progressive: bool,
    mode: str,
    exif: bool,
    profile: bytes | None,
) -> None:
    exif_option: dict[str, object] = {"exif": make_rotated_exif()} if exif else {}
    options = {"quality": quality, "subsampling": subsampling, "progressive": progressive} | exif_option
    options |= {} if profile is None else {"icc_profile": profile}
    assert is_same(make_jpeg(width, height, mode, seed, **options))


@given(st.data())
def test_a_damaged_jpeg_is_refused_as_by_pillow(data: st.DataObject) -> None:
    content = bytearray(make_jpeg(90, 70, "RGB", 0))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(2, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(3, len(content)))]
    if isinstance(decode_by_pillow(bytes(content), SIDE), str):
        assert is_same(bytes(content))


def test_an_ordinary_jpeg_is_decoded_by_simplejpeg_and_a_rotated_grey_or_truncated_one_is_not() -> None:
    ordinary = make_jpeg(96, 80, "RGB", 0)
    assert decoding.read_simple_jpeg_size(ordinary) == (96, 80)
    assert decoding.decode_simple_jpeg(ordinary) is not None
    assert decoding.read_simple_jpeg_size(make_jpeg(96, 80, "RGB", 0, exif=make_rotated_exif())) is None
    assert decoding.read_simple_jpeg_size(make_jpeg(96, 80, "L", 0)) is None
    assert decoding.read_simple_jpeg_size(b"\x89PNG") is None
    assert decoding.decode_simple_jpeg(ordinary[:-200]) is None


def test_an_image_that_is_reduced_or_too_large_is_left_to_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        decoding, "decode_simple_jpeg", lambda content: pytest.fail("must not be decoded by simplejpeg")
    )
    assert open_pixels(make_jpeg(200, 220, "RGB", 0), side=SIDE).shape == (110, 100, 3)
    for limit, value in (("MAX_PIXELS", 96 * 95), ("MAX_BYTES", 10), ("MAX_ASPECT_RATIO", 1)):
        with monkeypatch.context() as smaller:
            smaller.setattr(decoding, limit, value)
            with pytest.raises(UnusableImageError):
                open_pixels(make_jpeg(96, 97, "RGB", 0), side=SIDE)


def test_reads_a_file_and_refuses_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(make_jpeg(96, 96, "RGB", 1))
    assert np.array_equal(open_pixels(tmp_path / "a.jpg", side=SIDE), np.asarray(open_image(tmp_path / "a.jpg")))
    with pytest.raises(UnusableImageError, match=decoding.MISSING):
        open_pixels(tmp_path / "b.jpg", side=SIDE)


def test_without_simplejpeg_the_pixels_are_the_same() -> None:
    content = make_jpeg(90, 70, "RGB", 3)
    line = (
        "import sys; sys.modules['simplejpeg'] = None\n"
        "from feature_repo.images.decoding import open_pixels\n"
        f"sys.stdout.buffer.write(open_pixels(sys.stdin.buffer.read(), side={SIDE}).tobytes())"
    )
    done = subprocess.run([sys.executable, "-c", line], input=content, capture_output=True, check=True)
    assert done.stdout == open_pixels(content, side=SIDE).tobytes()
