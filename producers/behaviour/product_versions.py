"""Vectors and tags that were valid when products were shown or clicked: one as-of lookup for each row of a log."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.arrow import take
from feature_repo.arrow.take import to_matrix
from feature_repo.config import Settings
from feature_repo.offline import asof, delta
from feature_repo.schema import CHILD_AGES, CHILD_GENDERS, CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_ID, TIMESTAMP

Int64 = NDArray[np.int64]
Floats = NDArray[np.float32]
LOOKUP_ROWS = 1_000_000
"""Rows whose product ids are in memory at a time."""


@dataclass(frozen=True)
class ProductVersions:
    """The versions that n rows of a log use, each stored once, and the version of each row."""

    embedding: Int64
    """[n], a row of `vectors`; -1 if the product had no vector."""
    vectors: Floats
    """[versions, d], fused vectors."""
    tags: Int64
    """[n], a row of `ages` and `genders`; -1 if the product had no tags."""
    ages: Floats
    """[versions, ages], distributions over CHILD_AGES; NaN rows where no tagger was trained."""
    genders: Floats
    """[versions, genders], distributions over CHILD_GENDERS, likewise."""

    def take(self, rows: Int64) -> tuple[Floats, Floats, Floats]:
        """Return vectors, ages and genders of rows of the log, in their order; NaN where a row has none."""
        tags = self.tags[rows]
        return (
            _take_or_nan(self.vectors, self.embedding[rows]),
            _take_or_nan(self.ages, tags),
            _take_or_nan(self.genders, tags),
        )


def read_versions(
    settings: Settings,
    product_ids: pa.Array,
    product: NDArray[np.int32],
    timestamp_us: Int64,
    encoder_version: str,
) -> ProductVersions:
    """Read the fused vectors and tags of one encoder version that were valid at each row's time, inclusive.

    Args:
        settings: the deployment.
        product_ids: the id of each code.
        product: [n], codes.
        timestamp_us: [n], microseconds since 1970 UTC.
        encoder_version: rows of other versions are ignored.
    """
    embedding, rows = find_versions(
        settings, schema.EMBEDDING_TABLE, ["fused_vector"], product_ids, product, timestamp_us, encoder_version
    )
    vectors = to_matrix(rows["fused_vector"])
    if not delta.exists(settings.table(schema.TAGS_TABLE)):
        ages, genders = (np.empty((0, len(labels)), np.float32) for labels in (CHILD_AGES, CHILD_GENDERS))
        return ProductVersions(embedding, vectors, np.full(len(product), -1), ages, genders)
    columns = ["child_age_distribution", "child_gender_distribution"]
    tags, rows = find_versions(
        settings, schema.TAGS_TABLE, columns, product_ids, product, timestamp_us, encoder_version
    )
    ages, genders = (
        to_matrix(rows[name], len(labels)) for name, labels in zip(columns, (CHILD_AGES, CHILD_GENDERS), strict=True)
    )
    return ProductVersions(embedding, vectors, tags, ages, genders)


def find_versions(
    settings: Settings,
    table: str,
    columns: list[str],
    product_ids: pa.Array,
    product: NDArray[np.int32],
    timestamp_us: Int64,
    encoder_version: str,
) -> tuple[Int64, pa.Table]:
    """Find the version of a product table that was valid for each product at each time, inclusive.

    Args:
        settings: the deployment.
        table: the table's name.
        columns: the columns to return.
        product_ids: the id of each code.
        product: [n], codes.
        timestamp_us: [n], microseconds since 1970 UTC.
        encoder_version: rows of other versions are ignored.

    Returns:
        Row numbers of the returned table, int64 [n], -1 where no version was valid; and a table with `columns` of the
        versions in use, each once.
    """
    dataset = delta.open_dataset(settings.table(table))
    where = pc.field("encoder_version") == encoder_version
    keys = dataset.to_table(columns=[PRODUCT_ID, EVENT_TIMESTAMP, CREATED_TIMESTAMP], filter=where)
    versions = asof.index_versions([keys[PRODUCT_ID]], keys[EVENT_TIMESTAMP], keys[CREATED_TIMESTAMP])
    position = np.empty(len(product), np.int64)
    for start in range(0, len(product), LOOKUP_ROWS):
        part = slice(start, start + LOOKUP_ROWS)
        ids = pa.chunked_array([pa.DictionaryArray.from_arrays(pa.array(product[part]), product_ids)])
        times = pa.chunked_array([pa.array(timestamp_us[part], TIMESTAMP)])
        position[part] = asof.look_up(versions, [ids], times)
    used = np.unique(position[position >= 0])
    row_index = np.full(len(position), -1)
    row_index[position >= 0] = np.searchsorted(used, position[position >= 0])
    return row_index, take.take_rows(dataset, used, columns, where=where)


def _take_or_nan(values: Floats, row_index: Int64) -> Floats:
    if not len(values):
        return np.full((len(row_index), values.shape[1]), np.nan, np.float32)
    rows = values[row_index]
    rows[row_index < 0] = np.nan
    return rows
