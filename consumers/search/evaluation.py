"""Quality of searches: average precision, and precision and recall at the cut-off.

A query is a sentence with a filter and the products that fit it. Products that nobody judged are removed from a ranking
before it is measured, so they do not count as wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from consumers.search.calibration import SearchCalibration, fit_calibration
from consumers.search.scoring import PARTS, ScoredProducts, SentenceScorer
from consumers.search.sentence import parse_sentence
from feature_repo.errors import InvalidInputError
from feature_repo.evaluation.average_precision import compute_average_precision
from feature_repo.exported.encoder import ExportedEncoder
from feature_repo.index.filters import ProductFilter
from feature_repo.index.nearest import Ints
from feature_repo.index.product_index import ProductIndex

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

OTHERS = "others"
"""Name of the categories without a cut-off of their own, together."""
FOLDS = 2
"""Weights and cut-offs for the queries of one half are fitted on the other half."""


@dataclass(frozen=True)
class JudgedQuery:
    """A sentence, and which products fit it."""

    text: str
    where: ProductFilter
    relevant: Ints
    """Rows of the index, ascending, also of products that the filter leaves out."""
    judged: Ints | None = None
    """Rows that were judged, ascending; None: every row, so that rows that are not relevant count as wrong."""
    kind: str = ""
    """Name of a group of queries that a report shows separately."""


@dataclass(frozen=True)
class ScoredQuery:
    """A query with the scores of the judged products that its filter leaves."""

    query: JudgedQuery
    scored: ScoredProducts
    is_relevant: Bools
    """[n]"""
    categories: list[str | None]
    """[n]"""


def read_labels(table: pa.Table, index: ProductIndex) -> list[JudgedQuery]:
    """Return the queries of a table of labels.

    Args:
        table: columns `query`, `product_id`, `relevant` (0 or 1), and optionally `category`, the filter of the query,
            and `kind`. One row for each judged product of a query.
        index: unknown products are left out.

    Raises:
        InvalidInputError: a column is missing or has another type, a value is not 0 or 1, a row has no query, a query
            has two categories, a product has two labels for one query, or no product is in the index.
    """
    if missing := sorted({"query", "product_id", "relevant"} - set(table.column_names)):
        raise InvalidInputError(f"the labels have no column {', '.join(missing)}; expected query, product_id, relevant")
    relevant = _read_column(table, "relevant", pa.float64()).fill_null(np.nan).to_numpy()
    if not np.isin(relevant, (0, 1)).all():
        raise InvalidInputError(
            f"row {int(np.flatnonzero(~np.isin(relevant, (0, 1)))[0]) + 1} of the labels: `relevant` is neither 0 nor 1"
        )
    rows = index.find_rows(_read_column(table, "product_id", pa.string()).to_pylist())
    texts = _read_column(table, "query", pa.string()).to_pylist()
    extra = {
        name: _read_column(table, name, pa.string()).to_pylist() if name in table.column_names else [None] * len(table)
        for name in ("category", "kind")
    }
    members: dict[str, list[int]] = {}
    for number, text in enumerate(texts):
        if not (text or "").strip():
            raise InvalidInputError(f"row {number + 1} of the labels has no query; give one, or remove the row")
        if rows[number] >= 0:
            members.setdefault(text, []).append(number)
    if not members:
        raise InvalidInputError("no labelled product is in the index")
    queries = []
    for text, numbers in members.items():
        categories = {extra["category"][number] for number in numbers}
        if len(categories) > 1:
            raise InvalidInputError(f"the query {text!r} has several categories in the labels; expected one")
        own = rows[numbers]
        if len(np.unique(own)) < len(own):
            repeated = table["product_id"][numbers[int(np.argsort(own)[np.flatnonzero(np.diff(np.sort(own)) == 0)[0]])]]
            raise InvalidInputError(f"the query {text!r} has two labels for {repeated.as_py()}; keep one")
        category = categories.pop()
        queries.append(
            JudgedQuery(
                text,
                ProductFilter(categories=() if category is None else (category,)),
                np.sort(own[relevant[numbers] == 1]),
                np.sort(own),
                extra["kind"][numbers[0]] or "",
            )
        )
    return queries


def _read_column(table: pa.Table, name: str, wanted: pa.DataType) -> pa.ChunkedArray:
    """Return a column of the labels in a type; raise InvalidInputError if a value has none."""
    try:
        return table[name].cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        expected = "0 or 1" if wanted == pa.float64() else "text"
        raise InvalidInputError(f"column `{name}` of the labels: {error}; expected {expected}") from None


def score_queries(index: ProductIndex, encoder: ExportedEncoder, queries: Sequence[JudgedQuery]) -> list[ScoredQuery]:
    """Return the scores of the judged products of each query.

    A query without a product that passes its filter has none.
    """
    scorer = SentenceScorer(index)
    vectors = encoder.encode_texts([query.text for query in queries])
    categories = index.take(np.arange(len(index.flags)), ["category"])["category"].to_pylist()
    result = []
    for query, vector in zip(queries, vectors, strict=True):
        scored = scorer.score(parse_sentence(query.text, index, encoder), vector, index.select(query.where))
        if query.judged is not None:
            is_judged = np.isin(scored.rows, query.judged)
            scored = ScoredProducts(
                scored.rows[is_judged], scored.parts[:, is_judged], scored.words[:, is_judged], scored.known_words
            )
        result.append(
            ScoredQuery(query, scored, np.isin(scored.rows, query.relevant), [categories[row] for row in scored.rows])
        )
    return result


def evaluate_scores(queries: Sequence[ScoredQuery], scores: Sequence[NDArray[np.floating]]) -> Floats:
    """Return the average precision of each query, float64 [queries]."""
    return np.array(
        [
            compute_average_precision(one, query.is_relevant, len(query.query.relevant))
            for query, one in zip(queries, scores, strict=True)
        ]
    )


def fit_queries(encoder_version: str, queries: Sequence[ScoredQuery], **options: float) -> SearchCalibration:
    """Return a calibration fitted on all judged products of some queries."""
    return fit_calibration(
        encoder_version,
        np.concatenate([query.scored.parts for query in queries], axis=1).astype(np.float64),
        np.concatenate([query.is_relevant for query in queries]),
        [category for query in queries for category in query.categories],
        queries=np.repeat(np.arange(len(queries)), [len(query.is_relevant) for query in queries]),
        **options,  # type: ignore[arg-type]
    )


def fit_by_halves(encoder_version: str, queries: Sequence[ScoredQuery], seed: int = 0) -> list[SearchCalibration]:
    """Return for each query a calibration that was fitted on the other half of the queries.

    Raises:
        InvalidInputError: there are fewer queries than halves, or a half has too few labels.
    """
    if len(queries) < FOLDS:
        raise InvalidInputError(f"there is {len(queries)} query; expected at least {FOLDS}, one for each half")
    fold = np.random.default_rng(seed).permutation(len(queries)) % FOLDS
    fitted = [
        fit_queries(encoder_version, [query for query, own in zip(queries, fold, strict=True) if own != one])
        for one in range(FOLDS)
    ]
    return [fitted[one] for one in fold]


@dataclass(frozen=True)
class CutoffQuality:
    """Precision and recall of the products at or above the cut-off of one category, over all queries."""

    category: str
    returned: int
    """Products that score at least the cut-off."""
    precision: float
    """NaN if nothing was returned."""
    recall: float
    """NaN if no product of the category fits."""


def measure_cutoffs(queries: Sequence[ScoredQuery], calibrations: Sequence[SearchCalibration]) -> list[CutoffQuality]:
    """Return the quality at the cut-offs by category of the products, sorted; those without a cut-off as OTHERS."""
    counts: dict[str, np.ndarray] = {}
    for query, calibration in zip(queries, calibrations, strict=True):
        scores = query.scored.combine(calibration.weights)
        cutoffs = np.array([calibration.find_cutoff(category) for category in query.categories])
        own = calibration.cutoffs
        names = np.array([category if category in own else OTHERS for category in query.categories])
        for category in np.unique(names):
            rows = names == category
            is_above, fits = scores[rows] >= cutoffs[rows], query.is_relevant[rows]
            found = np.array([is_above.sum(), (is_above & fits).sum(), fits.sum()])
            counts[str(category)] = counts.get(str(category), np.zeros(3, int)) + found
    return [
        CutoffQuality(category, int(n), hits / n if n else float("nan"), hits / total if total else float("nan"))
        for category, (n, hits, total) in sorted(counts.items())
    ]


def draw_intervals(
    values: Mapping[str, Floats], replicates: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return 95% percentile intervals of the means over queries, which are drawn with replacement, by name."""
    first = next(iter(values.values()))
    drawn = np.random.default_rng(seed).integers(0, len(first), (replicates, len(first)))
    return {
        name: (float(low), float(high))
        for name, one in values.items()
        for low, high in [np.nanpercentile(np.nanmean(one[drawn], axis=1), (2.5, 97.5))]
    }


