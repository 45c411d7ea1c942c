"""Learned spaces in which two offers of the same product are near: linear projections, fitted on pairs.

Two photographs of one product differ in some directions, such as the light; other directions differ between products
only. The projection divides by the standard deviation within pairs and keeps the directions of the largest remaining
variance: within-class covariance normalization (Hatch, Kajarekar and Stolcke, 2006), then linear discriminant analysis.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Int64 = NDArray[np.int64]

SPACES: dict[str, tuple[str, ...]] = {
    "image": ("image",),
    "edges": ("edges",),
    "colours": ("colours",),
    "picture": ("image", "edges", "colours"),
    "product": ("image", "edges", "colours", "text"),
}
"""Learned space -> the columns that it is made of."""
WIDTH = 64
"""Dimensions that are kept at most."""
SHRINKAGE = 0.1
"""Share of the identity in the covariance of the differences, so that few pairs do not overfit it."""
MIN_PAIRS = 50
"""Pairs of the same product that a space needs; with fewer it is not learned."""


@dataclass(frozen=True)
class PairMetric:
    """Learned spaces by name; names without enough pairs are left out."""

    mean: dict[str, Floats]
    """[d] by name."""
    projection: dict[str, Floats]
    """[d, at most WIDTH] by name."""

    def project(self, columns: dict[str, Floats]) -> dict[str, Floats]:
        """Return unit vectors [n, at most WIDTH] by name; NaN for a product that lacks one of the columns.

        Args:
            columns: [n, d] by name, NaN where there is none. A space whose columns are not all given is left out.
        """
        projected = {}
        for name, projection in self.projection.items():
            if all(part in columns for part in SPACES[name]):
                vectors = (
                    np.concatenate([columns[part] for part in SPACES[name]], axis=1) - self.mean[name]
                ) @ projection
                projected[name] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
        return projected


def fit_metric(columns: dict[str, Floats], left: Int64, right: Int64) -> PairMetric:
    """Learn the spaces from pairs of the same product.

    Args:
        columns: [n, d] by name of the parts of SPACES, NaN where there is none.
        left: [m], rows of one side of pairs of the same product.
        right: [m], of the other side.
    """
    mean, projection = {}, {}
    for name, parts in SPACES.items():
        if not all(part in columns for part in parts):
            continue
        vectors = np.concatenate([columns[part] for part in parts], axis=1).astype(np.float64)
        is_complete = np.asarray(~np.isnan(vectors).any(axis=1), bool)
        usable = np.flatnonzero(is_complete[left] & is_complete[right])
        if len(usable) < MIN_PAIRS:
            continue
        centre = vectors[is_complete].mean(axis=0)
        differences = vectors[left[usable]] - vectors[right[usable]]
        within = differences.T @ differences / (2 * len(differences))
        scale = np.trace(within) / len(within)
        values, axes = np.linalg.eigh((1 - SHRINKAGE) * within + SHRINKAGE * scale * np.eye(len(within)))
        whitening = axes / np.sqrt(np.maximum(values, 1e-12))
        _, directions = np.linalg.eigh(np.cov(((vectors[is_complete] - centre) @ whitening).T))
        mean[name] = centre.astype(np.float32)
        projection[name] = (whitening @ directions[:, ::-1][:, :WIDTH]).astype(np.float32)
    return PairMetric(mean, projection)
