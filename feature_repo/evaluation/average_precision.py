"""Average precision of the first places of a ranking."""

import numpy as np
from numpy.typing import NDArray

CUT = 50
"""First places of a ranking that average precision counts."""


def compute_average_precision(
    scores: NDArray[np.floating], is_relevant: NDArray[np.bool_], total: int, cut: int = CUT
) -> float:
    """Return the average precision of the first `cut` places; NaN if there is no relevant product.

    It is the mean, over the relevant products, of the precision at each one's place. A relevant product that is not
    among the first counts as 0.

    Args:
        scores: [n]; equal ones keep their order.
        is_relevant: [n].
        total: number of relevant products, also of those that are not among the n; at most `cut` count.
        cut: places.
    """
    if not total:
        return float("nan")
    hits = is_relevant[np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable")[:cut]]
    return float((np.cumsum(hits) / np.arange(1, len(hits) + 1) * hits).sum() / min(total, cut))
