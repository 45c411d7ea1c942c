"""Catalogue rows to embedding rows, Arrow to Arrow: what a machine that only encodes has to run.

It reads and writes no store; on a GPU machine the catalogue comes as Parquet and the rows go out as Parquet.

    with open_decoding_pool() as pool:
        for made in encode_chunks(chunks, encoder, pool, now):
            commit(made.rows)   # the next chunks are decoded and encoded meanwhile
"""

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.images import UnusableImageError
from producers.encoders.encoder import Encoder, Vectors
from producers.encoders.geometry import Geometry
from producers.encoders.image_loader import DecodedBatch, Source, decode_batches, decode_in_process
from producers.encoders.prefetch import iterate_in_background, map_in_threads
from producers.encoders.whitening import SAME_PRODUCT, SIMILAR, fuse

HASH_COLUMNS = ("image_hash", "title_hash")
NO_VECTOR = "the encoder gave no finite vector"
NOTHING_USABLE = "neither image nor title could be encoded: no row"


@dataclass(frozen=True)
class Unusable:
    """A picture or a title that gave no vector."""

    product_id: str
    column: str
    reason: str
    value: str | None


class StageSeconds(NamedTuple):
    """Where the time went. The stages run beside each other, so their sum is more than the time on the clock."""

    read: float = 0.0
    """Until the rows were there."""
    decode: float = 0.0
    """In decoding processes, all of them added up."""
    wait: float = 0.0
    """For decoded pictures: where this is long, decoding is what limits the run."""
    encode: float = 0.0
    """In the model; once, where it is at several batches."""
    write: float = 0.0
    """Until the rows were committed: whoever writes them says so."""

    def __add__(self, other: "StageSeconds") -> "StageSeconds":  # type: ignore[override]  # a sum, where tuples are joined
        return StageSeconds(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    def __str__(self) -> str:
        read, decode, wait, encode, write = (f"{stage:.1f} s" for stage in self)
        return f"read {read}, decode {decode} in workers ({wait} waited for), encode {encode}, write {write}"


ZERO_SECONDS = StageSeconds()


@dataclass(frozen=True)
class EncodedChunk:
    """What came of some catalogue rows."""

    rows: pa.Table
    """schema.PRODUCT_EMBEDDING, in the order of the catalogue rows that gave a vector."""
    unusable: tuple[Unusable, ...]
    seconds: StageSeconds = ZERO_SECONDS


def encode_chunk(catalogue: pa.Table, encoder: Encoder, pool: ProcessPoolExecutor, now: datetime) -> EncodedChunk:
    """Encode and fuse rows of the catalogue: `encode_chunks` of one chunk."""
    return next(_embedded(iter([catalogue]), encoder, pool, now))


def encode_chunks(
    chunks: Iterable[pa.Table], encoder: Encoder, pool: ProcessPoolExecutor, now: datetime
) -> Generator[EncodedChunk, None, None]:
    """Encode and fuse rows of the catalogue, chunk by chunk in order, one `Embedded` for each.

    Reading, decoding, encoding and whatever the caller does with a chunk overlap: while it commits one, the next is
    encoded, the pictures of the one after are decoded and that after them is read, each in a thread of its own.

    Args:
        chunks: with the columns product_id, title, image, image_bytes and event_timestamp of schema.CATALOGUE, a few
            thousand rows each. Read from another thread, a little ahead of what is encoded.
        encoder: without an image tower, pictures are left alone. Nobody else may call it meanwhile.
        pool: of `open_decoding_pool`.
        now: the created timestamp.
    """
    return iterate_in_background(_embedded(iter(chunks), encoder, pool, now))


@dataclass(frozen=True)
class DecodedRows:
    """Rows of the catalogue whose pictures are decoded, on the way to a process that has the encoder."""

    catalogue: pa.Table
    """Without the bytes of pictures."""
    rows: NDArray[np.int64]
    """Those with a picture, in it."""
    refused: Sequence[Source]
    """[rows] sources of the unusable pictures, nothing of the others."""
    pictures: DecodedBatch[Any]
    """Of the rows; without a key."""


def decode_rows(catalogue: pa.Table, geometry: Geometry | None, *, images: bool) -> DecodedRows:
    """The first half of `embed`, in this process.

    Args:
        catalogue: see `encode_chunks`; some hundred rows.
        geometry: of the encoder.
        images: whether the encoder has an image tower.
    """
    rows, sources = _sources(catalogue) if images else (np.empty(0, np.int64), [])
    batch = decode_in_process(sources, geometry)
    refused = [b"" if usable else source for source, usable in zip(sources, batch.usable, strict=True)]
    return DecodedRows(catalogue.drop_columns(["image_bytes"]), rows, refused, batch)


def encode_rows(part: DecodedRows, encoder: Encoder, now: datetime) -> EncodedChunk:
    """The second half, wherever the first was done."""
    image, text = np.full((2, len(part.catalogue), encoder.dim), np.nan, np.float32)
    key = _Pictures(_Chunk(part.catalogue, image, text), part.rows, part.refused, first=True, last=True)
    batch = replace(part.pictures, key=key)
    made = _told(batch, _encode(batch, encoder), 0.0, encoder, now)
    assert made is not None  # the first batch is the last
    return made


@dataclass
class _Chunk:
    """Rows on their way."""

    catalogue: pa.Table
    image: Vectors
    text: Vectors
    bad: list[Unusable] = field(default_factory=list)
    seconds: StageSeconds = ZERO_SECONDS


class _Pictures(NamedTuple):
    """A batch of a chunk's pictures."""

    chunk: _Chunk
    rows: NDArray[np.int64]
    """Of the chunk [asked]."""
    sources: Sequence[Source]
    first: bool
    last: bool


class _Encoded(NamedTuple):
    """What is said of a batch whose vectors are in its chunk."""

    bad: list[Unusable]
    began: float
    ended: float


def _embedded(
    chunks: Iterator[pa.Table], encoder: Encoder, pool: ProcessPoolExecutor, now: datetime
) -> Iterator[EncodedChunk]:
    asked = ((pictures, pictures.sources) for pictures in iterate_in_background(_pictures(chunks, encoder)))
    batches = decode_batches(asked, encoder.geometry, pool, size=encoder.images_at_once)
    until = 0.0
    for batch, said in map_in_threads(lambda batch: _encode(batch, encoder), batches, encoder.callers):
        made = _told(batch, said, until, encoder, now)
        until = max(until, said.ended)
        if made is not None:
            yield made


def _encode(batch: DecodedBatch[_Pictures], encoder: Encoder) -> _Encoded:
    """Encode a batch of a chunk, with the first the titles."""
    chunk, began = batch.key.chunk, time.perf_counter()
    bad = _encode_titles(chunk, encoder) if batch.key.first else []  # the workers get ahead meanwhile
    bad += _encode_pictures(batch, encoder)
    return _Encoded(bad, began, time.perf_counter())


def _told(
    batch: DecodedBatch[_Pictures], said: _Encoded, until: float, encoder: Encoder, now: datetime
) -> EncodedChunk | None:
    """Batch after batch what came of it; with the last its chunk is done.

    Args:
        until: when the batches before were encoded.
    """
    chunk = batch.key.chunk
    chunk.bad += said.bad
    encode = max(0.0, said.ended - max(said.began, until))
    chunk.seconds += StageSeconds(decode=batch.decoding, wait=batch.waiting, encode=encode)
    if not batch.key.last:
        return None
    rows = _rows(chunk, encoder, now)
    return EncodedChunk(rows, tuple(chunk.bad), chunk.seconds)


def _pictures(chunks: Iterator[pa.Table], encoder: Encoder) -> Iterator[_Pictures]:
    """The pictures of each chunk in batches: one batch at the least, be it empty."""
    while True:
        start = time.perf_counter()
        catalogue = next(chunks, None)
        if catalogue is None:
            return
        rows, sources = _sources(catalogue) if encoder.has_images else (np.empty(0, np.int64), [])
        image, text = np.full((2, len(catalogue), encoder.dim), np.nan, np.float32)
        chunk = _Chunk(catalogue, image, text, seconds=StageSeconds(read=time.perf_counter() - start))
        size = encoder.images_at_once
        for place in range(0, max(len(rows), 1), size):
            yield _Pictures(
                chunk, rows[place : place + size], sources[place : place + size], place == 0, place + size >= len(rows)
            )


def _sources(catalogue: pa.Table) -> tuple[NDArray[np.int64], list[Source]]:
    """Rows that have a picture, and its bytes or its path."""
    contents, paths = (catalogue.column(name).combine_chunks() for name in ("image_bytes", "image"))
    there = pc.or_(contents.is_valid(), paths.is_valid())
    sources: list[Source] = [
        content if content is not None else Path(path)
        for content, path in zip(contents.filter(there).to_pylist(), paths.filter(there).to_pylist(), strict=True)
    ]
    return np.flatnonzero(there), sources


def _encode_titles(chunk: _Chunk, encoder: Encoder) -> list[Unusable]:
    titles = chunk.catalogue.column("title")
    rows = np.flatnonzero(titles.is_valid())
    chunk.text[rows] = encoder.encode_texts(titles.drop_null().to_pylist())
    return [
        Unusable(_product(chunk, row), "title", NO_VECTOR, titles[int(row)].as_py())
        for row in rows[np.isnan(chunk.text[rows, 0])]
    ]


def _encode_pictures(batch: DecodedBatch[_Pictures], encoder: Encoder) -> list[Unusable]:
    chunk, rows, sources, _, _ = batch.key
    if batch.pixels is not None:
        vectors = encoder.encode_pixels(batch.pixels)[batch.usable]
    else:
        vectors = encoder.encode_images(batch.images) if batch.images else np.empty((0, encoder.dim), np.float32)
    chunk.image[rows[batch.usable]] = vectors
    refused = [
        Unusable(_product(chunk, rows[place]), "image", error.reason, _named(sources[int(place)], error))
        for place, error in zip(np.flatnonzero(~batch.usable), batch.refused, strict=True)
    ]
    nothing = rows[batch.usable][np.isnan(vectors[:, 0])]
    return refused + [Unusable(_product(chunk, row), "image", NO_VECTOR, None) for row in nothing]


def _rows(chunk: _Chunk, encoder: Encoder, now: datetime) -> pa.Table:
    """schema.PRODUCT_EMBEDDING of the rows that have a vector; the others are told among the bad."""
    nothing = np.isnan(chunk.image[:, 0]) & np.isnan(chunk.text[:, 0])
    for row in np.flatnonzero(nothing):
        chunk.bad.append(Unusable(_product(chunk, row), "image, title", NOTHING_USABLE, None))
    return build_embedding_rows(chunk.catalogue, chunk.image, chunk.text, encoder, now)


def _product(chunk: _Chunk, row: np.int64) -> str:
    return chunk.catalogue.column(schema.PRODUCT_ID)[int(row)].as_py()


def _named(source: Source, error: UnusableImageError) -> str:
    name = f"{len(source):,} bytes" if isinstance(source, bytes) else str(source)
    return f"{name} ({error.detail})" if error.detail else name


def build_embedding_rows(
    catalogue: pa.Table, image: Vectors, text: Vectors, encoder: Encoder, now: datetime
) -> pa.Table:
    """schema.PRODUCT_EMBEDDING, in the order of the catalogue rows that have a vector.

    Args:
        catalogue: [n] with product_id and event_timestamp; HASHES are taken over where it has them.
        image: [n, dim] unit rows, NaN where there is none.
        text: the same.
        encoder: whose rows these are.
        now: the created timestamp.
    """
    has_image, has_text = ~np.isnan(image[:, 0]), ~np.isnan(text[:, 0])
    some = has_image | has_text
    columns = {
        "image_vector": _lists(image[some]),
        "text_vector": _lists(text[some]),
        "fused_vector": _lists(fuse(image, text, SAME_PRODUCT, encoder.space)[some]),
        "similar_vector": _lists(fuse(image, text, SIMILAR)[some]),
        "has_image": has_image[some],
        "has_text": has_text[some],
        "encoder_version": pa.repeat(encoder.version, int(some.sum())),
        schema.CREATED_TIMESTAMP: pa.repeat(pa.scalar(now, schema.TIMESTAMP), int(some.sum())),
    }
    for name in (schema.PRODUCT_ID, schema.EVENT_TIMESTAMP):
        columns[name] = catalogue.column(name).filter(pa.array(some))
    for name in HASH_COLUMNS:
        there = name in catalogue.column_names
        columns[name] = catalogue.column(name).filter(pa.array(some)) if there else pa.nulls(int(some.sum()))
    return pa.table({name: columns[name] for name in schema.PRODUCT_EMBEDDING.names}).cast(schema.PRODUCT_EMBEDDING)


def _lists(rows: Vectors) -> pa.Array:
    """Rows as lists, null where they are NaN."""
    missing = np.isnan(rows[:, 0])
    lengths = np.where(missing, 0, rows.shape[1])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(rows[~missing].reshape(-1)), type=schema.VECTOR, mask=pa.array(missing)
    )
