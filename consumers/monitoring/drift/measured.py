"""What is found in each view, of the rows of today's version of it alone; what cannot be judged is said."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from consumers.monitoring.drift import domain_classifier, measures, neighbour_turnover
from consumers.monitoring.drift.windows import ProductRows, Weeks
from feature_repo import schema
from feature_repo.arrow.take import to_widest_matrix
from feature_repo.config import Settings
from feature_repo.schema import TAGS

FEWEST = 30
"""Products of each side below which nothing is judged."""
ENOUGH = 0.5
"""Share of the earlier products that must have rows of today's version, for that not to be an alarm by itself."""
VECTORS = ("image_vector", "text_vector", "fused_vector")
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Labels:
    """[labellings, n], row 0 as it is: exchanged within category x newness, and within newness alone."""

    within: Bools
    free: Bools

    @property
    def as_is(self) -> Bools:
        return self.within[0]


@dataclass(frozen=True)
class Measured:
    """One statistic, [labellings]."""

    view: str
    subject: str
    name: str
    values: NDArray[np.float64]


@dataclass(frozen=True)
class Changed:
    """An alarm whatever the figures say."""

    line: str


@dataclass(frozen=True)
class NotJudged:
    """What could not be judged, and why."""

    line: str


Finding = Measured | Changed | NotJudged


@dataclass(frozen=True)
class Todays:
    """The rows of one view, and those of today's version of it: those of two are never compared."""

    view: str
    rows: ProductRows
    """Of today's version alone."""
    newest: Ints
    """[n], the row of each product; -1 where it has none of today's version."""
    labels: Labels
    seed: int

    @property
    def there(self) -> Ints:
        """The products that have a row, ascending."""
        return np.flatnonzero(self.newest >= 0)

    @property
    def taken(self) -> pa.Table:
        """Their rows."""
        return self.rows.rows.take(pa.array(self.newest[self.there]))

    @property
    def within(self) -> Bools:
        """[labellings, there], their labels."""
        return self.labels.within[:, self.there]


@dataclass(frozen=True)
class Asked:
    """What is asked of one view."""

    name: str
    columns: tuple[str, ...]
    version: str
    """The column that says what made a row."""
    find: Callable[[Todays], Iterator[Finding]]


def of_catalogue(weeks: Weeks, labels: Labels) -> Iterator[Measured]:
    """The mix of categories: labels are exchanged whatever the category, for it is the category that is asked about."""
    codes = weeks.products["category"].astype("category").cat.codes.to_numpy(np.int64)
    yield Measured(schema.CATALOGUE_TABLE, "category", "share of one", measures.largest_share_shift(codes, labels.free))
    yield Measured(schema.CATALOGUE_TABLE, "category", "PSI", measures.psi(codes, labels.free))


def of_view(asked: Asked, settings: Settings, weeks: Weeks, labels: Labels, seed: int) -> Iterator[Finding]:
    """How many products have no row, whether the version changed, and what is asked of the rows of today's version."""
    rows = weeks.rows_of(settings, asked.name, [*asked.columns, asked.version])
    if rows is None:
        yield NotJudged(f"{asked.name}: there is no such table")
        return
    newest = rows.newest(len(weeks.now))
    yield Measured(asked.name, "rows", "missing", measures.mean_shift(1.0 * (newest < 0), labels.within))
    version = np.asarray(rows.rows[asked.version].to_pandas(), dtype=object)
    todays = pd.Series(version[newest[labels.as_is & (newest >= 0)]]).mode()
    ours = rows.only(version == todays[0]) if len(todays) else rows
    its = Todays(asked.name, ours, ours.newest(len(weeks.now)), labels, seed)
    earlier = np.flatnonzero(~labels.as_is & (newest >= 0))
    have = float((its.newest[earlier] >= 0).mean()) if len(earlier) else 1.0
    if have < ENOUGH:
        former = pd.Series(version[newest[earlier]]).mode()[0]
        yield Changed(
            f"{asked.name}: {asked.version} is {todays[0]} now and was {former}; {have:.0%} of the earlier products "
            f"have rows of the new one. Write it for all of them, or go back to the old one: the two are never compared"
        )
    if _too_few(its.there, labels.as_is):
        what = asked.version.replace("_", " ")
        yield NotJudged(f"{asked.name}: too few products have rows of one {what} on both sides")
        return
    yield from asked.find(its)


