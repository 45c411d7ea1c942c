"""Samples of keys by hash."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.monitoring.consistency.sampling import merge_samples, sample_keys

KEYS = st.lists(st.binary(min_size=1, max_size=4), max_size=60)


@given(keys=KEYS, size=st.integers(1, 8), step=st.integers(1, 9), order=st.randoms())
def test_the_sample_is_independent_of_order_batches_and_repeats(
    keys: list[bytes], size: int, step: int, order: random.Random
) -> None:
    shuffled = keys + keys[:3]
    order.shuffle(shuffled)
    batches = [shuffled[start : start + step] for start in range(0, len(shuffled), step)]
    result = sample_keys(batches, size, seed=7)
    assert set(result.by_hash.values()) == set(sample_keys([sorted(set(keys))], size, seed=7).by_hash.values())
    assert len(result.by_hash) == min(size, len(set(keys)))
    assert (result.keys_seen, result.is_complete) == (len(shuffled), True)


@given(one=KEYS, other=KEYS, size=st.integers(1, 8))
def test_merged_samples_are_the_sample_of_all_keys(one: list[bytes], other: list[bytes], size: int) -> None:
    both = merge_samples([sample_keys([one], size, 0), sample_keys([other], size, 0)], size)
    assert both == merge_samples([sample_keys([one + other], size, 0)], size)


def test_every_key_is_equally_likely() -> None:
    keys = [b"%d" % i for i in range(20)]
    drawn = [key for seed in range(2000) for key in sample_keys([keys], 5, seed).by_hash.values()]
    counts = [drawn.count(key) for key in keys]
    assert sum(counts) == 10_000
    assert sum((count - 500) ** 2 / 375 for count in counts) == pytest.approx(20, abs=20)  # chi-square, 19 degrees


def test_sampling_stops_at_the_limit() -> None:
    batches = iter([[b"a", b"b"], [b"c"], [b"never", b"looked at"]])
    result = sample_keys(batches, 10, 0, max_keys=3)
    assert (set(result.by_hash.values()), result.keys_seen, result.is_complete) == ({b"a", b"b", b"c"}, 3, False)
