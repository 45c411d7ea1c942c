"""Images resized in batches by torch, compared with Pillow one by one."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from feature_repo.images.decoding import open_image
from feature_repo.images.geometry import Geometry
from producers.encoders import tiny_clip
from producers.encoders.geometry import resize_images
from producers.encoders.image_loader import decode_images, open_decoding_pool

SIZES = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=8)
GEOMETRIES = [
    Geometry(height=32, width=32, resize_to=(32, 32), resample=3),
    Geometry(height=24, width=20, resize_to=(32, 28), resample=2),
    Geometry(height=32, width=32, resize_to=36, resample=3),
]


@given(SIZES, st.sampled_from(GEOMETRIES), st.integers(0, 99))
def test_images_of_any_sizes_equal_those_of_pillow(sizes: list[tuple[int, int]], geometry: Geometry, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    expected = np.stack([geometry.apply(Image.fromarray(image)) for image in images])
    rows, given_sizes = np.full((len(images), 60 * 60 * 3), 99, np.uint8), np.array(sizes, np.int32)
    for row, image in zip(rows, images, strict=True):
        row[: image.size] = image.ravel()
    for number in range(seed % 3, len(images), 3):  # an image of size 0 is resized already
        rows[number, : expected[number].size], given_sizes[number] = expected[number].ravel(), 0
    difference = np.abs(resize_images(rows, given_sizes, geometry).astype(int) - expected)
    assert difference.shape == expected.shape
    for (height, width), each in zip(given_sizes.tolist(), difference, strict=True):
        to_height, to_width = geometry.resized_size(max(height, 1), max(width, 1))
        if width * to_height > height * to_width or not height:
            assert each.max() <= 2
        assert each.mean() < 1  # noise: Pillow may resize the other axis first


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with open_decoding_pool(1) as processes:
        yield processes


@pytest.mark.parametrize("geometry", [tiny_clip.GEOMETRY, GEOMETRIES[2], Geometry(64, 64, (64, 64), resample=1)])
def test_small_and_large_images_of_one_batch_equal_those_of_pillow(
    geometry: Geometry, pool: ProcessPoolExecutor
) -> None:
    contents: list[bytes] = []
    for number, size in enumerate([(96, 96), (50, 30), (400, 300), (96, 96), (97, 96), (64, 64)]):
        stream = BytesIO()
        coarse = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        image.save(stream, "JPEG" if number % 2 else "PNG")
        contents.append(stream.getvalue())
    expected = np.stack([geometry.apply(open_image(content, side=geometry.side)) for content in contents])
    decoded = decode_images([*contents[:3], b"", *contents[3:]], geometry, pool)
    assert decoded.usable.tolist() == [True, True, True, False, True, True, True]
    assert np.abs(decoded.pixels.astype(int) - expected).max() <= 1
