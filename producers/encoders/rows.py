"""Vectors of pictures and titles to embedding rows."""

from datetime import datetime

import numpy as np
import pyarrow as pa

from feature_repo import schema
from producers.encoders.encoder import Encoder, Vectors
from producers.encoders.whitening import SAME_PRODUCT, SIMILAR, fuse

HASHES = ("image_hash", "title_hash")


def embedding_rows(catalogue: pa.Table, image: Vectors, text: Vectors, encoder: Encoder, now: datetime) -> pa.Table:
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
    for name in HASHES:
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
