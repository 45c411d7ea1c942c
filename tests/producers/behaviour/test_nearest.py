"""The nearest products over cells: as the exact lists where all cells are searched, and near them where few are."""

import numpy as np
import pytest

from producers.behaviour.cells import MIN_RECALL, train_cells
from producers.behaviour.nearest import NearestProducts

WIDTH, K = 8, 5


def make_vectors(rng: np.random.Generator, count: int) -> np.ndarray:
    centers = rng.normal(size=(30, WIDTH))
    vectors = (centers[rng.integers(0, 30, count)] + 0.4 * rng.normal(size=(count, WIDTH))).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def find_slowly(vectors: np.ndarray, has_history: np.ndarray, product: int) -> set[int]:
    others = [i for i in range(len(vectors)) if has_history[i] and i != product and not np.isnan(vectors[i, 0])]
    return set(sorted(others, key=lambda i: -float(vectors[i] @ vectors[product]))[:K])


def make_days(seed: int, count: int, changed: float = 0.05) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return states of growing catalogues: vectors, whether each changed, whether it has impressions.

    The share `changed` of the vectors changes from each state to the next.
    """
    rng = np.random.default_rng(seed)
    vectors, has_history, days = np.empty((0, WIDTH), np.float32), np.empty(0, bool), []
    for size in (count // 3, count // 2, count // 2, count):
        is_changed = rng.random(len(vectors)) < changed
        vectors = vectors.copy()
        vectors[is_changed] = make_vectors(rng, int(is_changed.sum()))
        added = size - len(vectors)
        vectors = np.concatenate([vectors, make_vectors(rng, added)])
        is_changed = np.concatenate([is_changed, np.ones(added, bool)])
        if added:
            vectors[-1] = np.nan
        has_history = np.concatenate([has_history, np.zeros(added, bool)]) | (rng.random(size) < 0.5)
        days.append((vectors, is_changed, has_history))
    return days


@pytest.mark.parametrize("exact_members", [50, 10_000])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
@pytest.mark.parametrize("changed", [0.05, 0.4])
def test_lists_are_those_of_a_fresh_search(seed: int, exact_members: int, changed: float) -> None:
    nearest = NearestProducts.create_empty(K, exact_members)
    recalls = []
    for vectors, is_changed, has_history in make_days(seed, 600, changed):
        nearest.update(vectors, is_changed, has_history)
        products = np.flatnonzero(~np.isnan(vectors[:, 0]))
        numbers, cosines = nearest.search(vectors, vectors[products], products)
        np.testing.assert_array_equal(nearest.neighbours[products], numbers)
        np.testing.assert_allclose(nearest.similarity[products], cosines, atol=1e-6)
        for product in products:
            expected = find_slowly(vectors, has_history, product)
            recalls.append(len(expected & set(nearest.neighbours[product].tolist())) / K)
        assert (nearest.neighbours[np.isnan(vectors[:, 0])] == -1).all()
        assert not np.isin(nearest.neighbours, np.flatnonzero(~nearest.has_history)).any()
    if nearest.cells is None:
        assert np.mean(recalls) == 1
    else:  # cells that were made for other vectors find fewer
        assert np.mean(recalls) > MIN_RECALL - (0.03 if changed < 0.1 else 0.1)


def test_a_list_without_some_of_its_products_stays_right_until_it_is_too_short() -> None:
    days = make_days(0, 600)
    nearest = NearestProducts.create_empty(K)
    for vectors, is_changed, has_history in days[:-1]:
        nearest.update(vectors, is_changed, has_history)
    lengths = (nearest.listed >= 0).sum(axis=1)[~np.isnan(nearest.similarity[:, 0])]
    assert lengths.min() >= K
    assert np.median(lengths) > K
    assert ((lengths >= K) & (lengths < nearest.listed.shape[1])).any()


def test_cells_are_made_anew_when_there_are_four_times_as_many_products() -> None:
    rng = np.random.default_rng(0)
    vectors = make_vectors(rng, 500)
    nearest = NearestProducts.create_empty(K, exact_members=50)
    made = []
    for size in (40, 60, 200, 250, 500):
        nearest.update(vectors[:size], np.arange(size) >= len(nearest.has_history), np.ones(size, bool))
        made.append(nearest.cells_made_for)
    assert made == [0, 60, 60, 250, 250]


def test_a_search_of_all_cells_is_exact() -> None:
    vectors = make_vectors(np.random.default_rng(1), 300)
    cells = train_cells(vectors, K)
    everywhere = type(cells)(cells.centers, len(cells.centers), 1.0)
    own_cells = everywhere.find_cells(vectors)
    cosines, found = everywhere.build_index(vectors, own_cells[:, 0]).search(vectors, own_cells, K)
    expected = -np.sort(-(vectors @ vectors.T), axis=1)[:, :K]
    np.testing.assert_allclose(cosines, expected, atol=1e-5)
    assert (found[:, 0] == np.arange(300)).all()


def test_the_recall_of_cells_is_that_of_the_sample() -> None:
    vectors = make_vectors(np.random.default_rng(2), 2000)
    cells = train_cells(vectors, K)
    assert MIN_RECALL <= cells.recall <= 1
    index = cells.build_index(vectors, cells.find_cells(vectors)[:, 0])
    _, found = index.search(vectors, cells.find_cells(vectors), K + 1)
    truth = np.argsort(-(vectors @ vectors.T), axis=1)[:, : K + 1]
    recall = np.mean([len(set(a) & set(b)) / K for a, b in zip(truth[:, 1:], found, strict=True)])
    assert abs(recall - cells.recall) < 0.03
