"""Encode catalogue rows chunk by chunk, and build embedding rows of the vectors.

The module reads and writes no store, so a machine that only encodes can run it:

    with open_decoding_pool() as pool:
        for chunk in encode_chunks(chunks, encoder, pool):
            write(build_embedding_rows(chunk, encoder, now))  # the next chunks are decoded and encoded meanwhile
"""

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.arrow.take import matrix_to_lists
from feature_repo.fusion import SAME_PRODUCT, SIMILAR, fuse
from feature_repo.images.decoding import Source, UnusableImageError
from feature_repo.images.geometry import Geometry
from feature_repo.location import BucketPath, find_object
from producers.encoders.encoder import Encoder, Outputs, TowerEncoder, Vectors
from producers.encoders.image_loader import DecodedBatch, decode_batches, decode_in_process
from producers.encoders.prefetch import iterate_in_background, map_in_threads
from producers.encoders.stage_seconds import ZERO_SECONDS, StageSeconds

HASH_COLUMNS = ("image_hash", "title_hash")
"""Columns with the hashes of the contents that a row's vectors were made of."""
NO_VECTOR = "the encoder gave no finite vector"
NOTHING_USABLE = "neither image nor title could be encoded: no row"
NO_CONTENT_COLUMN = "image, title"
"""`Unusable.column` of a product that has no vector at all."""


@dataclass(frozen=True)
class Unusable:
    """An image or a title that has no vector, or a product that has none at all."""

    product_id: str
    column: str
    """`image`, `title`, or NO_CONTENT_COLUMN if the product has no vector at all."""
    reason: str
    """NO_VECTOR, NOTHING_USABLE, or a reason of `images.decoding`: one of a few fixed texts."""
    value: str | None
    """The title, or the path or size in bytes of the image; None if the reason says everything."""


@dataclass(frozen=True)
class EncodedChunk:
    """Vectors of a chunk of n catalogue rows, row by row."""

    catalogue: pa.Table
    """The n rows with all columns that were passed, except `image_bytes`."""
    image: Vectors
    """Unit rows float32 [n, dim]; NaN where the image is missing or unusable, or the encoder has no image tower."""
    text: Vectors
    """Unit rows float32 [n, dim]; NaN where the title is missing or gave no vector."""
    unusable: tuple[Unusable, ...] = ()
    """Images and titles that were present but gave no vector; in no particular order."""
    seconds: StageSeconds = ZERO_SECONDS
    """Seconds that each stage took for this chunk."""
    image_outputs: Outputs | None = None
    """Outputs of the image tower, float16 [n, width], NaN like `image`; None unless it is a `TowerEncoder`."""
    text_outputs: Outputs | None = None
    """Outputs of the text tower, float16 [n, width], NaN like `text`; None without a text tower."""


@dataclass(frozen=True)
class EmbeddingRows:
    """Rows for the table `product_embedding`, and what gave no vector."""

    rows: pa.Table
    """Rows of schema.PRODUCT_EMBEDDING; may be none."""
    unusable: tuple[Unusable, ...]
    """Images and titles without a vector, then the products that therefore have no row."""


def build_embedding_rows(chunk: EncodedChunk, encoder: Encoder, now: datetime) -> EmbeddingRows:
    """Build one embedding row for each catalogue row that has at least one vector, in their order.

    A row without any vector is left out and added to `unusable` with the reason NOTHING_USABLE. If only one of the two
    vectors is missing, it is null, and the fused and the similar vector are made of the other.

    Args:
        chunk: its `catalogue` needs product_id and event_timestamp; HASH_COLUMNS are copied if present, else null.
        encoder: the encoder that made the vectors.
        now: the created timestamp of the rows, with a time zone.
    """
    has_image, has_text = ~np.isnan(chunk.image[:, 0]), ~np.isnan(chunk.text[:, 0])
    kept = has_image | has_text
    count = int(kept.sum())
    columns = {
        "image_vector": matrix_to_lists(chunk.image[kept]),
        "text_vector": matrix_to_lists(chunk.text[kept]),
        "fused_vector": matrix_to_lists(fuse(chunk.image, chunk.text, SAME_PRODUCT, encoder.space)[kept]),
        "similar_vector": matrix_to_lists(fuse(chunk.image, chunk.text, SIMILAR)[kept]),
        "has_image": has_image[kept],
        "has_text": has_text[kept],
        "encoder_version": pa.repeat(encoder.version, count),
        schema.CREATED_TIMESTAMP: pa.repeat(pa.scalar(now, schema.TIMESTAMP), count),
    }
    for name in (schema.PRODUCT_ID, schema.EVENT_TIMESTAMP, *HASH_COLUMNS):
        is_present = name in chunk.catalogue.column_names or name not in HASH_COLUMNS
        columns[name] = chunk.catalogue.column(name).filter(pa.array(kept)) if is_present else pa.nulls(count)
    rows = pa.table({name: columns[name] for name in schema.PRODUCT_EMBEDDING.names}).cast(schema.PRODUCT_EMBEDDING)
    without_vector = tuple(
        Unusable(_product_id(chunk.catalogue, row), NO_CONTENT_COLUMN, NOTHING_USABLE, None)
        for row in np.flatnonzero(~kept)
    )
    return EmbeddingRows(rows, chunk.unusable + without_vector)


