"""Computes `product_neighbours` from the log: how the most similar products performed before each version's time.

Time advances in intervals (a day by default). At the start of each interval every product gets a version, computed
from impressions strictly before it. A product that arrives or changes within an interval gets a version at its own
event time, computed from the state at the interval's start. So no version uses anything at or after its event
timestamp.

All versions are computed in every run, since each needs the state that the earlier ones leave. Those whose newest row
was made from the same state (neighbour_digest.py) are not written again.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.arrow.take import to_matrix
from feature_repo.config import Settings
from feature_repo.features import neighbours as definition
from feature_repo.offline import delta
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_ID, PRODUCT_NEIGHBOURS, TIMESTAMP
from feature_repo.table_format import DEFAULT_FORMAT, TableFormat
from producers.behaviour import impression_log
from producers.behaviour.impression_log import ImpressionLog, Int64
from producers.behaviour.nearest import NearestProducts
from producers.behaviour.neighbour_digest import StateHashes, set_digests
from producers.behaviour.product_changes import ProductChanges, read_changes
from producers.input_digest import Digests
from producers.stored_rows import StoredRows
from producers.tags.embedding_rows import choose_encoder_version

STEP = "neighbours"
ROWS_PER_COMMIT = 500_000
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class NeighbourSummary:
    """The outcome of one run. A version is one row: the features of one product from one event timestamp on."""

    encoder_version: str
    """The encoder whose vectors were used."""
    intervals: int
    """Intervals from the first impression to the last one. Of those before the first product, at most one counts."""
    added: int
    """Versions written."""
    already_stored: int
    """Versions of this log that were up to date in the table and were not written again."""
    refused: int
    """Rows of the log that were refused. They are in the quarantine, perhaps since an earlier run."""
    remarks: tuple[str, ...] = ()
    """What the user should know of the rows of the log that were kept, one line each."""

    def __str__(self) -> str:
        counts = (
            f"{self.added:,} versions added to {schema.NEIGHBOURS_TABLE} over {self.intervals:,} intervals, "
            f"{self.already_stored:,} stored before; vectors of {self.encoder_version}; "
            f"{self.refused:,} rows of the log quarantined"
        )
        return "\n".join([counts, *(f"  {remark}" for remark in self.remarks)])


def make_neighbours(
    settings: Settings,
    impressions: Path,
    *,
    encoder_version: str | None,
    interval: timedelta,
    top_k: int,
    recompute: bool = False,
    now: datetime,
    progress: Callable[[int, int], None],
    table_format: TableFormat = DEFAULT_FORMAT,
    max_lost_share: float = 1.0,
) -> NeighbourSummary:
    """Write the versions that are not stored yet, or were made from something else.

    A product gets a version at the start of each interval at which it has a vector, even without impressions, and one
    at the time of each new vector, up to the end of the last interval. A version is up to date if the last created row
    of its product and event timestamp is of this encoder and has its digest: the same `top_k` and own vector, and the
    same counts, vectors, prices and ages of all other products with impressions. So a corrected log replaces the
    versions after the correction. A row without a digest, of version 0.2 or earlier or of a stream, is up to date.
    Stored versions at other times, as of another `interval`, stay. After a kill, the same call writes what is missing.

    Args:
        settings: the deployment.
        impressions: the whole log: Parquet or CSV with the columns of schema.IMPRESSIONS.
        encoder_version: the encoder whose vectors to use; None for the one with the newest vectors.
        interval: the time between two versions of a product, more than 0. Intervals start at whole multiples of it
            since 1970 UTC.
        top_k: how many nearest products a version is computed from, at least 1; fewer if fewer have impressions.
        recompute: write all versions of this log again, those that are up to date too.
        now: the created timestamp, with a time zone; later impressions are refused.
        progress: called with the number of intervals done and the number of all intervals, first with 0 done.
        table_format: what the user says about the log.
        max_lost_share: the largest share of the log's rows that may be refused because of one column.

    Returns:
        The counts of this run.

    Raises:
        NotFoundError: the log does not exist; there are no vectors, or none of `encoder_version`.
        InvalidInputError: the log cannot be read, lacks a column, has no usable row or too many refused ones; or
            `encoder_version` is None and the choice is ambiguous, as in the middle of an upgrade.
        ConflictError: other writers committed to the table first too often. Versions that are written stay.
        UnavailableError: a commit cannot be written.
    """
    version = choose_encoder_version(settings, encoder_version)
    log = impression_log.read_log(
        settings,
        impressions,
        step=STEP,
        now=now,
        clicks_only=False,
        table_format=table_format,
        max_lost_share=max_lost_share,
    )
    changes = read_changes(settings, version)
    path = settings.table(schema.NEIGHBOURS_TABLE)
    stored = StoredRows.read(
        path, changes.product_ids, version_column="encoder_version", version=version, encoder_version=version
    )
    interval_us = interval // timedelta(microseconds=1)
    # Not before the first product: one impression dated 1970 must not make twenty thousand intervals.
    first = min(max(log.timestamp_us[0], changes.timestamp_us[0] - interval_us), log.timestamp_us[-1])
    starts_us = np.arange(int(first) // interval_us, int(log.timestamp_us[-1]) // interval_us + 1) * interval_us
    added, already_stored, pending = 0, 0, []
    versions = _compute_versions(log, changes, starts_us, interval_us, top_k)
    for done, (product, event_us, digests, features) in enumerate(versions):
        is_new = recompute | ~stored.is_current(stored.find(product, event_us), digests)
        already_stored += len(is_new) - int(is_new.sum())
        if is_new.any():
            new_features = {name: values[is_new] for name, values in features.items()}
            rows = _build_rows(changes.product_ids, product[is_new], event_us[is_new], new_features, version, now)
            pending.append(set_digests(rows, digests[is_new]))
        if pending and (done == len(starts_us) or sum(map(len, pending)) >= ROWS_PER_COMMIT):
            added += sum(map(len, pending))
            delta.append(path, pa.concat_tables(pending))
            pending = []
        progress(done, len(starts_us))
    return NeighbourSummary(version, len(starts_us), added, already_stored, sum(log.refused.values()), log.remarks)


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
        return _build_rows(product_ids, np.arange(len(rows)), event_us, features, self.encoder_version, now)


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
    state.count_impressions(_number_products(log, changes), log.is_clicked)
    nearest = NearestProducts.create_empty(top_k)  # the lists of stored products are not needed
    nearest.has_history = (state.impressions > 0) & ~np.isnan(state.vectors[:, 0])
    return NeighbourState(encoder_version, changes.product_ids, state, nearest)


def _number_products(log: ImpressionLog, changes: ProductChanges) -> Int64:
    """Return the product number of each impression; -1 for a product that has no change."""
    number = pc.index_in(log.product_ids, value_set=changes.product_ids).fill_null(-1).to_numpy()
    return number[log.product]


def _compute_versions(
    log: ImpressionLog, changes: ProductChanges, starts_us: Int64, interval_us: int, top_k: int
) -> Iterator[tuple[Int64, Int64, Digests, dict[str, Floats]]]:
    """Yield the versions before the first interval, then those of each interval.

    Each item has the product numbers, the event timestamps in microseconds, the digests, and the features by name.
    """
    number = _number_products(log, changes)
    state, nearest = ProductState.create_empty(changes.vectors.shape[1]), NearestProducts.create_empty(top_k)
    # Before the first interval no product had an impression.
    early = np.flatnonzero((changes.vector >= 0) & (changes.timestamp_us < starts_us[0]))
    hashes = StateHashes.create(changes.product_ids, changes.vectors, top_k)
    no_neighbours = np.full((len(early), top_k), -1), np.full((len(early), top_k), np.nan, np.float32)
    yield (
        changes.product[early],
        changes.timestamp_us[early],
        hashes.compute_early(len(early)),
        state.compute_features(np.full(len(early), -1), *no_neighbours),
    )
    changes_done, impressions_done = 0, 0
    for start_us in starts_us:
        changes_end = int(np.searchsorted(changes.timestamp_us, start_us, "right"))
        impressions_end = int(np.searchsorted(log.timestamp_us, start_us))
        part, seen = slice(changes_done, changes_end), slice(impressions_done, impressions_end)
        state.grow(max(len(state.impressions), int(changes.product[part].max(initial=-1)) + 1))
        is_changed = changes.apply(part, state.vectors, state.price, state.age)
        state.count_impressions(number[seen], log.is_clicked[seen])
        nearest.update(state.vectors, is_changed, state.impressions > 0)
        hashes.update(changes.product[part], changes.vector[part], state)
        changes_done, impressions_done = changes_end, impressions_end
        # A version at the start of the interval for every product that has a vector ...
        present = np.flatnonzero(~np.isnan(state.vectors[:, 0]))
        at_start = state.compute_features(present, nearest.neighbours[present], nearest.similarity[present])
        # ... and one for every vector that arrives within the interval.
        interval_end = int(np.searchsorted(changes.timestamp_us, start_us + interval_us))
        within = changes_end + np.flatnonzero(changes.vector[changes_end:interval_end] >= 0)
        product = changes.product[within]
        own = np.where(product < len(state.impressions), product, -1)
        vectors = changes.vectors[changes.vector[within]]
        later = state.compute_features(own, *nearest.search(state.vectors, vectors, own))
        yield (
            np.concatenate([present, product]),
            np.concatenate([np.full(len(present), start_us), changes.timestamp_us[within]]),
            np.concatenate([hashes.compute(present), hashes.compute(own, changes.vector[within])]),
            {name: np.concatenate([at_start[name], later[name]]) for name in definition.NAMES},
        )


def _extend(values: NDArray, rows: int, fill: float) -> NDArray:
    """Return a copy of the values with `rows` rows; the added ones hold `fill`."""
    return np.concatenate([values, np.full((rows - len(values), *values.shape[1:]), fill, values.dtype)])


def _build_rows(
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
