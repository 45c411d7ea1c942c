"""Codebooks of semantic IDs: residual k-means, and how good one is.

The first level's code is the nearest of `size` centroids, the next level's the nearest to what is left of the vector,
and so on: products with the same first codes are alike. A codebook lies at `codebooks/VERSION.npz` beside the offline
tables, under the digest of what is in it:

    level_0, level_1, ...   float32 [size, d]
    encoder_version         whose vectors it codes
    trained                 microseconds since 1970 UTC
"""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from feature_repo.arrow import timestamps
from feature_repo.atomic_write import replace_atomically
from feature_repo.config import Settings
from feature_repo.errors import VitrineError

Vectors = NDArray[np.float32]

ITERATIONS = 25
VECTORS_PER_CENTROID = 256
"""More vectors than this for each centroid change a codebook no more; the others are left out of training."""
FOLDER = "codebooks"


@dataclass(frozen=True)
class Codebook:
    """What codes vectors of one encoder version."""

    levels: tuple[Vectors, ...]
    encoder_version: str
    trained: int
    """Microseconds since 1970 UTC."""

    @property
    def version(self) -> str:
        """The digest of its centroids."""
        digest = blake2b(self.encoder_version.encode(), digest_size=6)
        for level in self.levels:
            digest.update(level.tobytes())
        return f"codes-{digest.hexdigest()}"

    def encode(self, vectors: Vectors) -> tuple[NDArray[np.int32], Vectors]:
        """Codes [n, levels] of vectors [n, d], and what no level explains [n, d]."""
        codes = np.empty((len(vectors), len(self.levels)), np.int32)
        left = vectors
        for place, (centroids, index) in enumerate(zip(self.levels, self._indexes, strict=True)):
            codes[:, place] = _nearest(index, left)
            left = left - centroids[codes[:, place]]
        return codes, left

    @cached_property
    def _indexes(self) -> list[faiss.Index]:
        """Of each level's centroids: made once, for what is coded comes in many batches."""
        return [_index(level) for level in self.levels]


@dataclass(frozen=True)
class CodebookQuality:
    """How well codes tell products apart, and how well they stand for their vectors."""

    products: int
    """Distinct vectors: products that look and read the same cannot be told apart."""
    collision_rate: float
    """Share of those whose semantic ID another one has too."""
    usage_entropy: tuple[float, ...]
    """Of each level's codes, 1 where all are used equally often, 0 where only one is."""
    reconstruction_error: float
    """Share of the vectors' variance that the codes do not explain."""

    def __str__(self) -> str:
        entropy = ", ".join(f"{one:.3f}" for one in self.usage_entropy)
        return (
            f"collision rate {self.collision_rate:.3f}, usage entropy by level {entropy}, "
            f"reconstruction error {self.reconstruction_error:.3f}, over {self.products:,} distinct vectors"
        )


def train_codebook(
    vectors: Vectors, encoder_version: str, *, levels: int, size: int, seed: int, now: datetime
) -> Codebook:
    """Residual k-means of float32 [n, d].

    Raises:
        VitrineError: there are fewer vectors than centroids.
    """
    if len(vectors) < size:
        raise VitrineError(f"{len(vectors):,} vectors for {size} codes a level: say a smaller --size")
    chance = np.random.default_rng(seed)
    if len(vectors) > size * VECTORS_PER_CENTROID:
        vectors = vectors[np.sort(chance.choice(len(vectors), size * VECTORS_PER_CENTROID, replace=False))]
    found, left = [], np.ascontiguousarray(vectors)
    for level in range(levels):
        # min_points_per_centroid only silences a warning: small shops have fewer than the 39 that faiss likes.
        means = faiss.Kmeans(
            left.shape[1], size, niter=ITERATIONS, seed=seed + level, min_points_per_centroid=1, gpu=_on_gpus()
        )
        means.cp.init_method = faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS  # random ones leave two groups to one code
        means.train(left)
        centroids = np.array(means.centroids, np.float32)
        found.append(centroids)
        left = left - centroids[_nearest(_index(centroids), left)]
    return Codebook(tuple(found), encoder_version, timestamps.datetime_to_ticks(now, "us"))


