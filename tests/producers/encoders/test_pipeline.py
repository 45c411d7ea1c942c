"""The encoding pipeline: order, overlapping stages, broken images, and a reader that stops early."""

import os
import signal
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
from feature_repo.errors import UnavailableError
from feature_repo.images.decoding import EMPTY, NOT_AN_IMAGE, open_image
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


def image_bytes(number: int) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (40 + number % 7, 48), COLOURS[number % 5]).save(stream, "PNG")
    return stream.getvalue()


def catalogue(numbers: range) -> pa.Table:
    """Return products; every 11th image is broken, every 7th image and every 5th title is missing."""
    rows = [
        {
            "product_id": f"p{n}",
            "title": None if n % 5 == 0 else "红色连衣裙男童鞋"[: 1 + n % 8],
            "image": None,
            "image_bytes": None if n % 7 == 0 else b"not an image" if n % 11 == 0 else image_bytes(n),
            "event_timestamp": NOW,
        }
        for n in numbers
    ]
    names = ["product_id", "title", "image", "image_bytes", "event_timestamp"]
    return pa.Table.from_pylist(rows, pa.schema([schema.CATALOGUE.field(name) for name in names]))


def build(chunk: EncodedChunk, encoder: Encoder) -> pa.Table:
    return build_embedding_rows(chunk, encoder, NOW).rows


def test_a_stream_of_chunks_gives_the_vectors_of_each_chunk_alone_in_order(
    encoder: Encoder, pool: ProcessPoolExecutor
) -> None:
    chunks = [catalogue(range(150)), catalogue(range(1)), catalogue(range(150, 150)), catalogue(range(200, 590))]
    streamed = list(encode_chunks(iter(chunks), encoder, pool))
    assert len(streamed) == 4
    for computed, chunk in zip(streamed, chunks, strict=True):
        alone = encode_chunk(chunk, encoder, pool)
        assert computed.catalogue == chunk.drop_columns(["image_bytes"])
        assert build(computed, encoder).drop_columns(VECTORS) == build(alone, encoder).drop_columns(VECTORS)
        np.testing.assert_allclose(computed.image, alone.image, atol=1e-5)
        np.testing.assert_allclose(computed.text, alone.text, atol=1e-5)
        assert computed.unusable == alone.unusable
    assert {u.reason for u in streamed[0].unusable} >= {NOT_AN_IMAGE}


def test_each_row_has_the_vector_of_its_own_image(encoder: Encoder, pool: ProcessPoolExecutor) -> None:
    chunk = catalogue(range(300))
    rows = {row["product_id"]: row for row in build(encode_chunk(chunk, encoder, pool), encoder).to_pylist()}
    with_image = [n for n in range(300) if n % 7 and n % 11]
    slow = encoder.encode_images([open_image(image_bytes(n)) for n in with_image])
    fast = np.array([rows[f"p{n}"]["image_vector"] for n in with_image])
    np.testing.assert_allclose(fast, slow, atol=1e-4)
    assert all(rows[f"p{n}"]["image_vector"] is None for n in range(1, 300) if not (n % 7 and n % 11) and n % 5)


def test_images_that_only_the_models_processor_can_resize_are_decoded_in_workers_too(
    tmp_path: Path, pool: ProcessPoolExecutor
) -> None:
    checkpoints.dual_encoder(tmp_path)
    encoder = load(str(tmp_path))
    encoded = encode_chunk(catalogue(range(1, 30)), encoder, pool)
    rows = {row["product_id"]: row for row in build(encoded, encoder).to_pylist()}
    with_image = [n for n in range(1, 30) if n % 7 and n % 11]
    slow = encoder.encode_images([open_image(image_bytes(n)) for n in with_image])
    np.testing.assert_allclose([rows[f"p{n}"]["image_vector"] for n in with_image], slow, atol=1e-4)


def test_times_are_reported_per_stage(encoder: Encoder, pool: ProcessPoolExecutor) -> None:
    seconds = encode_chunk(catalogue(range(20)), encoder, pool).seconds
    assert seconds.decode > 0
    assert seconds.encode > 0
    assert str(seconds._replace(write=2.04)).endswith("write 2.0 s")
    assert (seconds + seconds).decode == 2 * seconds.decode


def test_images_keep_their_order_when_buffers_are_reused(encoder: Encoder, pool: ProcessPoolExecutor) -> None:
    requests = ((n, [image_bytes(n), b"", image_bytes(n + 1)]) for n in range(40))
    assert encoder.geometry is not None
    for batch in list(decode_batches(requests, encoder.geometry, pool, size=3)):  # more batches than buffers
        assert batch.usable.tolist() == [True, False, True]
        assert [error.reason for error in batch.refused] == [EMPTY]
        assert batch.pixels is not None
        for row, number in ((0, batch.key), (2, batch.key + 1)):
            np.testing.assert_array_equal(batch.pixels[row], encoder.geometry.apply(open_image(image_bytes(number))))


def test_a_worker_that_is_killed_is_an_error_in_one_line(encoder: Encoder) -> None:
    requests = ((n, [image_bytes(n)]) for n in range(1000))
    with open_decoding_pool(1) as pool:
        batches = decode_batches(requests, encoder.geometry, pool, size=3)
        next(batches)
        (worker,) = pool._processes
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(UnavailableError, match="a process that decodes images was killed, or crashed"):
            list(batches)


def test_a_reader_that_stops_early_leaves_no_thread_and_no_file_behind(
    encoder: Encoder, pool: ProcessPoolExecutor
) -> None:
    files = len(list(Path("/proc/self/fd").iterdir()))
    stream = encode_chunks((catalogue(range(n, n + 50)) for n in range(10_000)), encoder, pool)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert "iterate_in_background" not in {thread.name for thread in threading.enumerate()}
    assert len(list(Path("/proc/self/fd").iterdir())) <= files


def test_only_the_next_item_is_computed_while_the_reader_is_busy() -> None:
    computed: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10):
            computed.append(number)
            yield number

    stream = iterate_in_background(items())
    assert next(stream) == 0
    deadline = time.monotonic() + 10
    while computed != [0, 1] and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.02)
    assert computed == [0, 1]
    assert list(stream) == list(range(1, 10))


def test_an_error_reaches_the_reader_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken chunk")

    stream = iterate_in_background(items(), ahead=5)
    assert next(stream) == 1
    with pytest.raises(ValueError, match="broken chunk"):
        next(stream)


def test_calls_run_at_the_same_time_and_results_are_in_order() -> None:
    both = threading.Barrier(2, timeout=10)  # times out if the calls do not overlap
    running: list[int] = []
    most_running = 0

    def call(number: int) -> int:
        nonlocal most_running
        running.append(number)
        most_running = max(most_running, len(running))
        both.wait()
        time.sleep(0.001 * (number % 3))
        running.remove(number)
        return number * number

    assert list(map_in_threads(call, range(20), 2)) == [(number, number * number) for number in range(20)]
    assert most_running == 2


def test_an_error_of_a_call_is_raised_in_order_and_running_calls_are_finished() -> None:
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