def encode_chunk(
    catalogue: pa.Table, encoder: Encoder, pool: ProcessPoolExecutor, *, pictures: BucketPath | None = None
) -> EncodedChunk:
    """Encode the images and titles of one table of catalogue rows, and wait for the result.

    Args:
        catalogue: a few thousand rows with the columns product_id, title, image, image_bytes and event_timestamp of
            schema.CATALOGUE; may be empty. An image is taken from `image_bytes`, or from the path in `image` where that
            is null.
        encoder: if it has no image tower, images are ignored.
        pool: processes that decode images, from `open_decoding_pool`.
        pictures: prefix of the bucket whose objects `image` may name; None if it names none.

    Returns:
        The vectors, row by row. Unusable images and titles raise nothing; they are in its `unusable`.
    """
    return next(_encode(iter([catalogue]), encoder, pool, pictures))


def encode_chunks(
    chunks: Iterable[pa.Table], encoder: Encoder, pool: ProcessPoolExecutor, *, pictures: BucketPath | None = None
) -> Generator[EncodedChunk, None, None]:
    """Encode the images and titles of catalogue rows; yields one `EncodedChunk` per chunk, in order.

    The stages overlap. While the caller writes one chunk, the next is encoded, the images of the one after it are
    decoded, and the chunk after that is read, each in a thread of its own. Closing the generator ends the threads.

    Args:
        chunks: tables with the columns product_id, title, image, image_bytes and event_timestamp of schema.CATALOGUE,
            a few thousand rows each. An image is taken from `image_bytes`, or from the path in `image` where that is
            null. The iterable is read from another thread.
        encoder: if it has no image tower, images are ignored. It must not be used elsewhere meanwhile.
        pool: processes that decode images, from `open_decoding_pool`.
        pictures: prefix of the bucket whose objects `image` may name; None if it names none.

    Raises:
        BaseException: what `chunks` or the encoder raised. Unusable images and titles raise nothing; they are in the
            `unusable` of their chunk.
    """
    return iterate_in_background(_encode(iter(chunks), encoder, pool, pictures))


@dataclass(frozen=True)
class DecodedChunk:
    """Catalogue rows with decoded images, on their way to a process that has the encoder."""

    catalogue: pa.Table
    """The rows, without `image_bytes`."""
    row_index: NDArray[np.int64]
    """Numbers, from 0, of the m rows of `catalogue` that have an image, ascending [m]."""
    sources: Sequence[Source]
    """Path or bytes of each of these images that is unusable, empty bytes for a usable one [m]."""
    images: DecodedBatch[Any]
    """These images, decoded; the key is None."""


def decode_rows(
    catalogue: pa.Table, geometry: Geometry | None, *, has_images: bool, pictures: BucketPath | None = None
) -> DecodedChunk:
    """Decode the images of some hundred catalogue rows in this process.

    Args:
        catalogue: rows with the columns title, image and image_bytes, and those that an embedding row needs. An image
            is taken from `image_bytes`, or from the path in `image` where that is null.
        geometry: how the encoder wants images resized; None leaves them as decoded.
        has_images: whether the encoder has an image tower. If not, no image is decoded.
        pictures: prefix of the bucket whose objects `image` may name; None if it names none.

    Returns:
        The rows and their images, to be passed to `encode_rows`. Unusable images raise nothing.
    """
    row_index, sources = _find_images(catalogue, pictures) if has_images else (np.empty(0, np.int64), [])
    images = decode_in_process(sources, geometry)
    refused = [b"" if usable else source for source, usable in zip(sources, images.usable, strict=True)]
    return DecodedChunk(catalogue.drop_columns(["image_bytes"]), row_index, refused, images)


