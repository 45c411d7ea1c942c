"""Vectors of an adapted encoder, made of the cached vectors of its source encoder without a call of that."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.dataset
from numpy.typing import NDArray

from producers.embeddings.tower_outputs import fill_cache
from producers.embeddings.vector_cache import IMAGE, VectorCache
from producers.encoders.encoder import Encoder

if TYPE_CHECKING:
    from producers.encoders.adapted.encoder import AdaptedEncoder


def cache_adapted_vectors(rows: pyarrow.dataset.Dataset, cache: VectorCache, encoder: Encoder) -> int:
    """Map the source's cached vectors of catalogue rows and put them into the cache; return their number.

    Contents that the source has not encoded are passed over.

    Args:
        rows: catalogue rows with `title` and `image_hash`.
        cache: of the encoder's vectors.
        encoder: one that is not an `AdaptedEncoder` does nothing.
    """
    from producers.encoders.adapted.encoder import AdaptedEncoder  # imports torch, which takes seconds

    return fill_cache(rows, cache, SourceVectors(cache, encoder).map) if isinstance(encoder, AdaptedEncoder) else 0


class SourceVectors:
    """The cached vectors of the source of an adapted encoder."""

    def __init__(self, cache: VectorCache, encoder: "AdaptedEncoder") -> None:
        """Read the file of a cache, which may be that of the adapted encoder's vectors."""
        self._cache = cache.of_encoder(encoder.source.version, encoder.source.dim)
        self._adapter = encoder.adapter

    def has(self, modality: bytes, hashes: Sequence[bytes | None]) -> NDArray[np.bool_]:
        """Return whether `map` has a vector for each content, bool [n]; False for None."""
        return self._cache.has(modality, hashes) & (modality != IMAGE or self._adapter.image is not None)

    def map(self, modality: bytes, hashes: Sequence[bytes], titles: Sequence[str]) -> NDArray[np.float32]:
        """Return the mapped vectors float32 [n, dim] of contents, in their order; NaN where the source has none.

        Args:
            modality: IMAGE or TITLE.
            hashes: content hashes of 16 bytes [n]; may be empty.
            titles: not read.
        """
        vector_map = self._adapter.image if modality == IMAGE else self._adapter.text
        if vector_map is None:
            return np.full((len(hashes), self._adapter.dim), np.nan, np.float32)
        return vector_map.transform(self._cache.get(modality, hashes))
