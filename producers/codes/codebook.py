"""Codebooks of semantic IDs: residual k-means, and its quality.

The first code of a vector is its nearest centroid of the first level. The next code is the nearest centroid of the next
level to the difference between the vector and its first centroid, and so on. Products with the same first codes are
therefore similar. A codebook is stored beside the offline tables in `codebooks/VERSION.npz`:

    level_0, level_1, ...   float32 [size, d]
    encoder_version         encoder version of the vectors
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
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.arrow import timestamps
from feature_repo.config import Settings
from feature_repo.errors import CorruptDataError, InvalidInputError
from feature_repo.files.atomic_write import replace_atomically
from feature_repo.schema import TIMESTAMP

Vectors = NDArray[np.float32]

ITERATIONS = 25
"""Iterations of k-means for each level."""
VECTORS_PER_CENTROID = 256
"""Training uses at most this many vectors for each centroid; more do not change a codebook."""
FOLDER = "codebooks"
"""Folder of the codebook files, in the folder of the offline tables."""


@dataclass(frozen=True)
class Codebook:
    """The centroids that code the vectors of one encoder version."""

    levels: tuple[Vectors, ...]
    """Centroids of each level, from the first, float32 [size, d]."""
    encoder_version: str
    """Version of the vectors that it codes."""
    trained_us: int
    """Time of the training, in microseconds since 1970 UTC."""

    @property
    def version(self) -> str:
        """`codes-` and 12 hex digits: a digest of the encoder version and the centroids, not of the time."""
        digest = blake2b(self.encoder_version.encode(), digest_size=6)
        for level in self.levels:
            digest.update(level.tobytes())
        return f"codes-{digest.hexdigest()}"

    def encode(self, vectors: Vectors) -> tuple[NDArray[np.int32], Vectors]:
        """Return the codes of vectors, and what the codes do not explain.

        Args:
            vectors: fused vectors of the encoder version, without NaN, float32 [n, d].

        Returns:
            The codes, int32 [n, levels], each in [0, size of its level); and the residuals, float32 [n, d]: the vector
            minus its centroids of all levels. Both are in the order of `vectors`.
        """
        codes = np.empty((len(vectors), len(self.levels)), np.int32)
        residual = vectors
        for level, (centroids, index) in enumerate(zip(self.levels, self._indexes, strict=True)):
            codes[:, level] = _find_nearest(index, residual)
            residual = residual - centroids[codes[:, level]]
        return codes, residual

    @cached_property
    def _indexes(self) -> list[faiss.Index]:
        return [_build_index(level) for level in self.levels]


@dataclass(frozen=True)
class CodebookQuality:
    """How well codes distinguish products and approximate their vectors."""

    products: int
    """Number of distinct vectors. Products with equal vectors cannot be distinguished and are counted once."""
    collision_rate: float
    """Share of the distinct vectors whose semantic ID another one has too."""
    usage_entropy: tuple[float, ...]
    """Normalized entropy of the codes of each level, in [0, 1]: 1 if all are used equally often, 0 if only one is used.
    1 for a level of one code."""
    reconstruction_error: float
    """Share of the vectors' variance that the codes do not explain, at least 0; 0 if all vectors are equal."""

    def __str__(self) -> str:
        entropy = ", ".join(f"{value:.3f}" for value in self.usage_entropy)
        return (
            f"collision rate {self.collision_rate:.3f}, usage entropy by level {entropy}, "
            f"reconstruction error {self.reconstruction_error:.3f}, over {self.products:,} distinct vectors"
        )


def train_codebook(
    vectors: Vectors, encoder_version: str, *, levels: int, size: int, seed: int, now: datetime
) -> Codebook:
    """Train a codebook by residual k-means.

    Args:
        vectors: fused vectors, float32 [n, d] without NaN. A random sample is used if there are more than
            VECTORS_PER_CENTROID for each centroid.
        encoder_version: encoder version of the vectors.
        levels: number of codes of an ID, at least 1.
        size: number of centroids of each level, which is the number of codes that can occur there.
        seed: seed of the sample and of the initial centroids.
        now: the time of the training, with a time zone.

    Raises:
        InvalidInputError: there are fewer than `size` vectors; exactly `size` are enough.
    """
    if len(vectors) < size:
        raise InvalidInputError(f"{len(vectors):,} vectors are too few for {size} codes a level; use a smaller --size")
    rng = np.random.default_rng(seed)
    if len(vectors) > size * VECTORS_PER_CENTROID:
        vectors = vectors[np.sort(rng.choice(len(vectors), size * VECTORS_PER_CENTROID, replace=False))]
    centroids_of_levels, residual = [], np.ascontiguousarray(vectors)
    for level in range(levels):
        # min_points_per_centroid only silences a warning: faiss recommends 39, and small shops have fewer.
        kmeans = faiss.Kmeans(
            residual.shape[1], size, niter=ITERATIONS, seed=seed + level, min_points_per_centroid=1, gpu=_has_gpu()
        )
        # Random initial centroids leave some codes with two clusters.
        kmeans.cp.init_method = faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS
        kmeans.train(residual)
        centroids = np.array(kmeans.centroids, np.float32)
        centroids_of_levels.append(centroids)
        residual = residual - centroids[_find_nearest(_build_index(centroids), residual)]
    return Codebook(tuple(centroids_of_levels), encoder_version, timestamps.datetime_to_ticks(now, "us"))


