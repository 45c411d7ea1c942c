"""Nearest products are those of a sorted list of all, without the product itself."""

import numpy as np

from feature_repo.evaluation.nearest_products import compute_shared, find_nearest_products


def test_the_nearest_products_are_the_first_of_all_sorted_by_similarity_without_the_own_one() -> None:
    rng = np.random.default_rng(0)
    pool = rng.normal(size=(40, 8)).astype(np.float32)
    own = np.array([3, -1, 39])
    vectors = np.stack([pool[3], rng.normal(size=8).astype(np.float32), pool[39]])
    nearest = find_nearest_products(vectors, pool, own, 5)
    for vector, product, positions in zip(vectors, own, nearest, strict=True):
        best_first = [position for position in np.argsort(-(pool @ vector)) if position != product]
        assert set(positions) == set(best_first[:5])


def test_the_share_in_common_is_that_of_the_first_rows() -> None:
    one, other = np.array([[1, 2], [3, 4], [5, 6]]), np.array([[2, 1, 0], [3, 9, 8], [7, 8, 9]])
    assert compute_shared(one, other).tolist() == [1.0, 0.5, 0.0]
