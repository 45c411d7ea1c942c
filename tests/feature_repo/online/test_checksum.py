import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.online.row_format import CHECKSUM, FINGERPRINT, compute_checksums, verify_all, verify_each


@given(st.integers(1, 6), st.lists(st.integers(3, 12), min_size=1, max_size=6), st.booleans(), st.randoms())
def test_verify_all_agrees_with_verify_each(
    seed: int, words: list[int], damaged: bool, generator: random.Random
) -> None:
    rng = np.random.default_rng(seed)
    sizes = np.array(words, np.int64) * 8
    rows = rng.integers(0, 256, (len(words), sizes.max()), np.uint8)
    fingerprint = int(rng.integers(0, 2**32))
    rows[:, FINGERPRINT].view("<u4")[:] = fingerprint
    for row, size in zip(rows, sizes, strict=True):
        row[size:] = 0
    rows[:, CHECKSUM].view("<u4")[:, 0] = compute_checksums(rows, sizes)
    if damaged:
        offsets = [i for i in range(rows.shape[1]) if i not in range(FINGERPRINT.start, FINGERPRINT.stop)]
        rows[generator.choice(range(len(rows))), generator.choice(offsets)] ^= 1 << generator.choice(range(8))
    assert verify_each(rows, sizes).all() == verify_all(rows, sizes, fingerprint) == (not damaged)
    if len(set(words)) == 1:
        assert verify_all(rows, int(sizes[0]), fingerprint) == (not damaged)