def choose_size(products: int) -> int:
    """Return the default number of codes of each level: a power of two from 16 to 256, about one for 100 products.

    The power of two is rounded down. With fewer than 16 products there are as many codes as products.

    Args:
        products: number of products of the catalogue.
    """
    return min(products, int(2 ** np.clip(np.floor(np.log2(max(products, 1) / 100)), 4, 8)))


def measure_quality(
    codes: NDArray[np.int32], squared_error: float, variance: float, sizes: Sequence[int]
) -> CodebookQuality:
    """Measure the quality of a codebook.

    Args:
        codes: codes of the distinct vectors, at least one, int32 [n, levels].
        squared_error: sum over all vectors, repeated ones included, of the squared length of the residual.
        variance: sum over the same vectors of the squared distance to their mean. If it is 0, the reconstruction error
            is 0.
        sizes: number of codes of each level.
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
    """Write a codebook to FOLDER beside the offline tables atomically, and return its file.

    The file is named after the version of the codebook: VERSION.npz. A file of the same version is replaced, and a
    missing folder is created.
    """
    file = settings.local / FOLDER / f"{codebook.version}.npz"
    arrays = {f"level_{number}": level for number, level in enumerate(codebook.levels)}
    with replace_atomically(file) as unfinished, unfinished.open("wb") as stream:
        np.savez(stream, encoder_version=codebook.encoder_version, trained=codebook.trained_us, **arrays)  # type: ignore[arg-type]
    return file


def load_newest(settings: Settings, encoder_version: str) -> Codebook | None:
    """Return the codebook of an encoder version that was trained last; None if there is none.

    Of two that were trained at the same time, the one whose file name is first is returned.

    Args:
        settings: the deployment.
        encoder_version: codebooks of other encoder versions are ignored.

    Raises:
        CorruptDataError: a codebook file, of any encoder version, is damaged or has been changed.
    """
    codebooks = [codebook for codebook in _load_all(settings) if codebook.encoder_version == encoder_version]
    return max(codebooks, key=lambda codebook: codebook.trained_us, default=None)


def read_newest_training(settings: Settings) -> dict[str, datetime]:
    """Return the time of the newest training of all codebooks, by the name of the codebook; empty without any.

    Raises:
        CorruptDataError: a codebook file is damaged or has been changed.
    """
    newest = max(_load_all(settings), key=lambda codebook: codebook.trained_us, default=None)
    if newest is None:
        return {}
    return {f"codebook `{newest.version}`": pa.scalar(newest.trained_us, TIMESTAMP).as_py()}


def load_codebook(file: Path) -> Codebook:
    """Read a codebook that `save_codebook` wrote.

    Args:
        file: the file, under the name that `save_codebook` gave it.

    Raises:
        CorruptDataError: the file does not exist, is not a codebook, or its content does not match its name.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            levels = sorted((name for name in arrays.files if name.startswith("level_")), key=lambda n: int(n[6:]))
            codebook = Codebook(
                tuple(arrays[name] for name in levels), str(arrays["encoder_version"]), int(arrays["trained"])
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CorruptDataError(
            f"{file}: not a codebook ({error}); remove it, and run `produce codes --retrain`"
        ) from error
    if codebook.version != file.stem:
        raise CorruptDataError(
            f"{file}: its content is that of {codebook.version}; it was changed or damaged: remove it, and run "
            "`produce codes --retrain`"
        )
    return codebook


def _load_all(settings: Settings) -> list[Codebook]:
    """Return the codebooks of all encoder versions, in the order of their file names."""
    # Earlier versions left unfinished files named `.part.npz`.
    files = [file for file in sorted((settings.local / FOLDER).glob("codes-*.npz")) if ".part" not in file.name]
    return [load_codebook(file) for file in files]


def _has_gpu() -> bool:
    """Return whether faiss has a GPU. faiss-cpu never has one."""
    return faiss.get_num_gpus() > 0


def _build_index(centroids: Vectors) -> faiss.Index:
    """Return an index of the centroids, on all GPUs if there are any."""
    index = faiss.IndexFlatL2(centroids.shape[1])
    index.add(np.ascontiguousarray(centroids))
    return faiss.index_cpu_to_all_gpus(index) if _has_gpu() else index


def _find_nearest(index: faiss.Index, vectors: Vectors) -> NDArray[np.int64]:
    _, nearest = index.search(np.ascontiguousarray(vectors), 1)
    return nearest[:, 0]
