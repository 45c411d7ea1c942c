"""Chunks through the stages of a run: order, overlap, pictures that are no pictures, and a reader who stops early."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from feature_repo import schema
from feature_repo.images import EMPTY, NOT_AN_IMAGE, open_image
from producers.encoders import load
from producers.encoders.encoder import Encoder
from producers.encoders.image_loader import decode_batches, open_decoding_pool
from producers.encoders.pipeline import EncodedChunk, build_embedding_rows, encode_chunk, encode_chunks
from producers.encoders.prefetch import iterate_in_background, map_in_threads
from tests.producers.encoders import checkpoints

NOW = datetime(2026, 6, 1, tzinfo=UTC)
VECTORS = ["image_vector", "text_vector", "fused_vector", "similar_vector"]
COLOURS = ["red", "green", "blue", "white", "black"]


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with open_decoding_pool(1) as processes:
        yield processes


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tmp_path_factory.mktemp("encoder")
    checkpoints.clip(folder)
    return load(str(folder))


def picture(number: int) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (40 + number % 7, 48), COLOURS[number % 5]).save(stream, "PNG")
    return stream.getvalue()


def catalogue(numbers: range) -> pa.Table:
    """Every eleventh picture is broken, every seventh missing, every fifth title missing."""
    rows = [
        {
            "product_id": f"p{n}",
            "title": None if n % 5 == 0 else "红色连衣裙男童鞋"[: 1 + n % 8],
            "image": None,
            "image_bytes": None if n % 7 == 0 else b"no picture" if n % 11 == 0 else picture(n),
            "event_timestamp": NOW,
        }
        for n in numbers
    ]
    names = ["product_id", "title", "image", "image_bytes", "event_timestamp"]
    return pa.Table.from_pylist(rows, pa.schema([schema.CATALOGUE.field(name) for name in names]))


def build(chunk: EncodedChunk, encoder: Encoder) -> pa.Table:
    return build_embedding_rows(chunk, encoder, NOW).rows


def test_a_stream_of_chunks_gives_what_each_chunk_gives_alone_in_the_order_of_the_chunks(
    encoder: Encoder, pool: ProcessPoolExecutor
) -> None:
    chunks = [catalogue(range(150)), catalogue(range(1)), catalogue(range(150, 150)), catalogue(range(200, 590))]
    streamed = list(encode_chunks(iter(chunks), encoder, pool))
    assert len(streamed) == 4
    for made, chunk in zip(streamed, chunks, strict=True):
        alone = encode_chunk(chunk, encoder, pool)
        assert made.catalogue == chunk.drop_columns(["image_bytes"])
        assert build(made, encoder).drop_columns(VECTORS) == build(alone, encoder).drop_columns(VECTORS)
        np.testing.assert_allclose(made.image, alone.image, atol=1e-5)
        np.testing.assert_allclose(made.text, alone.text, atol=1e-5)
        assert made.unusable == alone.unusable
    assert {u.reason for u in streamed[0].unusable} >= {NOT_AN_IMAGE}


def test_each_row_has_the_vector_of_its_own_picture(encoder: Encoder, pool: ProcessPoolExecutor) -> None:
    chunk = catalogue(range(300))
    rows = {row["product_id"]: row for row in build(encode_chunk(chunk, encoder, pool), encoder).to_pylist()}
    with_picture = [n for n in range(300) if n % 7 and n % 11]
    slow = encoder.encode_images([open_image(picture(n)) for n in with_picture])
    fast = np.array([rows[f"p{n}"]["image_vector"] for n in with_picture])
    np.testing.assert_allclose(fast, slow, atol=1e-4)
    assert all(rows[f"p{n}"]["image_vector"] is None for n in range(1, 300) if not (n % 7 and n % 11) and n % 5)


def test_pictures_that_only_the_models_own_processor_can_cut_are_decoded_in_workers_too(
    tmp_path: Path, pool: ProcessPoolExecutor
) -> None:
    checkpoints.dual_encoder(tmp_path)
    encoder = load(str(tmp_path))
    encoded = encode_chunk(catalogue(range(1, 30)), encoder, pool)
    rows = {row["product_id"]: row for row in build(encoded, encoder).to_pylist()}
    with_picture = [n for n in range(1, 30) if n % 7 and n % 11]
    slow = encoder.encode_images([open_image(picture(n)) for n in with_picture])
    np.testing.assert_allclose([rows[f"p{n}"]["image_vector"] for n in with_picture], slow, atol=1e-4)


def test_the_summary_tells_the_stages_apart(encoder: Encoder, pool: ProcessPoolExecutor) -> None:
    seconds = encode_chunk(catalogue(range(20)), encoder, pool).seconds
    assert seconds.decode > 0
    assert seconds.encode > 0
    assert str(seconds._replace(write=2.04)).endswith("write 2.0 s")
    assert (seconds + seconds).decode == 2 * seconds.decode


def test_pictures_keep_their_places_though_slabs_are_used_again(encoder: Encoder, pool: ProcessPoolExecutor) -> None:
    asked = ((n, [picture(n), b"", picture(n + 1)]) for n in range(40))
    assert encoder.geometry is not None
    for batch in list(decode_batches(asked, encoder.geometry, pool, size=3)):  # slabs are used again
        assert batch.usable.tolist() == [True, False, True]
        assert [error.reason for error in batch.refused] == [EMPTY]
        assert batch.pixels is not None
        for row, number in ((0, batch.key), (2, batch.key + 1)):
            np.testing.assert_array_equal(batch.pixels[row], encoder.geometry.apply(open_image(picture(number))))


def test_a_reader_who_stops_early_leaves_no_thread_and_no_file_behind(
    encoder: Encoder, pool: ProcessPoolExecutor
) -> None:
    files = len(list(Path("/proc/self/fd").iterdir()))
    stream = encode_chunks((catalogue(range(n, n + 50)) for n in range(10_000)), encoder, pool)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert "iterate_in_background" not in {thread.name for thread in threading.enumerate()}
    assert len(list(Path("/proc/self/fd").iterdir())) <= files


def test_the_next_item_is_made_while_the_reader_is_busy_and_not_many_more() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10):
            made.append(number)
            yield number

    stream = iterate_in_background(items())
    assert next(stream) == 0
    deadline = time.monotonic() + 10
    while made != [0, 1] and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.02)
    assert made == [0, 1]
    assert list(stream) == list(range(1, 10))


def test_an_error_comes_to_the_reader_after_what_was_made_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken chunk")

    stream = iterate_in_background(items(), ahead=5)
    assert next(stream) == 1
    with pytest.raises(ValueError, match="broken chunk"):
        next(stream)


def test_calls_run_side_by_side_and_their_results_come_in_order() -> None:
    both = threading.Barrier(2, timeout=10)  # broken if one call waited for the other
    running: list[int] = []
    most = 0

    def call(number: int) -> int:
        nonlocal most
        running.append(number)
        most = max(most, len(running))
        both.wait()
        time.sleep(0.001 * (number % 3))
        running.remove(number)
        return number * number

    assert list(map_in_threads(call, range(20), 2)) == [(number, number * number) for number in range(20)]
    assert most == 2


def test_what_a_call_raises_comes_at_its_place_and_the_call_beside_it_is_waited_for() -> None:
    ended: list[int] = []

    def call(number: int) -> int:
        if number == 1:
            raise ValueError("broken batch")
        time.sleep(0.05)
        ended.append(number)
        return number

    results = map_in_threads(call, range(10), 2)
    assert next(results) == (0, 0)
    with pytest.raises(ValueError, match="broken batch"):
        next(results)
    assert ended in ([0], [0, 2])
    assert "map_in_threads" not in {thread.name.rstrip("_0123456789") for thread in threading.enumerate()}
