"""The statistics of each view. Only rows of the current version (encoder, tagger, codebook) are compared."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from consumers.monitoring.drift import domain_classifier, measures, neighbour_turnover
from consumers.monitoring.drift.windows import ProductRows, ProductWindows
from feature_repo import schema
from feature_repo.arrow.take import to_widest_matrix
from feature_repo.config import Settings
from feature_repo.schema import TAGS

MIN_PRODUCTS = 30
"""Products needed on each side for a statistic."""
MIN_CURRENT_SHARE = 0.5
"""Share of the earlier products that must have rows of the current version. A smaller share is an alarm by itself."""
VECTORS = ("image_vector", "text_vector", "fused_vector")
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Labellings:
    """Labels of n products, bool [labellings, n]: True for recent products.

    Row 0 holds the observed labels, and every further row a random permutation of them.
    """

    within: Bools
    """[labellings, n], permuted among products of the same category that are all new or all not."""
    free: Bools
    """[labellings, n], permuted among products that are all new or all not, whatever their category."""

    @property
    def observed(self) -> Bools:
        """[n], the observed labels."""
        return self.within[0]


@dataclass(frozen=True)
class StatisticValues:
    """One statistic of one view for every labelling."""

    view: str
    """Name of the view."""
    subject: str
    """What is compared: a vector, a tag, a level of codes ("level 1"), "category" or "rows"."""
    name: str
    """How it is compared, such as "PSI"."""
    values: NDArray[np.float64]
    """[labellings], the observed value first. Larger is further apart."""


@dataclass(frozen=True)
class DirectAlarm:
    """An alarm that needs no threshold."""

    message: str
    """What is wrong and what to do, in one line."""


@dataclass(frozen=True)
class Skipped:
    """A statistic that could not be computed, and why."""

    message: str
    """One line: the view, perhaps the column, and the reason."""


Finding = StatisticValues | DirectAlarm | Skipped


@dataclass(frozen=True)
class CurrentRows:
    """One view's rows of the current version (of the encoder, tagger or codebook), for n products."""

    view: str
    """Name of the view."""
    rows: ProductRows
    """The view's rows. Their `index` has only those of the current version, the products' earlier ones included.

    The table `rows.rows` has all versions.
    """
    newest: Ints
    """[n], the position in `rows.rows` of each product's newest row of the current version; -1 if it has none."""
    labels: Labellings
    """Labels of the n products."""
    seed: int
    """Seed of the sample and the folds of the classifier."""

    @property
    def products(self) -> Ints:
        """[m], ascending: the positions (0 to n - 1) of the products that have a row of the current version."""
        return np.flatnonzero(self.newest >= 0)

    @property
    def table(self) -> pa.Table:
        """One row for each of `products`, in the same order: the product's newest row of the current version."""
        return self.rows.rows.take(pa.array(self.newest[self.products]))

    @property
    def within(self) -> Bools:
        """[labellings, m], the labels of `products`: the columns of `labels.within` at their positions."""
        return self.labels.within[:, self.products]


@dataclass(frozen=True)
class ViewStatistics:
    """What is measured in one view."""

    view: str
    """Name of the view."""
    columns: tuple[str, ...]
    """Columns that `measure` needs, besides `version`."""
    version: str
    """Column with the version of the encoder, tagger or codebook that made a row."""
    measure: Callable[[CurrentRows], Iterator[Finding]]
    """Yields the view's own statistics."""


def measure_catalogue(windows: ProductWindows, labels: Labellings) -> Iterator[StatisticValues]:
    """Yield two statistics of the category shares: the largest shift of one share, then the PSI.

    They use `labels.free`, because labels that are permuted within categories leave the shares as they are.

    Args:
        windows: the n products.
        labels: labels of the n products.
    """
    view = schema.CATALOGUE_TABLE
    codes = windows.products["category"].astype("category").cat.codes.to_numpy(np.int64)
    yield StatisticValues(view, "category", "share of one", measures.largest_share_shift(codes, labels.free))
    yield StatisticValues(view, "category", "PSI", measures.psi(codes, labels.free))


def measure_view(
    statistics: ViewStatistics, settings: Settings, windows: ProductWindows, labels: Labellings, seed: int
) -> Iterator[Finding]:
    """Yield the share of products without a row, an alarm if the version changed, and the view's own statistics.

    The current version is the most frequent one among the recent products, of equally frequent ones the first in the
    alphabet; only its rows are compared. The alarm comes if less than MIN_CURRENT_SHARE of the earlier products that
    have a row have one of this version. If there is no table or it lacks a column, only Skipped is yielded. If fewer
    than MIN_PRODUCTS products of one side have rows of the version, Skipped takes the place of the view's own
    statistics.

    Args:
        statistics: what to measure.
        settings: the deployment.
        windows: the n products.
        labels: labels of the n products.
        seed: seed of the sample and the folds of the classifier.
    """
    view = statistics.view
    rows = windows.read_view(settings, view, [*statistics.columns, statistics.version])
    if rows is None:
        yield Skipped(f"{view}: the table does not exist")
        return
    n = len(windows.now)
    newest = rows.find_newest(n)
    yield StatisticValues(view, "rows", "missing", measures.mean_shift(1.0 * (newest < 0), labels.within))
    versions = np.asarray(rows.rows[statistics.version].to_pandas(), dtype=object)
    # The current version is the most frequent one among the recent products.
    current = pd.Series(versions[newest[labels.observed & (newest >= 0)]]).mode()
    current_rows = rows.filter(versions == current[0]) if len(current) else rows
    compared = CurrentRows(view, current_rows, current_rows.find_newest(n), labels, seed)
    earlier = np.flatnonzero(~labels.observed & (newest >= 0))
    share = float((compared.newest[earlier] >= 0).mean()) if len(earlier) else 1.0
    if share < MIN_CURRENT_SHARE:
        former = pd.Series(versions[newest[earlier]]).mode()[0]
        yield DirectAlarm(
            f"{view}: {statistics.version} is {current[0]} now and was {former}; {share:.0%} of the earlier products "
            "have rows of the new one. Write it for all products, or go back to the old one: the two are never compared"
        )
    if _has_too_few(compared.products, labels.observed):
        version = statistics.version.replace("_", " ")
        yield Skipped(f"{view}: too few products have rows of one {version} on both sides")
        return
    yield from statistics.measure(compared)


