"""Whether what comes in now looks like what came in before, view by view, and what to do first.

Every statistic is of the same products, so that one set of labellings serves all of them, and one threshold procedure
(threshold.py) holds for all together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from consumers.monitoring.drift import churn, measures, separable, threshold
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


@dataclass(frozen=True)
class Statistic:
    """One statistic as it is, beside what chance does."""

    view: str
    subject: str
    name: str
    value: float
    expected: float
    """Its mean if products of now and of before are exchanged."""
    threshold: float
    """Above it is an alarm; infinite where every exchange gives the same."""

    @property
    def alarm(self) -> bool:
        return self.value > self.threshold


@dataclass(frozen=True)
class Drift:
    """What was compared, and what came of it."""

    now: datetime
    window_seconds: float
    before_seconds: float
    once_in: int
    """A false alarm in so many checks of a quiet shop."""
    products_now: int
    products_before: int
    new_now: float
    """Share of the products of now that are in their first version."""
    strata: int
    p_value: float | None
    """None where nothing could be judged."""
    statistics: list[Statistic]
    changed: list[str]
    """Versions that most earlier products have no rows of: an alarm whatever the figures."""
    not_judged: list[str]
    """What could not be judged, and why."""

    @property
    def blind(self) -> str | None:
        """Why nothing at all could be judged; None where something was."""
        return "; ".join(self.not_judged) if self.p_value is None else None

    @property
    def breaches(self) -> list[str]:
        """One line for each subject with an alarm, its most telling statistic named: what to do first."""
        lines = list(self.changed)
        for view, subject in dict.fromkeys((one.view, one.subject) for one in self.statistics):
            fired = [one for one in self.statistics if (one.view, one.subject) == (view, subject) and one.alarm]
            if fired:
                lines.append(_line(view, subject, fired))
        return lines


def check(
    settings: Settings,
    *,
    now: datetime,
    window: timedelta,
    before: timedelta,
    once_in: int,
    sample: int,
    seed: int,
) -> Drift:
    """Compare the products of the window with those of the time before it.

    Args:
        now: with a time zone; the window ends there.
        once_in: a false alarm in so many checks of a shop in which nothing changes, all statistics together.
        sample: products at most of each side.
        seed: of the sample and of the exchanges.

    Raises:
        VitrineError: there is no catalogue.
    """
    weeks = Weeks.read(settings, now, window=window, before=before, sample=sample, seed=seed)
    sizes = int(weeks.now.sum()), int((~weeks.now).sum())
    new = weeks.products["new"].to_numpy(bool)[weeks.now]
    measured: list[Measured] = []
    changed: list[str] = []
    not_judged: list[str] = []
    p_value: float | None = None
    statistics: list[Statistic] = []
    if min(sizes) < FEWEST:
        not_judged.append(
            f"{sizes[0]:,} products in the window and {sizes[1]:,} before it; at least {FEWEST} of each are needed: "
            "take a longer --window or --before"
        )
    else:
        draws = threshold.draws_for(once_in)
        labels = Labels(
            threshold.labellings(weeks.now, weeks.stratum, draws, seed),
            threshold.labellings(weeks.now, weeks.newness, draws, seed + 1),
        )
        measured += _of_catalogue(weeks, labels)
        for judge in (_of_vectors, _of_tags, _of_codes):
            measured += judge(settings, weeks, labels, seed, changed, not_judged)
        judged = threshold.judge(np.column_stack([one.values for one in measured]), once_in)
        p_value = judged.p_value
        statistics = [
            Statistic(one.view, one.subject, one.name, float(one.values[0]), float(expected), float(bound))
            for one, expected, bound in zip(measured, judged.expected, judged.threshold, strict=True)
        ]
    return Drift(
        now=now,
        window_seconds=window.total_seconds(),
        before_seconds=before.total_seconds(),
        once_in=once_in,
        products_now=sizes[0],
        products_before=sizes[1],
        new_now=float(new.mean()) if len(new) else float("nan"),
        strata=len(np.unique(weeks.stratum)) if len(weeks.now) else 0,
        p_value=p_value,
        statistics=statistics,
        changed=changed,
        not_judged=not_judged,
    )


def _of_catalogue(weeks: Weeks, labels: Labels) -> Iterator[Measured]:
    """The mix of categories: labels are exchanged whatever the category, for it is the category that is asked about."""
    codes = weeks.products["category"].astype("category").cat.codes.to_numpy(np.int64)
    yield Measured("product_catalogue", "category", "share of one", measures.largest_share_shift(codes, labels.free))
    yield Measured("product_catalogue", "category", "PSI", measures.psi(codes, labels.free))


def _of_vectors(
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


def _of_tags(
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


def _of_codes(
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


FIRST = {
    "image_vector": "open some of today's pictures: are they the shop's? (`produce catalogue` names those it refused)",
    "text_vector": "read some of today's titles: is their encoding right?",
    "fused_vector": "compare image_vector and text_vector: the one that moved says which feed to look at",
    "category": "count today's products by category, and look at the feed of the one that is missing or new",
    "rows": "run its producer, and look at the quarantine for what it refused",
}
"""What to do first, by subject; of tags and codes: look at the vectors that they are made from."""


def _line(view: str, subject: str, fired: Sequence[Statistic]) -> str:
    worst = max(fired, key=lambda one: (one.value - one.expected) / max(one.threshold - one.expected, 1e-12))
    others = [one.name for one in fired if one is not worst]
    also = f" (so are {', '.join(others)})" if others else ""
    first = FIRST.get(subject, "look at the vectors that it is made from: it drifts with them")
    return f"{view}, {subject}: {worst.name} {worst.value:.3f} is over {worst.threshold:.3f}{also}; {first}"