def list_part_scores(queries: Sequence[ScoredQuery]) -> dict[str, list[NDArray[np.float32]]]:
    """Return the scores of each part alone, by part, for each query."""
    return {part: [query.scored.parts[number] for query in queries] for number, part in enumerate(PARTS)}


def tune_keywords(
    index: ProductIndex, queries: Sequence[ScoredQuery], grid: Sequence[tuple[float, float]]
) -> tuple[tuple[float, float], Floats]:
    """Return the k1 and b of BM25 with the highest mean average precision on these queries, and its values.

    The parameters are chosen on the queries that are measured, which favours the baseline.
    """
    from feature_repo.index.keywords import build_keywords
    from feature_repo.index.segmentation import segment_text

    titles = index.take(np.arange(len(index.flags)), ["title"])["title"].to_pylist()
    best: tuple[tuple[float, float], Floats] | None = None
    for k1, b in grid:
        keywords = build_keywords(titles, k1=k1, b=b)
        scores = [keywords.score(segment_text(query.query.text))[query.scored.rows] for query in queries]
        values = evaluate_scores(queries, scores)
        if best is None or np.nanmean(values) > np.nanmean(best[1]):
            best = (k1, b), values
    if best is None:
        raise InvalidInputError("no k1 and b to choose from")
    return best


def count_missing(table: pa.Table, index: ProductIndex) -> int:
    """Return how many rows of a table of labels name a product that is not in the index."""
    return int((index.find_rows(pc.cast(table["product_id"], pa.string()).to_pylist()) < 0).sum())
