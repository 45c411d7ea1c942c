"""Messages of products to the rows of every product view: catalogue, vectors, codes, tags, neighbours."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import schema
from feature_repo.arrow.take import to_matrix
from feature_repo.offline.quarantine import RejectedRow
from feature_repo.offline.validation import NOT_UTF8
from producers.catalogue import image_hashes, row_hash, validate
from producers.catalogue import ingest as catalogue
from producers.codes import run as codes
from producers.codes.codebook import Codebook
from producers.encoders.encoder import Encoder
from producers.encoders.pipeline import build_embedding_rows, encode_chunk
from producers.streaming.source import StreamMessage

TEXTS = ("product_id", "title", "image", "category", "brand", "price", "updated_at")
BYTES = "image_bytes"

ViewBuilder = Callable[[pa.Table, pa.Table], pa.Table]
"""Rows of a view from the embedding rows and, in their order, the catalogue rows of some products."""


@dataclass(frozen=True)
class ProductRows:
    """What came of some messages."""

    tables: Mapping[str, pa.Table]
    """Rows by table."""
    refused: tuple[tuple[StreamMessage, str], ...]
    """Messages that no row could be made of, and why."""
    notes: tuple[RejectedRow, ...]
    """Values that were mended, and pictures that could not be used."""


@dataclass(frozen=True)
class ProductPipeline:
    """What rows are made with."""

    encoder: Encoder
    pool: ProcessPoolExecutor
    folder: Path
    """Where relative paths of pictures start."""
    codebook: Codebook | None
    further: Mapping[str, ViewBuilder]
    """By table."""


def build_rows(messages: Sequence[StreamMessage], makers: ProductPipeline, now: datetime) -> ProductRows:
    """The rows of messages.

    Args:
        messages: of products, each product once.
        now: later `updated_at` are refused.
    """
    refused: list[tuple[StreamMessage, str]] = []
    notes: list[RejectedRow] = []
    versions: list[pa.Table] = []
    for has_bytes in (False, True):
        part = [message for message in messages if (BYTES in message.fields) is has_bytes]
        taken = _check(part, makers.folder, has_bytes, now, refused, notes) if part else None
        if taken is not None and len(taken):
            versions.append(taken)
    if not versions:
        return ProductRows({}, tuple(refused), tuple(notes))
    products = pa.concat_tables(versions).combine_chunks()
    encoded = encode_chunk(products, makers.encoder, makers.pool)
    embedded = build_embedding_rows(encoded, makers.encoder, now)
    notes += [RejectedRow(one.product_id, one.column, one.reason, one.value) for one in embedded.unusable]
    place = pc.index_in(embedded.rows[schema.PRODUCT_ID], value_set=products[schema.PRODUCT_ID].combine_chunks())
    of_rows = products.take(place)
    vectors = _came(embedded.rows, of_rows)
    tables = {schema.CATALOGUE_TABLE: products, schema.EMBEDDING_TABLE: vectors}
    if len(vectors):
        if makers.codebook is not None:
            fused = to_matrix(vectors["fused_vector"])
            known = vectors.select(codes.KEY)
            coded = codes.build_code_rows(known, makers.codebook.encode(fused)[0], makers.codebook, now)
            tables[schema.CODES_TABLE] = _came(coded, of_rows)
        for table, further in makers.further.items():
            tables[table] = _came(further(vectors, of_rows), of_rows)
    return ProductRows(tables, tuple(refused), tuple(notes))


def split_repeats(messages: Sequence[StreamMessage]) -> list[list[StreamMessage]]:
    """The messages in their order, in groups that have each product once."""
    groups: list[list[StreamMessage]] = []
    turn: dict[bytes, int] = {}
    for message in messages:
        product = message.fields.get("product_id", message.id.encode())
        number = turn[product] = turn.get(product, -1) + 1
        if number == len(groups):
            groups.append([])
        groups[number].append(message)
    return groups


def _check(
    messages: list[StreamMessage],
    folder: Path,
    has_bytes: bool,
    now: datetime,
    refused: list[tuple[StreamMessage, str]],
    notes: list[RejectedRow],
) -> pa.Table | None:
    """schema.CATALOGUE of the messages that are sound, created when they came."""
    sound = []
    for message in messages:
        try:
            texts = {name: message.fields[name].decode() for name in TEXTS if name in message.fields}
            sound.append((message, texts))
        except UnicodeDecodeError:
            refused.append((message, NOT_UTF8))
    if not sound:
        return None
    columns: dict[str, pa.Array] = {
        name: pa.array([texts.get(name) for _, texts in sound], pa.string()) for name in TEXTS
    }
    if has_bytes:
        columns["image"] = pa.array([message.fields[BYTES] for message, _ in sound], pa.binary())
    table = pa.table(columns)
    came = validate.validate_products(table, 0, folder / "stream", now)
    for row in np.flatnonzero(~came.is_valid).tolist():
        why = validate.validate_products(table.slice(row, 1), 0, folder / "stream", now).refused
        refused.append((sound[row][0], "; ".join(one.reason for one in why)))
    notes += [note for row, note in came.repairs if came.is_valid[row]]
    nothing = np.zeros((len(table), 2), np.uint64)
    image_hash, image_stat = image_hashes.hash_images(came.rows, came.is_valid, nothing, nothing, rehash=False)
    added = {
        "image_hash": image_hash,
        "image_stat": image_stat,
        "fingerprint": row_hash.to_arrow(catalogue.compute_fingerprints(came.rows, image_hash)),
        schema.CREATED_TIMESTAMP: pa.array([message.arrived for message, _ in sound], schema.TIMESTAMP),
    }
    versions = came.rows
    for name, column in added.items():
        versions = versions.append_column(name, column)
    return versions.select(schema.CATALOGUE.names).cast(schema.CATALOGUE).filter(pa.array(came.is_valid))


def _came(rows: pa.Table, of_rows: pa.Table) -> pa.Table:
    """The rows, created when their message came."""
    place = rows.schema.get_field_index(schema.CREATED_TIMESTAMP)
    return rows.set_column(place, schema.CREATED_TIMESTAMP, of_rows[schema.CREATED_TIMESTAMP])
