"""Vectors of an adapted encoder, made of the cached vectors of its source encoder without a call of that."""

from collections.abc import Sequence

import numpy as np
import pyarrow.dataset
from numpy.typing import NDArray

from producers.embeddings.tower_outputs import fill_cache
from producers.embeddings.vector_cache import IMAGE, VectorCache
from producers.encoders.adapted.encoder import AdaptedEncoder
from producers.encoders.encoder import Encoder


def cache_adapted_vectors(rows: pyarrow.dataset.Dataset, cache: VectorCache, encoder: Encoder) -> int:
    """Map the source's cached vectors of catalogue rows and put them into the cache; return their number.

    Contents that the source has not encoded are passed over.

    Args:
        rows: catalogue rows with `title` and `image_hash`.
        cache: of the encoder's vectors.
        encoder: one that is not an `AdaptedEncoder` does nothing.
    """
    if not isinstance(encoder, AdaptedEncoder):
        return 0
    source, adapter = cache.of_encoder(encoder.source.version, encoder.source.dim), encoder.adapter

    def make_vectors(modality: bytes, hashes: Sequence[bytes], titles: Sequence[str]) -> NDArray[np.float32]:
        vector_map = adapter.image if modality == IMAGE else adapter.text
        if vector_map is None:
            return np.full((len(hashes), adapter.dim), np.nan, np.float32)
        return vector_map.transform(source.get(modality, hashes))

    return fill_cache(rows, cache, make_vectors)