def encode_rows(decoded: DecodedChunk, encoder: Encoder) -> EncodedChunk:
    """Return the vectors of what `decode_rows` returned, possibly on another machine, row by row.

    Unusable images and titles raise nothing; they are in the `unusable` of the result.

    Args:
        decoded: rows and images, decoded for the `geometry` of the encoder.
        encoder: the encoder.
    """
    chunk = _PartialChunk.allocate(decoded.catalogue, encoder)
    key = _ImageBatch(chunk, decoded.row_index, decoded.sources, is_first=True, is_last=True)
    batch = replace(decoded.images, key=key)
    _add_batch(batch, _encode_batch(batch, encoder), 0.0)
    return chunk.finish()


@dataclass
class _PartialChunk:
    """A chunk of catalogue rows. Some of its images are still to be encoded."""

    catalogue: pa.Table
    image: Vectors
    """[rows, dim], NaN until a vector is computed."""
    text: Vectors
    """[rows, dim], NaN until a vector is computed."""
    unusable: list[Unusable] = field(default_factory=list)
    """Images and titles so far that gave no vector."""
    seconds: StageSeconds = ZERO_SECONDS
    """Seconds of each stage so far."""
    image_outputs: Outputs | None = None
    """[rows, width], NaN until an output is computed; None unless it is a `TowerEncoder`."""
    text_outputs: Outputs | None = None
    """The same of the text tower; None without one."""

    @classmethod
    def allocate(cls, catalogue: pa.Table, encoder: Encoder) -> Self:
        """Return a chunk whose image and text vectors are still missing: float32 [rows, dim], all NaN.

        Args:
            catalogue: the rows of the chunk.
            encoder: what will compute the vectors.
        """
        image, text = np.full((2, len(catalogue), encoder.dim), np.nan, np.float32)
        chunk = cls(catalogue, image, text)
        if isinstance(encoder, TowerEncoder):
            chunk.image_outputs = np.full((len(catalogue), encoder.image_width), np.nan, np.float16)
            if encoder.text_width:
                chunk.text_outputs = np.full((len(catalogue), encoder.text_width), np.nan, np.float16)
        return chunk

    def finish(self) -> EncodedChunk:
        """Return the chunk once all of its batches have been added."""
        columns = [name for name in self.catalogue.column_names if name != "image_bytes"]
        return EncodedChunk(
            self.catalogue.select(columns),
            self.image,
            self.text,
            tuple(self.unusable),
            self.seconds,
            self.image_outputs,
            self.text_outputs,
        )


class _ImageBatch(NamedTuple):
    """Some images of a chunk; a chunk without images has one empty batch."""

    chunk: _PartialChunk
    row_index: NDArray[np.int64]
    """Number in the chunk of each image's row [images]."""
    sources: Sequence[Source]
    """Path or bytes of each image [images]."""
    is_first: bool
    """Whether it is the first batch of its chunk; the titles are encoded with it."""
    is_last: bool
    """Whether the chunk is complete with this batch."""


class _BatchResult(NamedTuple):
    """What is known of a batch whose vectors have been written to its chunk."""

    unusable: list[Unusable]
    start: float
    """When its encoding began, in seconds of `time.perf_counter`."""
    end: float
    """When its encoding ended, in the same seconds."""


def _encode(
    chunks: Iterator[pa.Table], encoder: Encoder, pool: ProcessPoolExecutor, pictures: BucketPath | None
) -> Iterator[EncodedChunk]:
    """Yield the vectors of each chunk in order, while the next chunks are read and decoded."""
    requests = ((images, images.sources) for images in iterate_in_background(_split_chunks(chunks, encoder, pictures)))
    batches = decode_batches(requests, encoder.geometry, pool, size=encoder.image_batch_size)
    previous_end = 0.0
    for batch, result in map_in_threads(lambda each: _encode_batch(each, encoder), batches, encoder.concurrent_calls):
        _add_batch(batch, result, previous_end)
        previous_end = max(previous_end, result.end)
        if batch.key.is_last:
            yield batch.key.chunk.finish()


def _split_chunks(chunks: Iterator[pa.Table], encoder: Encoder, pictures: BucketPath | None) -> Iterator[_ImageBatch]:
    """Split the images of each chunk into batches of `encoder.image_batch_size`."""
    while True:
        start = time.perf_counter()
        catalogue = next(chunks, None)
        if catalogue is None:
            return
        row_index, sources = _find_images(catalogue, pictures) if encoder.has_images else (np.empty(0, np.int64), [])
        chunk = _PartialChunk.allocate(catalogue, encoder)
        chunk.seconds = StageSeconds(read=time.perf_counter() - start)
        size = encoder.image_batch_size
        for first in range(0, max(len(row_index), 1), size):
            end = first + size
            yield _ImageBatch(chunk, row_index[first:end], sources[first:end], first == 0, end >= len(row_index))


