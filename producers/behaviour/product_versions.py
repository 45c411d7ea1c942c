"""Vectors and tags that were valid when products were shown or clicked: one as-of lookup for each row of a log."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.arrow import take
from feature_repo.arrow.take import to_matrix, to_matrix_of_width
from feature_repo.config import Settings
from feature_repo.offline import asof, delta
from feature_repo.schema import CHILD_GENDERS, CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_ID, TIMESTAMP

Int64 = NDArray[np.int64]
Floats = NDArray[np.float32]
LOOKUP_ROWS = 1_000_000
VERSION_COLUMNS = [PRODUCT_ID, EVENT_TIMESTAMP, CREATED_TIMESTAMP]
"""Rows of the log that are looked up at a time; only their product ids are in memory."""


@dataclass(frozen=True)
class ProductVersions:
    """The versions that n rows of a log use, each stored once, and the version of each row."""

    embedding: Int64
    """[n], the row of `vectors` that was valid; -1 if the product had no vector by then."""
    vectors: Floats
    """[versions, d], fused vectors as they are stored; a NaN row where the stored vector is null."""
    tags: Int64
    """[n], the row of `ages` and `genders` that was valid; -1 if the product had no tags by then."""
    ages: Floats
    """[versions, stages], probabilities of the stages of the deployment's scale; NaN rows where no tagger of ages was
    trained, or one of a scale with another number of stages."""
    genders: Floats
    """[versions, 3], probabilities in the order of CHILD_GENDERS; NaN rows where no tagger of genders was trained."""

    def take(self, rows: Int64) -> tuple[Floats, Floats, Floats]:
        """Return the vectors [k, d], ages [k, stages] and genders [k, 3] of k rows of the log, as copies.

        Args:
            rows: [k], numbers of rows of the log, from 0 to n - 1, in any order; a row may be repeated. The results are
                in this order, and NaN where a row has none.
        """
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
    """Read the fused vectors and tags of one encoder version that were valid at each row's time.

    Valid is the newest version whose event timestamp is not later than the time of the row. Of several versions with
    one event timestamp it is the one created last.

    Args:
        settings: the deployment. If it has no table of tags, no row has tags.
        product_ids: the ids of the products; a code is an index into them.
        product: [n], the code of each row's product.
        timestamp_us: [n], the time of each row, microseconds since 1970 UTC, in any order.
        encoder_version: rows of other versions are ignored.

    Raises:
        NotFoundError: there is no table `product_embedding`.
    """
    embedding, rows = find_versions(
        settings, schema.EMBEDDING_TABLE, ["fused_vector"], product_ids, product, timestamp_us, encoder_version
    )
    vectors = to_matrix(rows["fused_vector"])
    widths = (len(settings.age_scale.stages), len(CHILD_GENDERS))
    if not delta.exists(settings.table(schema.TAGS_TABLE)):
        ages, genders = (np.empty((0, width), np.float32) for width in widths)
        return ProductVersions(embedding, vectors, np.full(len(product), -1), ages, genders)
    columns = ["child_age_distribution", "child_gender_distribution"]
    tags, rows = find_versions(
        settings, schema.TAGS_TABLE, columns, product_ids, product, timestamp_us, encoder_version
    )
    ages, genders = (to_matrix_of_width(rows[name], width) for name, width in zip(columns, widths, strict=True))
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
    """Find the version of a product table that was valid for each of n rows, given by product and time.

    Valid is the newest version whose event timestamp is not later than the time of the row. Of several versions with
    one event timestamp it is the one created last.

    Args:
        settings: the deployment.
        table: the name of a table with a product id, both timestamps and `encoder_version`, such as `product_tags`.
        columns: the columns to return.
        product_ids: the ids of the products; a code is an index into them.
        product: [n], the code of each row's product.
        timestamp_us: [n], the time of each row, microseconds since 1970 UTC.
        encoder_version: rows of other versions are ignored.

    Returns:
        Row numbers of the returned table, int64 [n], -1 where no version was valid; and a table with `columns` of the
        versions in use, each once. It has no rows if no version was valid for any row.

    Raises:
        NotFoundError: the deployment has no such table.
    """
    dataset = delta.open_dataset(settings.table(table), ["encoder_version", *VERSION_COLUMNS])
    where = pc.field("encoder_version") == encoder_version
    keys = dataset.to_table(columns=VERSION_COLUMNS, filter=where)
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
    """Return rows of `values` [rows, k] by index, as a copy; NaN for -1."""
    if not len(values):
        return np.full((len(row_index), values.shape[1]), np.nan, np.float32)
    rows = values[row_index]
    rows[row_index < 0] = np.nan
    return rows
