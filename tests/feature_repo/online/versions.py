"""Rows whose features all carry the row's version, and functions that write them. Imports little: many processes do."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from feature_repo.arrow import columns
from feature_repo.arrow.columns import Column
from feature_repo.arrow.field import Field
from feature_repo.online.catalog import View
from feature_repo.online.lmdb_store import LMDBStore
from feature_repo.online.redis_connection import parse_url
from feature_repo.online.redis_store import RedisStore
from feature_repo.online.row_format import Layout
from feature_repo.online.table import OnlineTable

PRODUCTS = 1000
VERSIONS = 4
VIEW = View(
    "looks",
    (("product_id", "string"),),
    0,
    (
        Layout.from_fields(
            [
                Field("version", "int64"),
                Field("vector", "float_list", "float16"),
                Field("label", "string", "dictionary"),
                Field("title", "string"),
            ]
        ),
    ),
)


def open_table(url: str) -> OnlineTable:
    if url.startswith("lmdb"):
        return OnlineTable(LMDBStore(Path(url.removeprefix("lmdb://")), create=True), "shop")
    return OnlineTable(RedisStore(parse_url(url)), "shop")


def make_column(field: Field, values: list[Any]) -> Column:
    return columns.from_arrow(field, pa.array(values, columns.arrow_type(field)))


def write_versions(table: OnlineTable, view: View, ids: list[str], versions: list[int], created: list[int]) -> int:
    """Write a row for each id. Its version is its event timestamp and the value of all its features."""
    features = {
        "version": versions,
        "vector": [[float(version), 1.0] for version in versions],
        "label": [f"label {version % 7}" for version in versions],
        "title": ["t" * version for version in versions],
    }
    keys, rows = table.pack(
        view,
        table.make_keys(view, {"product_id": ids}, len(ids)),
        {name: make_column(view.layout.fields_by_name[name], values) for name, values in features.items()},
        np.array(versions),
        np.array(created),
    )
    return table.store.write(keys, rows, view.ttl_us)


def write_shuffled(url: str, seed: int) -> int:
    """Write all versions of all products in a random order, in batches that mix products and versions."""
    table = open_table(url)
    view = table.catalog.register_view(VIEW)
    rows = [(f"p{product}", version) for product in range(PRODUCTS) for version in range(VERSIONS)]
    random.Random(seed).shuffle(rows)
    written = 0
    for start in range(0, len(rows), 250):
        ids, versions = zip(*rows[start : start + 250], strict=True)
        written += write_versions(table, view, list(ids), list(versions), [0] * len(ids))
    return written
