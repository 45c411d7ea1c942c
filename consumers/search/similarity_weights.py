"""How much pictures and titles count in the similarity of two products, by category, from judged pairs.

    similarity = w * cosine of the image vectors + (1 - w) * cosine of the text vectors

Without labels w is 0.7. With labels, as `consume labels import` keeps them, w is the weight for which a pair that is
judged the same or similar most often has a larger similarity than a pair that is judged different (area under the
curve). Each judged pair counts by 1 / inclusion probability. Pairs that are judged unsure are left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.index.nearest import Ints
from feature_repo.index.product_index import ProductIndex
from feature_repo.offline import delta, versions
from feature_repo.schema import CATEGORY_SEPARATOR, CREATED_TIMESTAMP, PRODUCT_ID_L, PRODUCT_ID_R

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

DEFAULT_WEIGHT = 0.7
"""Weight of the picture without labels."""
GRID = np.round(np.linspace(0, 1, 11), 1)
"""Weights that are compared; of equally good ones the nearest to DEFAULT_WEIGHT is taken."""
MIN_LABELS, MIN_OF_EACH = 100, 20
"""A category with fewer labels, or fewer of one answer, has the weight of all categories together."""


@dataclass(frozen=True)
class SimilarityWeights:
    """The weight of the picture, in [0, 1]; the rest is the weight of the title."""

    image: float = DEFAULT_WEIGHT
    by_category: Mapping[str, float] = field(default_factory=dict)
    """By the first level of a category."""
    labels: int = 0
    """Judged pairs that they come from."""

    def find(self, category: str | None) -> float:
        """Return the weight of the picture for a category path; None, an unknown one, has that of all categories."""
        return self.by_category.get(_take_first_level(category), self.image)


def fit_weights(cosines: Floats, is_like: Bools, drawn: Floats, categories: Sequence[str | None]) -> SimilarityWeights:
    """Return the weights for m judged pairs.

    Args:
        cosines: [2, m], of the image and of the text vectors; NaN where a product has none.
        is_like: [m], judged the same or similar.
        drawn: [m], how much each pair counts.
        categories: [m], category path of each pair's first product.
    """
    usable = ~np.isnan(cosines).any(axis=0)
    names = np.array([_take_first_level(category) for category in categories])
    image = _fit_weight(cosines[:, usable], is_like[usable], drawn[usable])
    by_category = {
        str(name): _fit_weight(cosines[:, rows], is_like[rows], drawn[rows], image)
        for name in np.unique(names[usable])
        if name
        for rows in [usable & (names == name)]
        if _is_enough(is_like[rows])
    }
    return SimilarityWeights(image, by_category, int(usable.sum()))


def read_weights(settings: Settings, index: ProductIndex) -> SimilarityWeights:
    """Return the weights from the table `pair_label`; the default ones without labels of products of the index."""
    path = settings.table(schema.PAIR_LABEL_TABLE)
    if not delta.exists(path) or not {"image_vector", "text_vector"} <= set(index.vectors):
        return SimilarityWeights()
    labels = versions.read_newest(
        delta.open_dataset(path),
        ["label", PRODUCT_ID_L, PRODUCT_ID_R, "inclusion_probability"],
        None,
        keys=["pair_id"],
        event_timestamp=CREATED_TIMESTAMP,
        created_timestamp=CREATED_TIMESTAMP,
    )
    labels = labels.filter(pc.is_in(labels["label"], value_set=pa.array(["same", "similar", "different"])))
    left, right = (index.find_rows(labels[name].to_pylist()) for name in (PRODUCT_ID_L, PRODUCT_ID_R))
    is_known = (left >= 0) & (right >= 0)
    left, right, labels = left[is_known], right[is_known], labels.filter(pa.array(is_known))
    cosines = np.stack([compute_cosines(index, vector, left, right) for vector in ("image_vector", "text_vector")])
    is_like = pc.not_equal(labels["label"], "different").to_numpy()
    categories = index.take(left, ["category"])["category"].to_pylist()
    return fit_weights(cosines, is_like, 1 / labels["inclusion_probability"].to_numpy(), categories)


def compute_cosines(index: ProductIndex, vector: str, left: Ints, right: Ints) -> Floats:
    """Return the cosines of the vectors of pairs of rows of an index, float64 [m]; NaN where a product has none."""
    if vector not in index.vectors:
        return np.full(len(left), np.nan)
    a, b = (index.take_vectors(vector, rows).astype(np.float64) for rows in (left, right))
    return (a * b).sum(axis=1)


def combine_cosines(image: Floats, text: Floats, weight: float | Floats) -> Floats:
    """Return similarities [m]; where one cosine is unknown, the other one alone."""
    both = weight * image + (1 - weight) * text
    return np.where(np.isnan(image), text, np.where(np.isnan(text), image, both))


def _fit_weight(cosines: Floats, is_like: Bools, drawn: Floats, default: float = DEFAULT_WEIGHT) -> float:
    """Return the weight of GRID with the largest area under the curve; `default` if there are too few labels."""
    from sklearn.metrics import roc_auc_score

    if not _is_enough(is_like):
        return default
    areas = [
        roc_auc_score(is_like, combine_cosines(cosines[0], cosines[1], weight), sample_weight=drawn) for weight in GRID
    ]
    best = GRID[np.isclose(areas, max(areas))]
    return float(best[np.argmin(np.abs(best - default))])


def _is_enough(is_like: Bools) -> bool:
    return len(is_like) >= MIN_LABELS and min(int(is_like.sum()), int((~is_like).sum())) >= MIN_OF_EACH


def _take_first_level(category: str | None) -> str:
    return (category or "").split(CATEGORY_SEPARATOR)[0]
