"""A sample by hash: of all things seen the n with the smallest hashes, whoever looks and in whichever order.

Two parties that each keep the n smallest of what they see can be compared: the n smallest of both together are the n
smallest of everything (Cohen and Kaplan 2007, Summarizing Data Using Bottom-k Sketches).
"""

import hashlib
import heapq
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """The keys with the smallest hashes among those seen."""

    by_hash: dict[int, bytes]
    seen: int
    """Keys looked at, repeats included."""
    complete: bool
    """Whether that were all, and not all that were to be looked at."""


def smallest(batches: Iterable[list[bytes]], size: int, seed: int, *, at_most: int | None = None) -> Sample:
    """The `size` keys with the smallest hashes.

    Args:
        batches: keys, repeats allowed; taken one after the other.
        seed: another one makes another sample.
        at_most: stop once so many keys have been looked at; None: look at all.
    """
    salt = seed.to_bytes(8, "little", signed=True)
    kept: dict[int, bytes] = {}
    seen, bound = 0, 1 << 64
    for keys in batches:
        if at_most is not None and seen >= at_most:
            return Sample(_cut(kept, size), seen, complete=False)
        for key in keys:
            number = _hash(key, salt)
            if number < bound:
                kept[number] = key
        seen += len(keys)
        if len(kept) > 2 * size:
            kept = _cut(kept, size)
            bound = max(kept)
    return Sample(_cut(kept, size), seen, complete=True)


def union(samples: Iterable[Sample], size: int) -> list[bytes]:
    """The `size` keys with the smallest hashes of all that the samples are of, by their hashes."""
    joined = {number: key for sample in samples for number, key in sample.by_hash.items()}
    return [joined[number] for number in sorted(joined)[:size]]


def _cut(kept: dict[int, bytes], size: int) -> dict[int, bytes]:
    return {number: kept[number] for number in heapq.nsmallest(size, kept)}


def _hash(key: bytes, salt: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(key, digest_size=8, salt=salt).digest(), "little")
