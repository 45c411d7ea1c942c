"""The log to `product_neighbours`: what the nearest products had earned, for every product version and every day.

Time goes by in steps (a day, unless told otherwise). At each step every product that is there gets a version of that
moment, from impressions strictly before it; a product that comes or changes within a step gets one of its own event
time, from what was known when the step began. So no version knows what came at or after its event timestamp.
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
from feature_repo.schema import (
    CREATED_TIMESTAMP,
    EVENT_TIMESTAMP,
    PRODUCT_ID,
    PRODUCT_NEIGHBOURS,
    TIMESTAMP,
)
from producers.behaviour import log as logs
from producers.behaviour.log import Int64, Log
from producers.behaviour.nearest import Nearest
from producers.behaviour.product_changes import Changes, read_changes
from producers.tags.embedding_rows import choose_encoder_version

STEP = "neighbours"
ROWS_A_COMMIT = 500_000
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Made:
    """What came of one run."""

    encoder_version: str
    moments: int
    added: int
    known: int
    refused: int

    def __str__(self) -> str:
        return (
            f"{self.added:,} versions added to {schema.NEIGHBOURS_TABLE} over {self.moments:,} moments, "
            f"{self.known:,} known already; vectors of {self.encoder_version}; "
            f"{self.refused:,} rows of the log quarantined"
        )


def make_neighbours(
    settings: Settings,
    impressions: Path,
    *,
    encoder_version: str | None,
    every: timedelta,
    k: int,
    now: datetime,
    progress: Callable[[int, int], None],
) -> Made:
    """Write the versions that are not known yet by product and event timestamp.

    Args:
        settings: the deployment.
        impressions: the log, whole.
        encoder_version: whose vectors; None for the newest.
        every: a step of time; steps begin at whole multiples of it since 1970 UTC.
        k: how many of the nearest.
        now: the created timestamp; later impressions are refused.
        progress: told how many of how many moments are done.

    Raises:
        VitrineError: the log cannot be read; there are no vectors, or the version is unknown or ambiguous.
    """
    version = choose_encoder_version(settings, encoder_version)
    log = logs.read(settings, impressions, step=STEP, now=now, clicks_only=False)
    changes = read_changes(settings, version)
    known = _Known.read(settings, changes.products, version)
    step = every // timedelta(microseconds=1)
    # A step before there is any product: one row of 1970 is no twenty thousand days of work.
    first = min(max(log.time[0], changes.time[0] - step), log.time[-1])
    moments = np.arange(int(first) // step, int(log.time[-1]) // step + 1) * step
    added, there, waiting = 0, 0, []
    for done, (product, since, features) in enumerate(_over_time(log, changes, moments, step, k)):
        new = ~known.has(product, since)
        there += len(new) - int(new.sum())
        if new.any():
            of_new = {name: values[new] for name, values in features.items()}
            waiting.append(_rows(changes.products, product[new], since[new], of_new, version, now))
        if waiting and (done == len(moments) or sum(map(len, waiting)) >= ROWS_A_COMMIT):
            added += sum(map(len, waiting))
            delta.append(settings.table(schema.NEIGHBOURS_TABLE), pa.concat_tables(waiting))
            waiting = []
        progress(done, len(moments))
    return Made(version, len(moments), added, there, sum(log.refused.values()))


@dataclass
class _State:
    """The products so far: n, which grows."""

    vectors: Floats
    """[n, d], unit rows, NaN where there is none."""
    price: Floats
    age: Floats
    shown: Int64
    clicks: Int64

    @staticmethod
    def nothing(width: int) -> "_State":
        none = np.empty(0, np.float32)
        return _State(np.empty((0, width), np.float32), none, none, np.empty(0, np.int64), np.empty(0, np.int64))

    def grow(self, products: int) -> None:
        """Make room for products that nothing is known of yet."""
        for name in ("vectors", "price", "age"):
            setattr(self, name, _longer(getattr(self, name), products, np.nan))
        self.shown, self.clicks = _longer(self.shown, products, 0), _longer(self.clicks, products, 0)

    def see(self, product: Int64, clicked: NDArray[np.bool_]) -> None:
        """Count impressions and clicks of products; of those that are not there (yet) none."""
        here = (product >= 0) & (product < len(self.shown))
        self.shown += np.bincount(product[here], minlength=len(self.shown))
        self.clicks += np.bincount(product[here & clicked], minlength=len(self.shown))

    def features(self, own: Int64, neighbours: Int64, similarity: Floats) -> dict[str, Floats]:
        """Of m products from their nearest ones [m, k]; `own` is -1 for one that is not there yet."""
        missing = neighbours < 0
        if not len(self.shown):
            nobody = np.zeros(neighbours.shape, np.int64)
            nothing = np.full(neighbours.shape, np.nan, np.float32)
            return definition.compute_neighbour_features(
                similarity, nobody, nobody, nothing, nothing, (nobody[:, 0], nobody[:, 0])
            )
        shown, clicks = (np.where(own < 0, 0, one[own]) for one in (self.shown, self.clicks))
        return definition.compute_neighbour_features(
            similarity,
            self.shown[neighbours],
            self.clicks[neighbours],
            np.where(missing, np.float32(np.nan), self.price[neighbours]),
            np.where(missing, np.float32(np.nan), self.age[neighbours]),
            (self.shown.sum() - shown, self.clicks.sum() - clicks),
        )


@dataclass(frozen=True)
class Standing:
    """What products had earned by the end of a log: what those that come later start with."""

    encoder_version: str
    products: pa.Array
    state: _State
    nearest: Nearest

    def of(self, rows: pa.Table, now: datetime) -> pa.Table:
        """Rows of `product_neighbours` for rows of `product_embedding`, in their order.

        Args:
            now: the created timestamp.
        """
        own = pc.index_in(rows[PRODUCT_ID], value_set=self.products).fill_null(-1).to_numpy()
        vectors = to_matrix(rows["fused_vector"], self.state.vectors.shape[1])
        features = self.state.features(own, *self.nearest.of(self.state.vectors, vectors, own))
        since = rows[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy()
        ids = rows[PRODUCT_ID].combine_chunks()
        return _rows(ids, np.arange(len(rows)), since, features, self.encoder_version, now)


def stand(settings: Settings, impressions: Path, encoder_version: str, k: int, now: datetime) -> Standing:
    """What every product has earned in the whole log.

    Raises:
        VitrineError: the log cannot be read, or there are no vectors of the encoder.
    """
    log = logs.read(settings, impressions, step=STEP, now=now, clicks_only=False)
    changes = read_changes(settings, encoder_version)
    state = _State.nothing(changes.vectors.shape[1])
    state.grow(len(changes.products))
    changes.apply(slice(None), state.vectors, state.price, state.age)
    number = pc.index_in(log.products, value_set=changes.products).fill_null(-1).to_numpy()[log.product]
    state.see(number, log.clicked)
    nearest = Nearest.nothing(k)  # whose lists of products that are known already are not asked for
    nearest.has_history = (state.shown > 0) & ~np.isnan(state.vectors[:, 0])
    return Standing(encoder_version, changes.products, state, nearest)


def _over_time(
    log: Log, changes: Changes, moments: Int64, step: int, k: int
) -> Iterator[tuple[Int64, Int64, dict[str, Floats]]]:
    """Before the first moment, then at each: products, since when the version of each holds, and its features."""
    number = pc.index_in(log.products, value_set=changes.products).fill_null(-1).to_numpy()[log.product]
    state, nearest = _State.nothing(changes.vectors.shape[1]), Nearest.nothing(k)
    early = np.flatnonzero((changes.vector >= 0) & (changes.time < moments[0]))  # nothing had been shown by then
    nobody, nothing = np.full((len(early), k), -1), np.full((len(early), k), np.nan, np.float32)
    yield changes.product[early], changes.time[early], state.features(np.full(len(early), -1), nobody, nothing)
    applied, seen = 0, 0
    for moment in moments:
        upto, before = int(np.searchsorted(changes.time, moment, "right")), int(np.searchsorted(log.time, moment))
        part = slice(applied, upto)
        state.grow(max(len(state.shown), int(changes.product[part].max(initial=-1)) + 1))
        changed = changes.apply(part, state.vectors, state.price, state.age)
        state.see(number[seen:before], log.clicked[seen:before])
        nearest.update(state.vectors, changed, state.shown > 0)
        applied, seen = upto, before
        alive = np.flatnonzero(~np.isnan(state.vectors[:, 0]))
        of_alive = state.features(alive, nearest.neighbours[alive], nearest.similarity[alive])
        until = int(np.searchsorted(changes.time, moment + step))
        coming = upto + np.flatnonzero(changes.vector[upto:until] >= 0)
        product = changes.product[coming]
        own = np.where(product < len(state.shown), product, -1)
        vectors = changes.vectors[changes.vector[coming]]
        of_coming = state.features(own, *nearest.of(state.vectors, vectors, own))
        yield (
            np.concatenate([alive, product]),
            np.concatenate([np.full(len(alive), moment), changes.time[coming]]),
            {name: np.concatenate([of_alive[name], of_coming[name]]) for name in definition.NAMES},
        )


def _longer(values: NDArray, rows: int, filled: float) -> NDArray:
    """The rows, then new ones up to `rows`."""
    return np.concatenate([values, np.full((rows - len(values), *values.shape[1:]), filled, values.dtype)])


@dataclass(frozen=True)
class _Known:
    """Versions that are in the table."""

    times: Int64
    """Their event timestamps, each once, ascending."""
    keys: Int64
    """Product number and place in `times` as one number."""

    @staticmethod
    def read(settings: Settings, products: pa.Array, version: str) -> "_Known":
        path = settings.table(schema.NEIGHBOURS_TABLE)
        if not delta.exists(path):
            return _Known(np.empty(0, np.int64), np.empty(0, np.int64))
        rows = delta.read(path, [PRODUCT_ID, EVENT_TIMESTAMP], where=pc.field("encoder_version") == version)
        number = pc.index_in(rows[PRODUCT_ID], value_set=products).fill_null(-1).to_numpy()
        times, place = np.unique(rows[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy(), return_inverse=True)
        return _Known(times, number[number >= 0].astype(np.int64) * len(times) + place[number >= 0])

    def has(self, product: Int64, since: Int64) -> NDArray[np.bool_]:
        """Which of n versions are there."""
        if not len(self.times):
            return np.zeros(len(product), bool)
        place = np.minimum(np.searchsorted(self.times, since), len(self.times) - 1)
        there: NDArray[np.bool_] = np.isin(product * len(self.times) + place, self.keys)
        return there & (self.times[place] == since)


def _rows(
    products: pa.Array, product: Int64, since: Int64, features: dict[str, Floats], version: str, now: datetime
) -> pa.Table:
    """Versions as rows (schema.PRODUCT_NEIGHBOURS); what is NaN is null."""
    columns = {
        PRODUCT_ID: products.take(pa.array(product)),
        **{name: pa.array(values, mask=np.isnan(values)) for name, values in features.items()},
        "encoder_version": pa.repeat(pa.scalar(version), len(product)),
        EVENT_TIMESTAMP: pa.array(since, TIMESTAMP),
        CREATED_TIMESTAMP: pa.repeat(pa.scalar(now, TIMESTAMP), len(product)),
    }
    return pa.table(columns).cast(PRODUCT_NEIGHBOURS)