def _measure_vectors(compared: CurrentRows) -> Iterator[Finding]:
    for name in VECTORS:
        yield from _measure_vector(compared, name)


def _measure_vector(compared: CurrentRows, name: str) -> Iterator[Finding]:
    view, within, observed = compared.view, compared.within, compared.labels.observed
    lists = compared.table[name]
    vectors = to_widest_matrix(lists)
    norm = np.linalg.norm(vectors, axis=1).round(4)  # rounded, because machines differ in the last digits
    is_null = np.asarray(lists.is_null())
    not_finite, is_zero = np.where(is_null, np.nan, ~np.isfinite(norm)), np.where(is_null, np.nan, norm == 0)
    yield StatisticValues(view, name, "missing", measures.mean_shift(1.0 * is_null, within))
    yield StatisticValues(view, name, "not a number", measures.mean_shift(not_finite, within))
    yield StatisticValues(view, name, "zero", measures.mean_shift(is_zero, within))
    yield StatisticValues(view, name, "norm", measures.mean_shift(norm, within))
    usable = np.flatnonzero(np.isfinite(norm) & (norm > 0))
    products = compared.products[usable]
    if _has_too_few(products, observed):
        yield Skipped(f"{view}, {name}: too few products of one side have one")
        return
    yield StatisticValues(view, name, "centroid shift", measures.centroid_shift(vectors[usable], within[:, usable]))
    shuffled = np.random.default_rng(compared.seed).permutation(usable)
    sample = np.sort(shuffled[: domain_classifier.MAX_PRODUCTS])  # independent of the labels
    auc = domain_classifier.compute_auc(vectors[sample], within[:, sample], compared.seed)
    yield StatisticValues(view, name, "classifier AUC", auc)
    turnover = _compute_turnover(compared, name, products, vectors[usable])
    if _has_too_few(products[np.isfinite(turnover)], observed, neighbour_turnover.MIN_PRODUCTS):
        yield Skipped(f"{view}, {name}: neighbour churn, because too few products have an earlier version")
        return
    yield StatisticValues(view, name, "neighbour churn", measures.mean_shift(turnover, within[:, usable]))


def _compute_turnover(compared: CurrentRows, name: str, products: Ints, vectors: NDArray) -> NDArray:
    """Return [products], the neighbours lost since each product's previous row; NaN without a previous vector.

    Args:
        compared: the view's rows.
        name: the vector column.
        products: the products' positions, 0 to n - 1.
        vectors: [products, width], their current vectors, among which neighbours are searched.
    """
    previous = compared.rows.find_previous(compared.newest)[products]
    turnover = np.full(len(products), np.nan)
    has_previous = np.flatnonzero(previous >= 0)
    old = to_widest_matrix(compared.rows.rows[name].take(pa.array(previous[has_previous])))
    is_finite = np.isfinite(old).all(axis=1) if len(old) else np.zeros(0, np.bool_)
    positions, old = has_previous[is_finite], old[is_finite]
    if len(positions):
        pool = vectors.astype(np.float32)
        turnover[positions] = neighbour_turnover.compute_turnover(
            old.astype(np.float32), pool[positions], pool, positions
        )
    return turnover


def _measure_tags(compared: CurrentRows) -> Iterator[Finding]:
    table, within = compared.table, compared.within
    for tag in TAGS:
        codes = pd.Categorical(table[tag].fill_null("").to_pandas()).codes.astype(np.int64)
        scores = table[f"{tag}_probability"].to_numpy(zero_copy_only=False).astype(np.float64)
        deciles = measures.assign_deciles(scores)
        yield StatisticValues(compared.view, tag, "PSI", measures.psi(codes, within))
        yield StatisticValues(compared.view, tag, "PSI of scores", measures.psi(deciles, within))


def _measure_codes(compared: CurrentRows) -> Iterator[Finding]:
    levels, within = to_widest_matrix(compared.table["codes"]), compared.within
    for level in range(levels.shape[1]):
        subject = f"level {level + 1}"
        codes = np.where(np.isfinite(levels[:, level]), levels[:, level], -1).astype(np.int64)
        yield StatisticValues(compared.view, subject, "usage entropy", measures.entropy_shift(codes, within))
        if level == 0:  # finer levels have about as many codes as a week has products
            yield StatisticValues(compared.view, subject, "PSI", measures.psi(codes, within))


def _has_too_few(products: Ints, now: Bools, min_products: int = MIN_PRODUCTS) -> bool:
    """Whether fewer than `min_products` of the products are recent, or fewer are earlier."""
    recent = int(now[products].sum())
    return min(recent, len(products) - recent) < min_products


VIEWS = (
    ViewStatistics(schema.EMBEDDING_TABLE, VECTORS, "encoder_version", _measure_vectors),
    ViewStatistics(
        schema.TAGS_TABLE, (*TAGS, *(f"{tag}_probability" for tag in TAGS)), "tagger_version", _measure_tags
    ),
    ViewStatistics(schema.CODES_TABLE, ("codes",), "codebook_version", _measure_codes),
)
