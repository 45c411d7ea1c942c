"""Turns product messages into rows of every product view: catalogue, vectors, codes, tags and neighbours."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import schema
from feature_repo.arrow import text
from feature_repo.arrow.take import to_matrix
from feature_repo.location import BucketPath
from feature_repo.offline.quarantine import RejectedRow
from feature_repo.offline.validation import NOT_UTF8
from producers import input_digest
from producers.catalogue import image_hashes, row_hash, validate
from producers.catalogue import ingest as catalogue
from producers.catalogue.decimal_mark import DecimalMark
from producers.catalogue.fingerprint import compute_fingerprints
from producers.codes import run as codes
from producers.codes.codebook import Codebook
from producers.encoders.encoder import Encoder
from producers.encoders.pipeline import build_embedding_rows, encode_chunk
from producers.streaming.source import StreamMessage

TEXT_FIELDS = catalogue.COLUMNS
"""Fields of a product message that are UTF-8 text."""
BYTES_FIELD = "image_bytes"
"""Field of a product message that holds an image. If it is there, the field `image` is ignored."""

ViewBuilder = Callable[[pa.Table, pa.Table], pa.Table]
"""Returns the rows of a view for embedding rows and the catalogue rows of the same products, in the same order."""


@dataclass(frozen=True)
class StreamedProducts:
    """The result of a batch of product messages."""

    tables: Mapping[str, pa.Table]
    """Table name to rows: the catalogue, the vectors, then the views that are built from vectors. Empty if no message
    is valid. A product with neither a usable image nor a title has a row in the catalogue only. If no product has a
    vector, the table of vectors has no rows and the views are missing."""
    rejected: tuple[tuple[StreamMessage, str], ...]
    """The invalid messages, each with its reasons in one line; they have no rows."""
    notes: tuple[RejectedRow, ...]
    """Repaired values and unusable images, for the quarantine."""


@dataclass(frozen=True)
class ProductPipeline:
    """What is needed to turn a product message into rows."""

    encoder: Encoder
    """Computes the vectors."""
    pool: ProcessPoolExecutor
    """Decodes images."""
    image_folder: Path
    """Folder where relative image paths start."""
    codebook: Codebook | None
    """Codes the vectors; None for no codes."""
    view_builders: Mapping[str, ViewBuilder]
    """Table name to the builder of its rows, for the tables other than catalogue, vectors and codes."""
    decimal: DecimalMark = DecimalMark.POINT
    """The decimal mark of prices. A stream has no column that could decide it."""
    pictures: BucketPath | None = None
    """Prefix of the bucket whose pictures messages may name, where relative paths then start; None for no bucket."""


def build_rows(messages: Sequence[StreamMessage], pipeline: ProductPipeline, now: datetime) -> StreamedProducts:
    """Validate and encode products, and return their rows for every table. Nothing is written.

    A product whose image cannot be used keeps its row, and the reason is among the notes.
    The created timestamp of a row is the arrival time of its message, so that a message that is processed twice gives
    the same rows.

    Args:
        messages: product messages, at most one for each product; there may be none.
        pipeline: encoder, codebook and view builders.
        now: the current time, with a time zone. An `updated_at` after this is rejected.

    Returns:
        The rows, the rejected messages, and what to quarantine. In each table, the products whose message
        holds the bytes of an image come last; apart from that, the order is that of `messages`.
    """
    rejected: list[tuple[StreamMessage, str]] = []
    notes: list[RejectedRow] = []
    parts: list[pa.Table] = []
    for has_bytes in (False, True):
        part = [message for message in messages if (BYTES_FIELD in message.fields) is has_bytes]
        valid = _validate(part, pipeline, has_bytes, now, rejected, notes) if part else None
        if valid is not None and len(valid):
            parts.append(valid)
    if not parts:
        return StreamedProducts({}, tuple(rejected), tuple(notes))
    products = pa.concat_tables(parts).combine_chunks()
    chunk = encode_chunk(products, pipeline.encoder, pipeline.pool, pictures=pipeline.pictures)
    encoded = build_embedding_rows(chunk, pipeline.encoder, now)
    notes += [RejectedRow(image.product_id, image.column, image.reason, image.value) for image in encoded.unusable]
    product_row = pc.index_in(encoded.rows[schema.PRODUCT_ID], value_set=products[schema.PRODUCT_ID].combine_chunks())
    encoded_products = products.take(product_row)
    vectors = _set_arrival(encoded.rows, encoded_products)
    tables = {schema.CATALOGUE_TABLE: products, schema.EMBEDDING_TABLE: vectors}
    if len(vectors):
        if pipeline.codebook is not None:
            fused = to_matrix(vectors["fused_vector"])
            rows = codes.build_code_rows(
                vectors.select(codes.KEY),
                pipeline.codebook.encode(fused)[0],
                input_digest.hash_vectors(fused),
                pipeline.codebook,
                now,
            )
            tables[schema.CODES_TABLE] = _set_arrival(rows, encoded_products)
        for table, build in pipeline.view_builders.items():
            tables[table] = _set_arrival(build(vectors, encoded_products), encoded_products)
    return StreamedProducts(tables, tuple(rejected), tuple(notes))


def split_repeats(messages: Sequence[StreamMessage]) -> list[list[StreamMessage]]:
    """Split messages into groups with each product at most once; the messages of a product stay in their order.

    The first group has the first message of each product, the second group the second one, and so on. A message without
    a product id counts as a product of its own. No messages give no groups.
    """
    groups: list[list[StreamMessage]] = []
    last_group: dict[str, int] = {}
    for message in messages:
        product = text.normalize_id(message.fields.get("product_id", message.id.encode()).decode(errors="replace"))
        number = last_group[product] = last_group.get(product, -1) + 1
        if number == len(groups):
            groups.append([])
        groups[number].append(message)
    return groups


def _validate(
    messages: list[StreamMessage],
    pipeline: ProductPipeline,
    has_bytes: bool,
    now: datetime,
    rejected: list[tuple[StreamMessage, str]],
    notes: list[RejectedRow],
) -> pa.Table | None:
    """Return the valid messages as rows of schema.CATALOGUE; add the others to `rejected` and repairs to `notes`."""
    decoded = []
    for message in messages:
        try:
            texts = {name: message.fields[name].decode() for name in TEXT_FIELDS if name in message.fields}
            decoded.append((message, texts))
        except UnicodeDecodeError:
            rejected.append((message, NOT_UTF8))
    if not decoded:
        return None
    columns: dict[str, pa.Array] = {
        name: pa.array([texts.get(name) for _, texts in decoded], pa.string()) for name in TEXT_FIELDS
    }
    if has_bytes:
        columns["image"] = pa.array([message.fields[BYTES_FIELD] for message, _ in decoded], pa.binary())
    table = pa.table(columns)
    folder = pipeline.image_folder / "stream"
    checked = validate.validate_products(table, 0, folder, now, decimal=pipeline.decimal, pictures=pipeline.pictures)
    for row in np.flatnonzero(~checked.is_valid).tolist():
        faults = validate.validate_products(table.slice(row, 1), 0, folder, now, pictures=pipeline.pictures).refused
        rejected.append((decoded[row][0], "; ".join(fault.reason for fault in faults)))
    notes += [note for row, note in checked.repairs if checked.is_valid[row]]
    no_hash = np.zeros((len(table), 2), np.uint64)
    image_hash, image_stat = image_hashes.hash_images(
        checked.rows, checked.is_valid, no_hash, no_hash, rehash=False, pictures=pipeline.pictures
    )
    added = {
        "image_hash": image_hash,
        "image_stat": image_stat,
        "fingerprint": row_hash.to_arrow(compute_fingerprints(checked.rows, image_hash)),
        schema.CREATED_TIMESTAMP: pa.array([message.arrived_us for message, _ in decoded], schema.TIMESTAMP),
    }
    versions = checked.rows
    for name, column in added.items():
        versions = versions.append_column(name, column)
    return versions.select(schema.CATALOGUE.names).cast(schema.CATALOGUE).filter(pa.array(checked.is_valid))


def _set_arrival(rows: pa.Table, products: pa.Table) -> pa.Table:
    """Replace the created timestamps of rows with those of their products, in the same order."""
    column = rows.schema.get_field_index(schema.CREATED_TIMESTAMP)
    return rows.set_column(column, schema.CREATED_TIMESTAMP, products[schema.CREATED_TIMESTAMP])
