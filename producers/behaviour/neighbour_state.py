"""The state of all products at a time, from which the features of `product_neighbours` are computed."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.arrow.take import to_matrix
from feature_repo.config import Settings
from feature_repo.features import neighbours as definition
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_ID, PRODUCT_NEIGHBOURS, TIMESTAMP
from feature_repo.table_format import DEFAULT_FORMAT, TableFormat
from producers.behaviour import impression_log
from producers.behaviour.impression_log import ImpressionLog, Int64
from producers.behaviour.nearest import NearestProducts
from producers.behaviour.product_changes import ProductChanges, read_changes

STEP = "neighbours"
Floats = NDArray[np.float32]


@dataclass
class ProductState:
    """The state of n products; n grows."""

    vectors: Floats
    """[n, d], of unit length, NaN where there is none."""
    price: Floats
    """[n], in the shop's currency; NaN if unknown."""
    age: Floats
    """[n], expected child age stage, an index of a stage with a fraction; NaN if unknown."""
    impressions: Int64
    """[n], number so far."""
    clicks: Int64
    """[n], number so far."""

    @staticmethod
    def create_empty(width: int) -> "ProductState":
        """Return the state of no products, for vectors of `width` elements."""
        floats, counts = np.empty(0, np.float32), np.empty(0, np.int64)
        return ProductState(np.empty((0, width), np.float32), floats, floats, counts, counts)

    def grow(self, products: int) -> None:
        """Add products without vector, price, age and impressions until there are `products` of them."""
        for name in ("vectors", "price", "age"):
            setattr(self, name, _extend(getattr(self, name), products, np.nan))
        self.impressions, self.clicks = _extend(self.impressions, products, 0), _extend(self.clicks, products, 0)

    def count_impressions(self, product: Int64, is_clicked: NDArray[np.bool_]) -> None:
        """Add impressions and clicks; those of products that are unknown (-1) or not added yet are ignored."""
        is_present = (product >= 0) & (product < len(self.impressions))
        self.impressions += np.bincount(product[is_present], minlength=len(self.impressions))
        self.clicks += np.bincount(product[is_present & is_clicked], minlength=len(self.impressions))

    def compute_features(self, own: Int64, neighbours: Int64, similarity: Floats) -> dict[str, Floats]:
        """Return the features [m] by name of m products from their nearest products.

        Args:
            own: [m], product numbers; -1 for a product that is not added yet.
            neighbours: [m, k], product numbers; -1 for none.
            similarity: [m, k], cosines; NaN for none.
        """
        if not len(self.impressions):
            zeros = np.zeros(neighbours.shape, np.int64)
            unknown = np.full(neighbours.shape, np.nan, np.float32)
            return definition.compute_neighbour_features(
                similarity, zeros, zeros, unknown, unknown, (zeros[:, 0], zeros[:, 0])
            )
        own_impressions, own_clicks = (np.where(own < 0, 0, counts[own]) for counts in (self.impressions, self.clicks))
        is_missing = neighbours < 0
        return definition.compute_neighbour_features(
            similarity,
            self.impressions[neighbours],
            self.clicks[neighbours],
            np.where(is_missing, np.float32(np.nan), self.price[neighbours]),
            np.where(is_missing, np.float32(np.nan), self.age[neighbours]),
            (self.impressions.sum() - own_impressions, self.clicks.sum() - own_clicks),
        )


