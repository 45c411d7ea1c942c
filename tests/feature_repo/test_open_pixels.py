"""`open_pixels` against `open_image`: whatever the picture, the same pixels or the same refusal."""

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from feature_repo import images
from feature_repo.images import UnusableImageError, open_image, open_pixels

SIDE = 64


def drawn(width: int, height: int, mode: str, seed: int, **options: object) -> bytes:
    """A JPEG of smooth colours with a hard edge."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    image.paste((250, 10, 10), (0, 0, width // 3, height // 2))
    stream = BytesIO()
    image.convert(mode).save(stream, "JPEG", **options)
    return stream.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def seen(content: bytes, side: int) -> np.ndarray | str:
    try:
        return np.asarray(open_image(content, side=side))
    except UnusableImageError as error:
        return str(error)


def same(content: bytes, side: int = SIDE) -> bool:
    slow = seen(content, side)
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
)
def test_a_jpeg_of_any_kind_has_the_pixels_that_pillow_gives_it(
    width: int, height: int, seed: int, quality: int, subsampling: str, progressive: bool, mode: str, exif: bool
) -> None:
    noted: dict[str, object] = {"exif": turned()} if exif else {}
    options = {"quality": quality, "subsampling": subsampling, "progressive": progressive} | noted
    assert same(drawn(width, height, mode, seed, **options))


@given(st.data())
def test_a_damaged_jpeg_is_judged_by_pillow(data: st.DataObject) -> None:
    content = bytearray(drawn(90, 70, "RGB", 0))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(2, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(3, len(content)))]
    if isinstance(seen(bytes(content), SIDE), str):
        assert same(bytes(content))


def test_an_everyday_jpeg_goes_the_quick_way_and_a_turned_grey_or_cut_off_one_does_not() -> None:
    everyday = drawn(96, 80, "RGB", 0)
    assert images.read_simple_jpeg_size(everyday) == (96, 80)
    assert images.decode_simple_jpeg(everyday) is not None
    assert images.read_simple_jpeg_size(drawn(96, 80, "RGB", 0, exif=turned())) is None
    assert images.read_simple_jpeg_size(drawn(96, 80, "L", 0)) is None
    assert images.read_simple_jpeg_size(b"\x89PNG") is None
    assert images.decode_simple_jpeg(everyday[:-200]) is None


def test_one_that_is_decoded_smaller_or_too_large_is_left_to_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "decode_simple_jpeg", lambda content: pytest.fail("not one for the quick way"))
    assert open_pixels(drawn(200, 220, "RGB", 0), side=SIDE).shape == (110, 100, 3)
    for limit, value in (("MAX_PIXELS", 96 * 95), ("MAX_BYTES", 10), ("MAX_ASPECT_RATIO", 1)):
        with monkeypatch.context() as smaller:
            smaller.setattr(images, limit, value)
            with pytest.raises(UnusableImageError):
                open_pixels(drawn(96, 97, "RGB", 0), side=SIDE)


def test_a_file_is_read_and_a_missing_one_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(drawn(96, 96, "RGB", 1))
    assert np.array_equal(open_pixels(tmp_path / "a.jpg", side=SIDE), np.asarray(open_image(tmp_path / "a.jpg")))
    with pytest.raises(UnusableImageError, match=images.MISSING):
        open_pixels(tmp_path / "b.jpg", side=SIDE)


def test_a_machine_without_the_quick_decoder_gets_the_same_pixels() -> None:
    content = drawn(90, 70, "RGB", 3)
    line = (
        "import sys; sys.modules['simplejpeg'] = None\n"
        "from feature_repo.images import open_pixels\n"
        f"sys.stdout.buffer.write(open_pixels(sys.stdin.buffer.read(), side={SIDE}).tobytes())"
    )
    done = subprocess.run([sys.executable, "-c", line], input=content, capture_output=True, check=True)
    assert done.stdout == open_pixels(content, side=SIDE).tobytes()
