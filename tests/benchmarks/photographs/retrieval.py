"""Text to image on products, or classes, that the encoder has not seen."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from producers.encoders.recall import CUTOFFS, rank_right_images
from tests.benchmarks.photographs.encoders import Train
from tests.benchmarks.photographs.sets import PhotographSet


@dataclass(frozen=True)
class RetrievalResult:
    """How well each query found its pictures, by one encoder of each fold."""

    values: dict[str, NDArray[np.float64]]
    """Name of a measure to its value for each query [queries]."""
    clusters: NDArray[np.int64]
    """Group of each query [queries]."""
    seconds: float
    """CPU seconds of one training, the mean over the folds."""


def measure_names(products: PhotographSet, train: Train, work: Path, folds: int) -> RetrievalResult:
    """Search the pictures of each of the first folds, held out, for the products' names.

    Only a product's own picture is right.
    """
    values, clusters, seconds = [], [], []
    for fold in range(folds):
        rows = np.flatnonzero(products.folds == fold)
        texts = [products.titles[row] for row in rows]
        images = [products.images[row] for row in rows]
        vectors = train(products, products.folds != fold, images, texts, work / f"{fold}")
        rank = rank_right_images(vectors.text @ vectors.image.T, np.arange(len(rows)))
        values.append({f"recall@{cutoff}": (rank < cutoff).astype(float) for cutoff in CUTOFFS})
        values[-1]["mean reciprocal rank"] = 1 / (1 + rank)
        clusters.append(products.groups[rows])
        seconds.append(vectors.seconds)
    return _join(values, clusters, seconds)


def measure_classes(photos: PhotographSet, train: Train, work: Path, folds: int) -> RetrievalResult:
    """Search the photos of the classes of each of the first folds, held out, for the descriptions of these classes."""
    values, clusters, seconds = [], [], []
    for fold in range(folds):
        rows = np.flatnonzero(photos.folds == fold)
        classes = np.unique(photos.groups[rows])
        texts = [photos.titles[row] for row in classes]
        images = [photos.images[row] for row in rows]
        vectors = train(photos, photos.folds != fold, images, texts, work / f"{fold}")
        scores = vectors.text @ vectors.image.T
        is_right = photos.groups[rows][None, :] == classes[:, None]
        top = np.argsort(-scores, axis=1, kind="stable")[:, :10]
        values.append(
            {
                "hit@10": np.take_along_axis(is_right, top, axis=1).any(axis=1).astype(float),
                "precision@10": np.take_along_axis(is_right, top, axis=1).mean(axis=1),
                "mean average precision": np.array(
                    [average_precision_score(right, score) for right, score in zip(is_right, scores, strict=True)]
                ),
            }
        )
        clusters.append(classes)
        seconds.append(vectors.seconds)
    return _join(values, clusters, seconds)


def _join(
    values: list[dict[str, NDArray[np.float64]]], clusters: list[NDArray[np.int64]], seconds: list[float]
) -> RetrievalResult:
    names = values[0].keys()
    joined = {name: np.concatenate([each[name] for each in values]) for name in names}
    return RetrievalResult(joined, np.concatenate(clusters), float(np.mean(seconds)))
