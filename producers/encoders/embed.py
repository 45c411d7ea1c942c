"""Catalogue rows to embedding rows, Arrow to Arrow: what a machine that only encodes has to run.

It reads and writes no store; on a GPU machine the catalogue comes as Parquet and the rows go out as Parquet.
"""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo import schema
from producers.encoders.encoder import Encoder, Vectors
from producers.encoders.pixels import Source, decode
from producers.images import UnusableImage, open_image

SAME_PRODUCT = (0.5, 0.5)
"""Weights of image and text in the fused vector: what says "the same product"."""
SIMILAR = (0.7, 0.3)
"""Weights of image and text for "one like it": looks count more than words."""
NO_VECTOR = "the encoder gave no finite vector"
NOTHING_USABLE = "neither image nor title could be encoded: no row"


@dataclass(frozen=True)
class Unusable:
    """A picture or a title that gave no vector."""

    product_id: str
    column: str
    reason: str
    value: str | None


@dataclass(frozen=True)
class Embedded:
    """What came of some catalogue rows."""

    rows: pa.Table
    """schema.PRODUCT_EMBEDDING, in the order of the catalogue rows that gave a vector."""
    unusable: tuple[Unusable, ...]


def embed(catalogue: pa.Table, encoder: Encoder, pool: ProcessPoolExecutor, now: datetime) -> Embedded:
    """Encode and fuse rows of the catalogue.

    Args:
        catalogue: with the columns product_id, title, image, image_bytes and event_timestamp of schema.CATALOGUE.
        encoder: without an image tower, pictures are left alone.
        pool: decodes the pictures.
        now: the created timestamp.
    """
    products = catalogue.column(schema.PRODUCT_ID).to_pylist()
    image, bad_images = _image_vectors(catalogue, encoder, pool)
    text, bad_texts = _text_vectors(catalogue.column("title").to_pylist(), encoder)
    has_image, has_text = ~np.isnan(image[:, 0]), ~np.isnan(text[:, 0])
    some = has_image | has_text
    unusable = [Unusable(products[row], column, reason, value) for row, column, reason, value in bad_images + bad_texts]
    unusable += [Unusable(products[row], "image, title", NOTHING_USABLE, None) for row in np.flatnonzero(~some)]
    columns = {
        schema.PRODUCT_ID: catalogue.column(schema.PRODUCT_ID).filter(pa.array(some)),
        "image_vector": _lists(image[some]),
        "text_vector": _lists(text[some]),
        "fused_vector": _lists(fuse(image, text, SAME_PRODUCT)[some]),
        "similar_vector": _lists(fuse(image, text, SIMILAR)[some]),
        "has_image": has_image[some],
        "has_text": has_text[some],
        "encoder_version": pa.repeat(encoder.version, int(some.sum())),
        schema.EVENT_TIMESTAMP: catalogue.column(schema.EVENT_TIMESTAMP).filter(pa.array(some)),
        schema.CREATED_TIMESTAMP: pa.repeat(pa.scalar(now, schema.TIMESTAMP), int(some.sum())),
    }
    return Embedded(pa.table(columns, schema=schema.PRODUCT_EMBEDDING), tuple(unusable))


def fuse(image: Vectors, text: Vectors, weights: tuple[float, float]) -> Vectors:
    """Unit rows of the weighted sum [n, d]; where one modality is missing (NaN) the other stands alone.

    A pair that cancels out, or a row with neither, is NaN.
    """
    parts = [np.nan_to_num(rows) * weight for rows, weight in zip((image, text), weights, strict=True)]
    total = parts[0] + parts[1]
    norm = np.linalg.norm(total, axis=1, keepdims=True)
    return np.where(norm > 0, total / np.where(norm > 0, norm, 1), np.nan).astype(np.float32)


Bad = list[tuple[int, str, str, str | None]]
"""Row, column, reason, value."""


def _image_vectors(catalogue: pa.Table, encoder: Encoder, pool: ProcessPoolExecutor) -> tuple[Vectors, Bad]:
    vectors = np.full((len(catalogue), encoder.dim), np.nan, np.float32)
    if not encoder.has_images:
        return vectors, []
    columns = (catalogue.column(name).to_pylist() for name in ("image", "image_bytes"))
    found: list[Source | None] = [
        content if content is not None else (Path(path) if path is not None else None)
        for path, content in zip(*columns, strict=True)
    ]
    rows = np.array([row for row, source in enumerate(found) if source is not None], np.int64)
    sources = [source for source in found if source is not None]
    usable, encoded, errors = _encode_pictures(sources, encoder, pool)
    vectors[rows[usable]] = encoded
    bad: Bad = [
        (int(row), "image", error.reason, _named(source, error))
        for row, source, error in zip(
            rows[~usable], [s for s, good in zip(sources, usable, strict=True) if not good], errors, strict=True
        )
    ]
    bad += [(int(row), "image", NO_VECTOR, None) for row in rows[usable][np.isnan(encoded[:, 0])]]
    return vectors, bad


def _encode_pictures(
    sources: Sequence[Source], encoder: Encoder, pool: ProcessPoolExecutor
) -> tuple[NDArray[np.bool_], Vectors, Sequence[UnusableImage]]:
    """Which sources are usable, the vectors of those, and the errors of the others."""
    if encoder.geometry is not None:
        decoded = decode(sources, encoder.geometry, pool)
        return decoded.usable, encoder.encode_pixels(decoded.pixels), decoded.refused
    images, usable, errors = [], np.ones(len(sources), bool), []
    for place, source in enumerate(sources):
        try:
            images.append(open_image(source))
        except UnusableImage as error:
            usable[place] = False
            errors.append(error)
    return usable, encoder.encode_images(images), errors


def _text_vectors(titles: Sequence[str | None], encoder: Encoder) -> tuple[Vectors, Bad]:
    vectors = np.full((len(titles), encoder.dim), np.nan, np.float32)
    rows = [row for row, title in enumerate(titles) if title is not None]
    vectors[rows] = encoder.encode_texts([titles[row] or "" for row in rows])
    return vectors, [(row, "title", NO_VECTOR, titles[row]) for row in rows if np.isnan(vectors[row, 0])]


def _named(source: Source, error: UnusableImage) -> str:
    name = f"{len(source):,} bytes" if isinstance(source, bytes) else str(source)
    return f"{name} ({error.detail})" if error.detail else name


def _lists(rows: Vectors) -> pa.Array:
    """Rows as lists, null where they are NaN."""
    missing = np.isnan(rows[:, 0])
    lengths = np.where(missing, 0, rows.shape[1])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(rows[~missing].reshape(-1)), type=schema.VECTOR, mask=pa.array(missing)
    )
