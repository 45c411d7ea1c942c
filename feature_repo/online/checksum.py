"""The checksum of a packed row: a multiply-add over its 8-byte words, so that NumPy checks 500 rows in some 20 us.

    sum = words * L + word[0] * K[0] + word[1] * K[1] + ...    (mod 2^64; the checksum's own 4 bytes count as zero)
    checksum = sum >> 32

`words` is their number, L = mix(1) | 1 and K[i] = mix(i + 2) | 1, where mix is the output function of SplitMix64 on
i * 0x9E3779B97F4A7C15. Zeros after the end of a row change nothing, so rows of different lengths can be checked as
one matrix. A CRC-32 would do the same in 100-200 us: it takes the rows one by one.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

CHECKSUM = slice(20, 24)
WORD = 8
_CHECKED = 2
"""The word whose high half is the checksum."""
_HIGH_HALF = np.uint64(0xFFFFFFFF00000000)
_STEP = np.uint64(0x9E3779B97F4A7C15)


def compute_checksums(rows: NDArray[np.uint8], sizes: NDArray[np.int64] | int) -> NDArray[np.uint32]:
    """The checksum of each row, [n].

    Args:
        rows: [n, width], C-contiguous, width a multiple of 8; zeros after the end of a row.
        sizes: bytes of each row, multiples of 8: [n], or one for all.
    """
    words = rows.view("<u8")
    return (_sums(words, words[:, _CHECKED] & _HIGH_HALF, sizes) >> np.uint64(32)).astype(np.uint32)


def verify_each(rows: NDArray[np.uint8], sizes: NDArray[np.int64] | int) -> NDArray[np.bool_]:
    """[n], whether each row's checksum is the one that it states; the arguments are as above."""
    words = rows.view("<u8")
    stated = words[:, _CHECKED] & _HIGH_HALF
    return (_sums(words, stated, sizes) ^ stated) <= ~_HIGH_HALF


def verify_all(rows: NDArray[np.uint8], sizes: NDArray[np.int64] | int, fingerprint: int) -> bool:
    """Whether `sound` holds for all of some rows that have one fingerprint, in half of its steps.

    word[2] is then checksum * 2^32 + fingerprint. Its sum with the factor -1 takes the checksum away, and the
    fingerprint with it, which is made up for: the upper half of what is left is zero where the checksum is right.
    """
    words = rows.view("<u8")
    factors, length, own = _factors_of_one(words.shape[1])
    rest = np.einsum("ij,j->i", words, factors)
    if isinstance(sizes, int):
        rest += np.uint64((fingerprint * own + sizes // WORD * length) % 2**64)
    else:
        rest += np.uint64(fingerprint * own % 2**64) + (sizes // WORD).astype(np.uint64) * np.uint64(length)
    return bool((rest <= ~_HIGH_HALF).all())


def _sums(words: NDArray[np.uint64], stated: NDArray[np.uint64], sizes: NDArray[np.int64] | int) -> NDArray[np.uint64]:
    factors = _factors(1 << words.shape[1].bit_length())
    total = np.einsum("ij,j->i", words, factors[1 : words.shape[1] + 1])
    total -= stated * factors[1 + _CHECKED]
    if isinstance(sizes, int):
        total += np.uint64(sizes // WORD * int(factors[0]) % 2**64)
    else:
        total += (sizes // WORD).astype(np.uint64) * factors[0]
    return total


@lru_cache
def _factors(count: int) -> NDArray[np.uint64]:
    """L, K[0], K[1], ...: `count` + 1 odd numbers."""
    x = np.arange(1, count + 2, dtype=np.uint64) * _STEP
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))) | np.uint64(1)


@lru_cache
def _factors_of_one(words: int) -> tuple[NDArray[np.uint64], int, int]:
    """K[0], K[1], -1, K[3], ... of so many words; L; K[2] + 1."""
    length, *factors = _factors(1 << words.bit_length())[: words + 1].tolist()
    own, factors[_CHECKED] = factors[_CHECKED] + 1, 2**64 - 1
    return np.array(factors, np.uint64), length, own
