"""Digests of what a derived row was made from: 64 bits, stored in the column `input_digest` of its table.

A step compares the digest that a row would have now with the stored one and writes the row again if they differ, as the
catalogue does with its fingerprints. Whatever a value depends on takes part, except the version of the encoder, tagger,
codebook or captioner, which has a column of its own. Stored digests are compared with new ones, so the result for a
given input must never change; a step whose computation changes increases its own REVISION.

The digests are not collision-resistant: they detect changes, not attacks.
"""

from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from producers.catalogue import row_hash

Digests = NDArray[np.uint64]
"""One digest for each of n rows, uint64 [n]."""

BLOCK_ROWS = 65_536
"""Rows of vectors that are hashed at a time."""
_STEP = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))  # of SplitMix64, public domain


def combine(*columns: Digests) -> Digests:
    """Return one digest [n] for each row from its columns, each [n]; the order of the columns counts."""
    result = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        result = _mix(result + column)
    return result


def hash_texts(values: pa.Array | pa.ChunkedArray) -> Digests:
    """Return the digest of each text or binary value [n], in their order; a null has one that is not that of ""."""
    return row_hash.hash_texts(pa.chunked_array([values]) if isinstance(values, pa.Array) else values)[:, 0]


def hash_numbers(values: NDArray[np.int64]) -> Digests:
    """Return the digest of each number [n], in their order."""
    return _mix(values.astype(np.int64).view(np.uint64))


def hash_vectors(vectors: NDArray[np.float32]) -> Digests:
    """Return the digest of each vector [n], by its bits; 0 for a row that begins with NaN, which stands for no vector.

    Args:
        vectors: float32 [n, d].
    """
    result = np.empty(len(vectors), np.uint64)
    factors = _odd_numbers(vectors.shape[1])
    for start in range(0, len(vectors), BLOCK_ROWS):
        block = np.ascontiguousarray(vectors[start : start + BLOCK_ROWS], np.float32)
        bits = block.view(np.uint32).astype(np.uint64)
        result[start : start + len(block)] = _mix((bits * factors).sum(axis=1, dtype=np.uint64))
        result[start : start + len(block)][np.isnan(block[:, 0])] = 0
    return result


def to_arrow(digests: Digests) -> pa.Array:
    """Return digests as the column `input_digest`, int64 with the same bits."""
    return pa.array(digests.view(np.int64))


def _mix(values: Digests) -> Digests:
    """Let every bit of each number influence all bits; distinct numbers stay distinct."""
    values = values + _STEP
    values = (values ^ (values >> np.uint64(30))) * _FACTORS[0]
    values = (values ^ (values >> np.uint64(27))) * _FACTORS[1]
    return values ^ (values >> np.uint64(31))


@lru_cache(maxsize=8)
def _odd_numbers(count: int) -> Digests:
    return _mix(np.arange(count, dtype=np.uint64)) | np.uint64(1)