def choose_size(products: int) -> int:
    """Codes a level for a catalogue: a power of two from 16 to 256, about a hundred products for each.

    Three levels of 16 tell 4,096 products apart; a shop of fewer than 16 gets as many codes as products.
    """
    return min(products, int(2 ** np.clip(np.floor(np.log2(max(products, 1) / 100)), 4, 8)))


def measure_quality(
    codes: NDArray[np.int32], squared_error: float, variance: float, sizes: Sequence[int]
) -> CodebookQuality:
    """Judge the codes of distinct vectors.

    Args:
        codes: [n, levels].
        squared_error: summed over all vectors, of what the codes leave.
        variance: summed over all vectors, of their distance to the mean, squared.
        sizes: how many codes each level has.
    """
    _, counts = np.unique(codes, axis=0, return_counts=True)
    entropy = []
    for level, size in enumerate(sizes):
        share = np.bincount(codes[:, level], minlength=size) / len(codes)
        used = share[share > 0]
        entropy.append(float(-(used * np.log(used)).sum() / np.log(size)) if size > 1 else 1.0)
    return CodebookQuality(
        products=len(codes),
        collision_rate=float(counts[counts > 1].sum() / len(codes)),
        usage_entropy=tuple(entropy),
        reconstruction_error=squared_error / variance if variance > 0 else 0.0,
    )


def save_codebook(settings: Settings, codebook: Codebook) -> Path:
    """Write a codebook beside the offline tables, whole or not at all."""
    file = settings.offline / FOLDER / f"{codebook.version}.npz"
    arrays = {f"level_{place}": level for place, level in enumerate(codebook.levels)}
    with replace_atomically(file) as unfinished, unfinished.open("wb") as stream:
        np.savez(stream, encoder_version=codebook.encoder_version, trained=codebook.trained, **arrays)  # type: ignore[arg-type]
    return file


def load_newest(settings: Settings, encoder_version: str) -> Codebook | None:
    """The codebook of an encoder version that was trained last; None if there is none.

    Raises:
        VitrineError: a file of the folder is no codebook.
    """
    found = [
        load_codebook(file)
        for file in sorted((settings.offline / FOLDER).glob("codes-*.npz"))
        if ".part" not in file.name  # earlier versions wrote such files before renaming them
    ]
    return max(
        (one for one in found if one.encoder_version == encoder_version), key=lambda one: one.trained, default=None
    )


def load_codebook(file: Path) -> Codebook:
    """A codebook as `save` wrote it.

    Raises:
        VitrineError: it is none, or its content is not what its name says.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            levels = sorted((name for name in arrays.files if name.startswith("level_")), key=lambda n: int(n[6:]))
            codebook = Codebook(
                tuple(arrays[name] for name in levels), str(arrays["encoder_version"]), int(arrays["trained"])
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise VitrineError(f"{file}: no codebook ({error}); remove it, and run `produce codes --retrain`") from error
    if codebook.version != file.stem:
        raise VitrineError(f"{file}: its content is that of {codebook.version}; it was changed or damaged: remove it")
    return codebook


def _on_gpus() -> bool:
    """Whether faiss sees a GPU: never as faiss-cpu."""
    return faiss.get_num_gpus() > 0


def _index(centroids: Vectors) -> faiss.Index:
    """Finds the nearest of the centroids; on every GPU where there is one."""
    index = faiss.IndexFlatL2(centroids.shape[1])
    index.add(np.ascontiguousarray(centroids))
    return faiss.index_cpu_to_all_gpus(index) if _on_gpus() else index


def _nearest(index: faiss.Index, vectors: Vectors) -> NDArray[np.int64]:
    _, found = index.search(np.ascontiguousarray(vectors), 1)
    return found[:, 0]
