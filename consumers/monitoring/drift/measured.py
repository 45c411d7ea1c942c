"""What is measured of each view, of today's version of it alone; what cannot be judged is said."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from consumers.monitoring.drift import churn, measures, separable
from consumers.monitoring.drift.weeks import ViewRows, Weeks
from feature_repo.schema import TAGS
from feature_repo.settings import Settings
from feature_repo.tables.vectors import longest

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


def of_catalogue(weeks: Weeks, labels: Labels) -> Iterator[Measured]:
    """The mix of categories: labels are exchanged whatever the category, for it is the category that is asked about."""
    codes = weeks.products["category"].astype("category").cat.codes.to_numpy(np.int64)
    yield Measured("product_catalogue", "category", "share of one", measures.largest_share_shift(codes, labels.free))
    yield Measured("product_catalogue", "category", "PSI", measures.psi(codes, labels.free))


def of_vectors(
    settings: Settings, weeks: Weeks, labels: Labels, seed: int, changed: list[str], not_judged: list[str]
) -> Iterator[Measured]:
    view = "product_embedding"
    rows = weeks.rows_of(settings, view, [*VECTORS, "encoder_version"])
    if rows is None:
        not_judged.append(f"{view}: there is no such table")
        return
    yield Measured(view, "rows", "missing", measures.mean_shift(1.0 * (rows.newest(len(weeks.now)) < 0), labels.within))
    ours = _of_todays_version(view, rows, "encoder_version", labels.as_is, changed)
    newest = ours.newest(len(weeks.now))
    there = np.flatnonzero(newest >= 0)
    if _too_few(there, labels.as_is):
        not_judged.append(f"{view}: too few products have rows of one encoder version on both sides")
        return
    for name in VECTORS:
        yield from _of_vector(view, name, rows, ours, newest, there, labels, seed, not_judged)


def _of_vector(
    view: str,
    name: str,
    rows: ViewRows,
    ours: ViewRows,
    newest: Ints,
    there: Ints,
    labels: Labels,
    seed: int,
    not_judged: list[str],
) -> Iterator[Measured]:
    column = rows.rows[name]
    lists = column.take(pa.array(newest[there]))
    vectors = longest(lists)
    within = labels.within[:, there]
    norm = np.linalg.norm(vectors, axis=1).round(4)  # what one machine rounds and another does not is no drift
    null = np.asarray(lists.is_null())
    yield Measured(view, name, "missing", measures.mean_shift(1.0 * null, within))
    yield Measured(view, name, "not a number", measures.mean_shift(np.where(null, np.nan, ~np.isfinite(norm)), within))
    yield Measured(view, name, "zero", measures.mean_shift(np.where(null, np.nan, norm == 0), within))
    yield Measured(view, name, "norm", measures.mean_shift(norm, within))
    usable = np.flatnonzero(np.isfinite(norm) & (norm > 0))
    if _too_few(there[usable], labels.as_is):
        not_judged.append(f"{view}, {name}: too few products of one side have one")
        return
    yield Measured(view, name, "centroid shift", measures.centroid_shift(vectors[usable], within[:, usable]))
    some = np.sort(np.random.default_rng(seed).permutation(usable)[: separable.ROWS])  # whatever their labels
    yield Measured(view, name, "classifier AUC", separable.auc(vectors[some], within[:, some], seed))
    lost = _churn(ours, column, newest, there[usable], vectors[usable])
    if _too_few(there[usable][np.isfinite(lost)], labels.as_is, churn.FEWEST):
        not_judged.append(f"{view}, {name}: neighbour churn, for too few products have an earlier version")
        return
    yield Measured(view, name, "neighbour churn", measures.mean_shift(lost, within[:, usable]))


def of_tags(
    settings: Settings, weeks: Weeks, labels: Labels, seed: int, changed: list[str], not_judged: list[str]
) -> Iterator[Measured]:
    view, columns = "product_tags", [*TAGS, *(f"{tag}_probability" for tag in TAGS), "tagger_version"]
    rows = weeks.rows_of(settings, view, columns)
    if rows is None:
        not_judged.append(f"{view}: there is no such table")
        return
    newest = _of_todays_version(view, rows, "tagger_version", labels.as_is, changed).newest(len(weeks.now))
    there = np.flatnonzero(newest >= 0)
    yield Measured(view, "rows", "missing", measures.mean_shift(1.0 * (rows.newest(len(weeks.now)) < 0), labels.within))
    if _too_few(there, labels.as_is):
        not_judged.append(f"{view}: too few products have rows of one tagger version on both sides")
        return
    taken, within = rows.rows.take(pa.array(newest[there])), labels.within[:, there]
    for tag in TAGS:
        codes = pd.Categorical(taken[tag].fill_null("").to_pandas()).codes.astype(np.int64)
        scores = taken[f"{tag}_probability"].to_numpy(zero_copy_only=False).astype(np.float64)
        yield Measured(view, tag, "PSI", measures.psi(codes, within))
        yield Measured(view, tag, "PSI of scores", measures.psi(measures.deciles(scores), within))


def of_codes(
    settings: Settings, weeks: Weeks, labels: Labels, seed: int, changed: list[str], not_judged: list[str]
) -> Iterator[Measured]:
    view = "product_codes"
    rows = weeks.rows_of(settings, view, ["codes", "codebook_version"])
    if rows is None:
        not_judged.append(f"{view}: there is no such table")
        return
    newest = _of_todays_version(view, rows, "codebook_version", labels.as_is, changed).newest(len(weeks.now))
    there = np.flatnonzero(newest >= 0)
    yield Measured(view, "rows", "missing", measures.mean_shift(1.0 * (rows.newest(len(weeks.now)) < 0), labels.within))
    if _too_few(there, labels.as_is):
        not_judged.append(f"{view}: too few products have rows of one codebook version on both sides")
        return
    codes, within = longest(rows.rows["codes"].take(pa.array(newest[there]))), labels.within[:, there]
    for level in range(codes.shape[1]):
        known = np.where(np.isfinite(codes[:, level]), codes[:, level], -1).astype(np.int64)
        yield Measured(view, f"level {level + 1}", "usage entropy", measures.entropy_shift(known, within))
        if level == 0:  # finer ones have about as many codes as there are products in a week
            yield Measured(view, f"level {level + 1}", "PSI", measures.psi(known, within))


def _of_todays_version(view: str, rows: ViewRows, column: str, now: Bools, changed: list[str]) -> ViewRows:
    """The rows of the version that most products of now have; an alarm where most of the earlier ones have none.

    Vectors of two encoders, labels of two taggers and codes of two codebooks are never compared.
    """
    version = np.asarray(rows.rows[column].to_pandas(), dtype=object)
    newest = rows.newest(len(now))
    current = pd.Series(version[newest[now & (newest >= 0)]]).mode()
    if not len(current):
        return rows
    ours = rows.without(version == current[0])
    earlier = ~now & (newest >= 0)
    have = float((ours.newest(len(now))[earlier] >= 0).mean()) if earlier.any() else 1.0
    if have < ENOUGH:
        former = pd.Series(version[newest[earlier]]).mode()[0]
        changed.append(
            f"{view}: {column} is {current[0]} now and was {former}; {have:.0%} of the earlier products have rows of "
            f"the new one. Write it for all of them, or go back to the old one: the two are never compared"
        )
    return ours


def _churn(ours: ViewRows, column: pa.ChunkedArray, newest: Ints, products: Ints, vectors: NDArray) -> NDArray:
    """[products], neighbours lost since the row before, NaN where there is none; neighbours are among all of them."""
    everyone = np.ones(len(column), np.bool_)
    previous = ours.previous(newest, everyone)[products]
    lost = np.full(len(products), np.nan)
    again = np.flatnonzero(previous >= 0)
    old = longest(column.take(pa.array(previous[again])))
    fine = np.isfinite(old).all(axis=1) if len(old) else np.zeros(0, np.bool_)
    again, old = again[fine], old[fine]
    if len(again):
        pool = vectors.astype(np.float32)
        lost[again] = churn.churn(old.astype(np.float32), pool[again], pool, again)
    return lost


def _too_few(products: Ints, now: Bools, fewest: int = FEWEST) -> bool:
    of_now = int(now[products].sum())
    return min(of_now, len(products) - of_now) < fewest