def _find_images(catalogue: pa.Table, pictures: BucketPath | None) -> tuple[NDArray[np.int64], list[Source]]:
    """Return the numbers of the rows that have an image, ascending, and the source of each image."""
    # Not combined to one chunk: an Arrow array of images ends at 2 GB.
    contents, paths = (catalogue.column(name) for name in ("image_bytes", "image"))
    has_image = pc.or_(contents.is_valid(), paths.is_valid())
    sources: list[Source] = [
        content if content is not None else find_object(path, pictures)
        for content, path in zip(
            contents.filter(has_image).to_pylist(), paths.filter(has_image).to_pylist(), strict=True
        )
    ]
    return np.flatnonzero(has_image.to_numpy()), sources


def _encode_batch(batch: DecodedBatch[_ImageBatch], encoder: Encoder) -> _BatchResult:
    """Encode the images of a batch, and with the first batch of a chunk its titles."""
    start = time.perf_counter()
    # Titles first: meanwhile the decoding processes get ahead.
    unusable = _encode_titles(batch.key.chunk, encoder) if batch.key.is_first else []
    unusable += _encode_images(batch, encoder)
    return _BatchResult(unusable, start, time.perf_counter())


def _add_batch(batch: DecodedBatch[_ImageBatch], result: _BatchResult, previous_end: float) -> None:
    """Add a batch's refusals and times to its chunk.

    Time before `previous_end`, the end of the batches before, is not counted again.
    """
    chunk = batch.key.chunk
    chunk.unusable += result.unusable
    encode = max(0.0, result.end - max(result.start, previous_end))
    chunk.seconds += StageSeconds(decode=batch.decode_seconds, wait=batch.wait_seconds, encode=encode)


def _encode_titles(chunk: _PartialChunk, encoder: Encoder) -> list[Unusable]:
    """Write the vectors of a chunk's titles to the chunk; return the titles that gave none."""
    titles = chunk.catalogue.column("title")
    row_index = np.flatnonzero(titles.is_valid())
    texts = titles.drop_null().to_pylist()
    if isinstance(encoder, TowerEncoder):
        outputs = encoder.encode_text_outputs(texts)
        if chunk.text_outputs is not None:
            chunk.text_outputs[row_index] = outputs
        chunk.text[row_index] = encoder.project_texts(texts, outputs)
    else:
        chunk.text[row_index] = encoder.encode_texts(texts)
    return [
        Unusable(_product_id(chunk.catalogue, row), "title", NO_VECTOR, titles[int(row)].as_py())
        for row in row_index[np.isnan(chunk.text[row_index, 0])]
    ]


def _encode_images(batch: DecodedBatch[_ImageBatch], encoder: Encoder) -> list[Unusable]:
    """Write the vectors of a batch of images to their chunk; return the images that gave none, or were unusable."""
    chunk, row_index, sources, _, _ = batch.key
    if batch.pixels is not None and isinstance(encoder, TowerEncoder):
        outputs = encoder.encode_pixel_outputs(batch.pixels)[batch.usable]
        vectors = encoder.project_images(outputs)
        assert chunk.image_outputs is not None
        chunk.image_outputs[row_index[batch.usable]] = outputs
    elif batch.pixels is not None:
        vectors = encoder.encode_pixels(batch.pixels)[batch.usable]
    else:
        vectors = encoder.encode_images(batch.images) if batch.images else np.empty((0, encoder.dim), np.float32)
    chunk.image[row_index[batch.usable]] = vectors
    refused = [
        Unusable(
            _product_id(chunk.catalogue, row_index[number]), "image", error.reason, _describe(sources[number], error)
        )
        for number, error in zip(np.flatnonzero(~batch.usable).tolist(), batch.refused, strict=True)
    ]
    without_vector = row_index[batch.usable][np.isnan(vectors[:, 0])]
    return refused + [Unusable(_product_id(chunk.catalogue, row), "image", NO_VECTOR, None) for row in without_vector]


def _product_id(catalogue: pa.Table, row: np.int64) -> str:
    return catalogue.column(schema.PRODUCT_ID)[int(row)].as_py()


def _describe(source: Source, error: UnusableImageError) -> str:
    """Return the path of an image, or its size in bytes, and the detail of the error."""
    name = f"{len(source):,} bytes" if isinstance(source, bytes) else str(source)
    return f"{name} ({error.detail})" if error.detail else name
