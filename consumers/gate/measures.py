"""Measures of a candidate against the version in production, from the rows of both in the offline tables."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.arrow.take import to_matrix
from feature_repo.config import Settings
from feature_repo.evaluation.nearest_products import compute_shared, find_nearest_products
from feature_repo.features.similarity import normalize_rows
from feature_repo.offline import delta, versions
from feature_repo.schema import CREATED_TIMESTAMP, ENCODER_VERSION, EVENT_TIMESTAMP, PRODUCT_ID, USER_ID

Floats = NDArray[np.float64]
MAX_PRODUCTS = 20_000
"""Products among which neighbours are searched; of more, a random sample."""
MAX_QUERIES = 1_000
"""Products whose neighbours are compared."""


@dataclass(frozen=True)
class Mean:
    """A mean with its 95% interval, by the normal approximation."""

    value: float
    """NaN without observations."""
    low: float
    """Lower bound."""
    high: float
    """Upper bound."""
    count: int
    """Number of observations."""

    @staticmethod
    def of(values: Floats) -> "Mean":
        """Return the mean of observations [n]."""
        if not len(values):
            return Mean(np.nan, np.nan, np.nan, 0)
        half = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else float("nan")
        value = float(values.mean())
        return Mean(value, value - half, value + half, len(values))


def measure_coverage(settings: Settings, table: str, production: str, candidate: str) -> tuple[float, int] | None:
    """Return the share of one version's rows, by entity and event time, that another has too, and the number of rows.

    Args:
        settings: the deployment.
        table: one of schema.ENCODER_TABLES.
        production: the version in production.
        candidate: the other version.

    Returns:
        None if there is no table, or no row of the version in production.
    """
    path = settings.table(table)
    if not delta.exists(path):
        return None
    key = [USER_ID if table == schema.INTEREST_TABLE else PRODUCT_ID, EVENT_TIMESTAMP]
    keys = [
        delta.read(path, key, where=pc.field(ENCODER_VERSION) == version).group_by(key).aggregate([])
        for version in (production, candidate)
    ]
    if not len(keys[0]):
        return None
    return len(keys[0].join(keys[1], key, join_type="left semi")) / len(keys[0]), len(keys[0])


def measure_overlap(settings: Settings, production: str, candidate: str, *, top_k: int, seed: int) -> Mean:
    """Return the share of a product's nearest products that both versions agree on, by the fused vector.

    Args:
        settings: the deployment.
        production: the version in production.
        candidate: the other version.
        top_k: number of nearest products; fewer if fewer products have both vectors.
        seed: of the samples of MAX_PRODUCTS and MAX_QUERIES.

    Returns:
        The mean over the queries, in [0, 1]. Only products with a vector of both versions take part.
    """
    rows = [
        _read_newest(settings, schema.EMBEDDING_TABLE, version, ["fused_vector"]) for version in (production, candidate)
    ]
    rows = [each.filter(pc.is_valid(pc.field("fused_vector"))) for each in rows]
    is_shared = pc.is_in(rows[0][PRODUCT_ID], value_set=rows[1][PRODUCT_ID].combine_chunks())
    shared = rows[0].filter(is_shared)[PRODUCT_ID].combine_chunks().sort()
    rng = np.random.default_rng(seed)
    if len(shared) > MAX_PRODUCTS:
        shared = shared.take(pa.array(np.sort(rng.choice(len(shared), MAX_PRODUCTS, replace=False))))
    top_k = min(top_k, len(shared) - 1)
    if top_k < 1:
        return Mean.of(np.empty(0))
    queries = np.sort(rng.choice(len(shared), min(MAX_QUERIES, len(shared)), replace=False))
    vectors = [_read_vectors(each, shared) for each in rows]
    one, other = (find_nearest_products(each[queries], each, queries, top_k) for each in vectors)
    return Mean.of(compute_shared(one, other))


def measure_tag_agreement(settings: Settings, tag: str, production: str, candidate: str) -> Mean:
    """Return the share of products with the same value of a tag in both versions, of those with a value in both.

    Args:
        settings: the deployment.
        tag: one of schema.TAGS.
        production: the version in production.
        candidate: the other version.
    """
    if not delta.exists(settings.table(schema.TAGS_TABLE)):
        return Mean.of(np.empty(0))
    rows = [_read_newest(settings, schema.TAGS_TABLE, version, [tag]) for version in (production, candidate)]
    both = rows[0].join(rows[1], PRODUCT_ID, join_type="inner", right_suffix=" of the candidate").drop_null()
    return Mean.of(pc.equal(both[tag], both[f"{tag} of the candidate"]).cast(pa.float64()).to_numpy())


def _read_newest(settings: Settings, table: str, version: str, columns: list[str]) -> pa.Table:
    """Return product id and some columns of the newest row of each product of one encoder version."""
    return versions.read_newest(
        delta.open_dataset(settings.table(table)),
        [PRODUCT_ID, *columns],
        pc.field(ENCODER_VERSION) == version,
        keys=[PRODUCT_ID],
        event_timestamp=EVENT_TIMESTAMP,
        created_timestamp=CREATED_TIMESTAMP,
    )


def _read_vectors(rows: pa.Table, ids: pa.Array) -> NDArray[np.float32]:
    """Return the fused vectors of some products in their order, scaled to unit length."""
    row = pc.index_in(ids, value_set=rows[PRODUCT_ID].combine_chunks())
    return normalize_rows(to_matrix(rows["fused_vector"].take(row)))