def _vectors(its: Todays) -> Iterator[Finding]:
    for name in VECTORS:
        yield from _vector(its, name)


def _vector(its: Todays, name: str) -> Iterator[Finding]:
    view, within = its.view, its.within
    lists = its.taken[name]
    vectors = to_widest_matrix(lists)
    norm = np.linalg.norm(vectors, axis=1).round(4)  # what one machine rounds and another does not is no drift
    null = np.asarray(lists.is_null())
    yield Measured(view, name, "missing", measures.mean_shift(1.0 * null, within))
    yield Measured(view, name, "not a number", measures.mean_shift(np.where(null, np.nan, ~np.isfinite(norm)), within))
    yield Measured(view, name, "zero", measures.mean_shift(np.where(null, np.nan, norm == 0), within))
    yield Measured(view, name, "norm", measures.mean_shift(norm, within))
    usable = np.flatnonzero(np.isfinite(norm) & (norm > 0))
    products = its.there[usable]
    if _too_few(products, its.labels.as_is):
        yield NotJudged(f"{view}, {name}: too few products of one side have one")
        return
    yield Measured(view, name, "centroid shift", measures.centroid_shift(vectors[usable], within[:, usable]))
    some = np.sort(
        np.random.default_rng(its.seed).permutation(usable)[: domain_classifier.ROWS]
    )  # whatever their labels
    yield Measured(view, name, "classifier AUC", domain_classifier.auc(vectors[some], within[:, some], its.seed))
    lost = _churn(its, name, products, vectors[usable])
    if _too_few(products[np.isfinite(lost)], its.labels.as_is, neighbour_turnover.FEWEST):
        yield NotJudged(f"{view}, {name}: neighbour churn, for too few products have an earlier version")
        return
    yield Measured(view, name, "neighbour churn", measures.mean_shift(lost, within[:, usable]))


def _churn(its: Todays, name: str, products: Ints, vectors: NDArray) -> NDArray:
    """[products], neighbours lost since the row before, NaN where there is none; neighbours are among all of them."""
    column = its.rows.rows[name]
    previous = its.rows.previous(its.newest)[products]
    lost = np.full(len(products), np.nan)
    again = np.flatnonzero(previous >= 0)
    old = to_widest_matrix(column.take(pa.array(previous[again])))
    fine = np.isfinite(old).all(axis=1) if len(old) else np.zeros(0, np.bool_)
    again, old = again[fine], old[fine]
    if len(again):
        pool = vectors.astype(np.float32)
        lost[again] = neighbour_turnover.churn(old.astype(np.float32), pool[again], pool, again)
    return lost


def _tags(its: Todays) -> Iterator[Finding]:
    taken, within = its.taken, its.within
    for tag in TAGS:
        codes = pd.Categorical(taken[tag].fill_null("").to_pandas()).codes.astype(np.int64)
        scores = taken[f"{tag}_probability"].to_numpy(zero_copy_only=False).astype(np.float64)
        yield Measured(its.view, tag, "PSI", measures.psi(codes, within))
        yield Measured(its.view, tag, "PSI of scores", measures.psi(measures.deciles(scores), within))


def _codes(its: Todays) -> Iterator[Finding]:
    codes, within = to_widest_matrix(its.taken["codes"]), its.within
    for level in range(codes.shape[1]):
        known = np.where(np.isfinite(codes[:, level]), codes[:, level], -1).astype(np.int64)
        yield Measured(its.view, f"level {level + 1}", "usage entropy", measures.entropy_shift(known, within))
        if level == 0:  # finer ones have about as many codes as there are products in a week
            yield Measured(its.view, f"level {level + 1}", "PSI", measures.psi(known, within))


def _too_few(products: Ints, now: Bools, fewest: int = FEWEST) -> bool:
    of_now = int(now[products].sum())
    return min(of_now, len(products) - of_now) < fewest


VIEWS = (
    Asked(schema.EMBEDDING_TABLE, VECTORS, "encoder_version", _vectors),
    Asked(schema.TAGS_TABLE, (*TAGS, *(f"{tag}_probability" for tag in TAGS)), "tagger_version", _tags),
    Asked(schema.CODES_TABLE, ("codes",), "codebook_version", _codes),
)
