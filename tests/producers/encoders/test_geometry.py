"""Pictures cut a batch at a time, against Pillow one by one."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from feature_repo.images import open_image
from producers.encoders import tiny_clip
from producers.encoders.geometry import Geometry, resize_images
from producers.encoders.image_loader import decode_images, open_decoding_pool

SIZES = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=8)
GEOMETRIES = [
    Geometry(height=32, width=32, resize_to=(32, 32), resample=3),
    Geometry(height=24, width=20, resize_to=(32, 28), resample=2),
    Geometry(height=32, width=32, resize_to=36, resample=3),
]


@given(SIZES, st.sampled_from(GEOMETRIES), st.integers(0, 99))
def test_pictures_of_any_sizes_are_those_of_pillow(sizes: list[tuple[int, int]], geometry: Geometry, seed: int) -> None:
    chance = np.random.default_rng(seed)
    pictures = [chance.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    wanted = np.stack([geometry.apply(Image.fromarray(picture)) for picture in pictures])
    rows, told = np.full((len(pictures), 60 * 60 * 3), 99, np.uint8), np.array(sizes, np.int32)
    for row, picture in zip(rows, pictures, strict=True):
        row[: picture.size] = picture.ravel()
    for place in range(seed % 3, len(pictures), 3):  # one that comes cut is taken as it is
        rows[place, : wanted[place].size], told[place] = wanted[place].ravel(), 0
    apart = np.abs(resize_images(rows, told, geometry).astype(int) - wanted)
    assert apart.shape == wanted.shape
    for (height, width), each in zip(told.tolist(), apart, strict=True):
        to_height, to_width = geometry.resized_size(max(height, 1), max(width, 1))
        if width * to_height > height * to_width or not height:
            assert each.max() <= 2
        assert each.mean() < 1  # noise, where Pillow took the other axis first


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with open_decoding_pool(1) as processes:
        yield processes


@pytest.mark.parametrize("geometry", [tiny_clip.GEOMETRY, GEOMETRIES[2], Geometry(64, 64, (64, 64), resample=1)])
def test_small_and_large_pictures_of_one_batch_come_as_pillow_cuts_them(
    geometry: Geometry, pool: ProcessPoolExecutor
) -> None:
    contents: list[bytes] = []
    for number, size in enumerate([(96, 96), (50, 30), (400, 300), (96, 96), (97, 96), (64, 64)]):
        stream = BytesIO()
        coarse = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        picture.save(stream, "JPEG" if number % 2 else "PNG")
        contents.append(stream.getvalue())
    wanted = np.stack([geometry.apply(open_image(content, side=geometry.side)) for content in contents])
    found = decode_images([*contents[:3], b"", *contents[3:]], geometry, pool)
    assert found.usable.tolist() == [True, True, True, False, True, True, True]
    assert np.abs(found.pixels.astype(int) - wanted).max() <= 1
