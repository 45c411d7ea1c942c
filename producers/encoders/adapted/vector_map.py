"""Maps from the vectors of one encoder to those of another, fitted on contents that both have encoded.

procrustes  rotation and shift: distances stay as they are (Schoenemann 1966)
ridge       affine, by least squares with a penalty
low-rank    the ridge map in the few directions that carry most of what it explains (Izenman 1975)
mlp         the ridge map and a small network on what it leaves over
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from feature_repo.features.similarity import normalize_rows

Vectors = NDArray[np.float32]

PENALTY = 1e-3
"""Penalty of the ridge map, as a share of the mean variance of a dimension."""
EXPLAINED_SHARE = 0.99
"""Share of the variance that the ridge map explains, which the low-rank map keeps."""
HIDDEN_UNITS = 256
"""Units of the network."""
MAX_EPOCHS = 200
"""Passes of the network over its vectors, at most; it stops when a tenth that is held back gets no better."""
MAX_ROWS = 100_000
"""Pairs that are fitted on; of more, a random sample."""


class MapKind(StrEnum):
    """How vectors are mapped."""

    PROCRUSTES = "procrustes"
    RIDGE = "ridge"
    LOW_RANK = "low-rank"
    MLP = "mlp"


@dataclass(frozen=True)
class VectorMap:
    """A map from unit vectors [n, source width] to unit vectors [n, target width].

    x becomes x @ matrix + offset + max(x @ hidden_matrix + hidden_offset, 0) @ output_matrix, scaled to unit length.
    """

    matrix: Vectors
    """[source width, target width]."""
    offset: Vectors
    """[target width]."""
    hidden_matrix: Vectors
    """[source width, units]; 0 units without a network."""
    hidden_offset: Vectors
    """[units]."""
    output_matrix: Vectors
    """[units, target width]."""

    def transform(self, vectors: Vectors) -> Vectors:
        """Map unit vectors [n, source width] to unit vectors float32 [n, target width]; NaN rows stay NaN."""
        hidden = np.maximum(vectors @ self.hidden_matrix + self.hidden_offset, 0)
        return normalize_rows(np.asarray(vectors @ self.matrix + self.offset + hidden @ self.output_matrix, np.float32))

    def to_arrays(self, prefix: str) -> dict[str, Vectors]:
        """Return the arrays by name, each name after a prefix."""
        return {prefix + field.name: np.ascontiguousarray(getattr(self, field.name)) for field in fields(self)}

    @staticmethod
    def from_arrays(arrays: Mapping[str, Vectors], prefix: str) -> "VectorMap":
        """Return the map that `to_arrays` returned.

        Raises:
            KeyError: an array is missing.
            ValueError: the arrays do not fit each other.
        """
        found = VectorMap(*(arrays[prefix + field.name] for field in fields(VectorMap)))
        source, target = found.matrix.shape
        units = len(found.hidden_offset)
        shapes = ((source, target), (target,), (source, units), (units,), (units, target))
        if any(getattr(found, field.name).shape != shape for field, shape in zip(fields(found), shapes, strict=True)):
            raise ValueError("its arrays do not fit each other")
        return found


def fit_map(kind: MapKind, source: Vectors, target: Vectors, *, seed: int) -> VectorMap:
    """Fit a map from the vectors of one encoder to those of another.

    Args:
        kind: how vectors are mapped.
        source: unit vectors [n, source width], without NaN; n at least 2.
        target: unit vectors of the same contents by the other encoder [n, target width], without NaN.
        seed: of the sample of MAX_ROWS, and of the network.
    """
    if len(source) > MAX_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(len(source), MAX_ROWS, replace=False))
        source, target = source[rows], target[rows]
    x, y = source.astype(np.float64), target.astype(np.float64)
    centre, goal = x.mean(axis=0), y.mean(axis=0)
    x, y = x - centre, y - goal
    matrix = _fit_rotation(x, y) if kind is MapKind.PROCRUSTES else fit_ridge(x, y)
    if kind is MapKind.LOW_RANK:
        _, scale, directions = np.linalg.svd(x @ matrix, full_matrices=False)
        explained = np.cumsum(scale**2) / max((scale**2).sum(), np.finfo(np.float64).tiny)
        kept = directions[: int(np.searchsorted(explained, EXPLAINED_SHARE)) + 1]
        matrix = matrix @ kept.T @ kept
    offset = goal - centre @ matrix
    network = [np.empty((x.shape[1], 0)), np.empty(0), np.empty((0, y.shape[1]))]
    if kind is MapKind.MLP:
        *network, shift = _fit_network(source, y - x @ matrix, seed)
        offset = offset + shift
    return VectorMap(*(np.asarray(array, np.float32) for array in (matrix, offset, *network)))


def fit_ridge(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix W that minimizes |x W - y|^2 with a penalty, [source width, target width].

    Args:
        x: centred rows [n, source width].
        y: rows [n, target width].
    """
    covariance = x.T @ x
    penalty = PENALTY * np.trace(covariance) / len(covariance) + np.finfo(np.float64).tiny
    return np.asarray(np.linalg.solve(covariance + penalty * np.eye(len(covariance)), x.T @ y))


def _fit_rotation(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the orthogonal matrix that brings x closest to y; of different widths, part of one."""
    from scipy.linalg import orthogonal_procrustes

    width = max(x.shape[1], y.shape[1])
    padded = [np.pad(rows, ((0, 0), (0, width - rows.shape[1]))) for rows in (x, y)]
    rotation, _ = orthogonal_procrustes(*padded)
    return np.asarray(rotation[: x.shape[1], : y.shape[1]])


def _fit_network(x: Vectors, y: NDArray[np.float64], seed: int) -> list[NDArray[np.float64]]:
    """Return the hidden matrix and offset, the output matrix and offset of a network from x to y."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor

    network = MLPRegressor(
        hidden_layer_sizes=(HIDDEN_UNITS,), early_stopping=True, max_iter=MAX_EPOCHS, random_state=seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the best epoch so far is used
        network.fit(x, y)
    (hidden, output), (hidden_offset, shift) = network.coefs_, network.intercepts_
    return [hidden, hidden_offset, output, shift]