@dataclass(frozen=True)
class NeighbourState:
    """The state of all products at the end of a log, from which features of later products are computed."""

    encoder_version: str
    """The encoder of all vectors."""
    product_ids: pa.Array
    """The id of each product number: the id of number k is `product_ids[k]`."""
    state: ProductState
    """Vectors, prices, ages and counts, indexed by product number."""
    nearest: NearestProducts
    """Used to search only: it knows which products have impressions, and its lists of neighbours are not filled."""

    def compute_rows(self, rows: pa.Table, now: datetime) -> pa.Table:
        """Return rows of `product_neighbours` for rows of `product_embedding`, in their order. Nothing is written.

        All impressions of the log count, whatever the event timestamp of a row, but never those of its own product. A
        row with a null vector has null features and 0 `neighbours`.

        Args:
            rows: a table with the product id, the event timestamp and the fused vector of `encoder_version`. Products
                may be new.
            now: the created timestamp, with a time zone.

        Raises:
            InvalidInputError: the vectors have another length than those of the state.
        """
        own = pc.index_in(rows[PRODUCT_ID], value_set=self.product_ids).fill_null(-1).to_numpy()
        vectors = to_matrix(rows["fused_vector"], self.state.vectors.shape[1])
        features = self.state.compute_features(own, *self.nearest.search(self.state.vectors, vectors, own))
        event_us = rows[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy()
        product_ids = rows[PRODUCT_ID].combine_chunks()
        return build_rows(product_ids, np.arange(len(rows)), event_us, features, self.encoder_version, now)


def read_state(
    settings: Settings,
    impressions: Path,
    encoder_version: str,
    top_k: int,
    now: datetime,
    table_format: TableFormat = DEFAULT_FORMAT,
) -> NeighbourState:
    """Return the state of all products at the end of a log; vectors, prices and ages are the newest stored ones.

    They count even if they are newer than the log. Refused rows of the log go to the quarantine.

    Args:
        settings: the deployment.
        impressions: the whole log: Parquet or CSV with the columns of schema.IMPRESSIONS.
        encoder_version: the encoder whose vectors to use.
        top_k: how many nearest products the features of a product are computed from, at least 1.
        now: later impressions are refused; also the created timestamp in the quarantine. With a time zone.
        table_format: what the user says about the log.

    Raises:
        NotFoundError: the log does not exist, or there are no vectors of `encoder_version`.
        InvalidInputError: the log cannot be read, lacks a column or has no usable row.
    """
    log = impression_log.read_log(
        settings, impressions, step=STEP, now=now, clicks_only=False, table_format=table_format
    )
    changes = read_changes(settings, encoder_version)
    state = ProductState.create_empty(changes.vectors.shape[1])
    state.grow(len(changes.product_ids))
    changes.apply(slice(None), state.vectors, state.price, state.age)
    state.count_impressions(number_products(log, changes), log.is_clicked)
    nearest = NearestProducts.create_empty(top_k)  # the lists of stored products are not needed
    nearest.set_members(state.vectors, np.ones(len(state.vectors), bool), state.impressions > 0)
    return NeighbourState(encoder_version, changes.product_ids, state, nearest)


def number_products(log: ImpressionLog, changes: ProductChanges) -> Int64:
    """Return the product number of each impression; -1 for a product that has no change."""
    number = pc.index_in(log.product_ids, value_set=changes.product_ids).fill_null(-1).to_numpy()
    return number[log.product]


def build_rows(
    product_ids: pa.Array,
    product: Int64,
    event_us: Int64,
    features: dict[str, Floats],
    encoder_version: str,
    now: datetime,
) -> pa.Table:
    """Return versions as rows of schema.PRODUCT_NEIGHBOURS without a digest; NaN becomes null."""
    columns = {
        PRODUCT_ID: product_ids.take(pa.array(product)),
        **{name: pa.array(values, from_pandas=True) for name, values in features.items()},
        "encoder_version": pa.repeat(pa.scalar(encoder_version), len(product)),
        EVENT_TIMESTAMP: pa.array(event_us, TIMESTAMP),
        CREATED_TIMESTAMP: pa.repeat(pa.scalar(now, TIMESTAMP), len(product)),
        schema.INPUT_DIGEST: pa.nulls(len(product), pa.int64()),
    }
    return pa.table(columns).cast(PRODUCT_NEIGHBOURS)


def _extend(values: NDArray, rows: int, fill: float) -> NDArray:
    """Return a copy of the values with `rows` rows; the added ones hold `fill`."""
    return np.concatenate([values, np.full((rows - len(values), *values.shape[1:]), fill, values.dtype)])
