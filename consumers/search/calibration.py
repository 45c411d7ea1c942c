"""Weights of the parts and a cut-off for each category, fitted on labels.

A label says whether a product fits a sentence. A logistic regression of the labels on the standardized parts gives the
weights; a part with a negative weight is left out. The cut-off of a category is a score such that the products from it
upwards have the wanted precision (cutoffs.py). Products without a label are ignored, not counted as wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from consumers.report_json import report_to_json
from consumers.search.cutoffs import choose_cutoffs
from consumers.search.scoring import PARTS
from feature_repo.errors import CorruptDataError, InvalidInputError, NotFoundError
from feature_repo.files.atomic_write import replace_atomically
from feature_repo.files.json_text import parse_json

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

PRECISION = 0.8
"""Wanted precision above a cut-off."""
MIN_OF_EACH = 10
"""Labels of each kind that a fit needs."""


@dataclass(frozen=True)
class SearchCalibration:
    """Weights and cut-offs of one encoder version."""

    encoder_version: str
    weights: Mapping[str, float]
    """By part of scoring.PARTS, at least 0."""
    intercept: float
    """Added to the weighted sum, so that its logistic function is the probability that a product fits."""
    cutoff: float
    """Lowest score of a category without one of its own; infinite if no score reaches the wanted precision."""
    cutoffs: Mapping[str, float] = field(default_factory=dict)
    """By category path."""
    precision: float = PRECISION
    """The wanted precision."""
    labels: int = 0
    """Labels that it was fitted on."""

    def find_cutoff(self, category: str | None) -> float:
        """Return the cut-off of a category path; None, an unknown category, has the general one."""
        return self.cutoffs.get(category or "", self.cutoff)

    def compute_probability(self, scores: NDArray[np.float32]) -> Floats:
        """Return the probability that a product of a score fits, float64 [n]."""
        return 1 / (1 + np.exp(-(scores.astype(np.float64) + self.intercept)))


def fit_calibration(
    encoder_version: str,
    parts: Floats,
    is_relevant: Bools,
    categories: Sequence[str | None],
    *,
    precision: float = PRECISION,
    sample_weights: Floats | None = None,
    queries: NDArray[np.int64] | None = None,
) -> SearchCalibration:
    """Return weights and cut-offs for n labels.

    Args:
        encoder_version: of the index that was searched.
        parts: [PARTS, n], standardized; NaN where a product lacks a part.
        is_relevant: [n].
        categories: [n], category path of each product.
        precision: wanted precision above a cut-off, in (0, 1).
        sample_weights: [n], such as one over the probability that a label was drawn; None: all equal.
        queries: [n], number of each label's query, from 0; None: each label is of a query of its own.

    Raises:
        InvalidInputError: there are fewer than MIN_OF_EACH relevant or other labels, or no part tells them apart.
    """
    from sklearn.linear_model import LogisticRegression

    if min(int(is_relevant.sum()), int((~is_relevant).sum())) < MIN_OF_EACH:
        raise InvalidInputError(
            f"{int(is_relevant.sum())} labels say that a product fits and {int((~is_relevant).sum())} that it does "
            f"not; expected at least {MIN_OF_EACH} of each"
        )
    features = np.nan_to_num(parts).T.astype(np.float64)
    drawn = np.ones(len(is_relevant)) if sample_weights is None else sample_weights
    used = list(range(len(PARTS)))
    while used:
        model = LogisticRegression(C=10.0).fit(features[:, used], is_relevant, sample_weight=drawn)
        if (model.coef_[0] >= 0).all():
            break
        used.pop(int(np.argmin(model.coef_[0])))
    if not used:
        raise InvalidInputError("no part of the score is higher for labels that fit; check the labels")
    weights = dict.fromkeys(PARTS, 0.0) | {PARTS[i]: float(w) for i, w in zip(used, model.coef_[0], strict=True)}
    scores = features @ np.array([weights[part] for part in PARTS])
    cutoff, cutoffs = choose_cutoffs(
        scores,
        is_relevant,
        drawn,
        np.array([category or "" for category in categories]),
        np.arange(len(scores)) if queries is None else queries,
        precision,
    )
    return SearchCalibration(
        encoder_version,
        weights,
        float(model.intercept_[0]),
        cutoff,
        cutoffs,
        precision,
        len(is_relevant),
    )


def write_calibration(calibration: SearchCalibration, file: Path) -> None:
    """Write a calibration as JSON; an infinite cut-off is null."""
    with replace_atomically(file) as unfinished:
        unfinished.write_text(report_to_json(calibration))


def read_calibration(file: Path) -> SearchCalibration:
    """Read a calibration.

    Raises:
        NotFoundError: there is no such file.
        CorruptDataError: it is not a calibration.
    """
    if not file.is_file():
        raise NotFoundError(f"{file}: no such file; run: consume calibrate-search")
    try:
        values = parse_json(file.read_text())
        numbers = [values["intercept"], *values["weights"].values()]
        if not np.isfinite(numbers).all():
            raise ValueError("a weight or the intercept is not finite")
        cutoffs = {category: _parse_cutoff(cutoff) for category, cutoff in values["cutoffs"].items()}
        return SearchCalibration(**values | {"cutoff": _parse_cutoff(values["cutoff"]), "cutoffs": cutoffs})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CorruptDataError(f"{file}: not a calibration ({error}); run: consume calibrate-search") from error


def _parse_cutoff(cutoff: float | None) -> float:
    """Return a cut-off of the JSON file; null stands for infinity."""
    if cutoff is not None and not cutoff <= float("inf"):
        raise ValueError(f"a cut-off is {cutoff}")
    return float("inf") if cutoff is None else cutoff
