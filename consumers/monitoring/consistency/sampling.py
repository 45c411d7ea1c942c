"""Sample keys by hash: of all keys seen, the n with the smallest hashes, independent of the order.

Two samples of n keys can be merged: the n smallest hashes of both together are the n smallest of everything that both
have seen (Cohen and Kaplan 2007, Summarizing Data Using Bottom-k Sketches).
"""

import hashlib
import heapq
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class KeySample:
    """The keys with the smallest hashes among those seen."""

    by_hash: dict[int, bytes]
    """The keys by their 64-bit hashes, ascending."""
    keys_seen: int
    """Number of keys looked at, including repeats."""
    is_complete: bool
    """Whether every key was looked at. False if the limit was reached first."""


def sample_keys(batches: Iterable[list[bytes]], size: int, seed: int, *, max_keys: int | None = None) -> KeySample:
    """Return the `size` distinct keys with the smallest hashes; all keys if there are fewer.

    Args:
        batches: keys, with repeats allowed.
        size: number of keys to return, at least 1.
        seed: another seed gives another sample. Samples of one seed can be merged.
        max_keys: number of keys, including repeats, after which no further batch is looked at; the batch that reaches
            it is looked at whole. None looks at every key.
    """
    salt = seed.to_bytes(8, "little", signed=True)
    kept: dict[int, bytes] = {}
    keys_seen, bound = 0, 1 << 64
    for keys in batches:
        if max_keys is not None and keys_seen >= max_keys:
            return KeySample(_keep_smallest(kept, size), keys_seen, is_complete=False)
        for key in keys:
            number = _hash(key, salt)
            if number < bound:
                kept[number] = key
        keys_seen += len(keys)
        if len(kept) > 2 * size:
            kept = _keep_smallest(kept, size)
            bound = max(kept)
    return KeySample(_keep_smallest(kept, size), keys_seen, is_complete=True)


def merge_samples(samples: Iterable[KeySample], size: int) -> list[bytes]:
    """Return the keys with the smallest hashes among all samples, each once, ordered by hash.

    Args:
        samples: made with one seed, and with a size of at least `size`.
        size: number of keys to return; all keys if there are fewer.
    """
    merged = {number: key for sample in samples for number, key in sample.by_hash.items()}
    return [merged[number] for number in sorted(merged)[:size]]


def _keep_smallest(kept: dict[int, bytes], size: int) -> dict[int, bytes]:
    return {number: kept[number] for number in heapq.nsmallest(size, kept)}


def _hash(key: bytes, salt: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(key, digest_size=8, salt=salt).digest(), "little")
