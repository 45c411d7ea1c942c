"""Groups of bounded diameter, their ids, and the context of pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.groups.candidates import find_candidates, list_missing_pairs
from producers.groups.clustering import cluster_products
from producers.groups.context import CONTEXT_FEATURES, compute_context
from producers.groups.group_ids import assign_group_ids, name_changes


@st.composite
def drawn_pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    products = draw(st.integers(1, 8))
    left, right = np.triu_indices(products, 1)
    kept = np.array(draw(st.lists(st.booleans(), min_size=len(left), max_size=len(left))), bool)
    values = draw(st.lists(st.integers(0, 100), min_size=len(left), max_size=len(left)))
    return left[kept], right[kept], np.array(values, np.float32)[kept] / 100, products


@given(drawn_pairs(), st.sampled_from([0.2, 0.5, 0.9]), st.booleans())
def test_every_two_members_of_a_group_are_a_probable_pair_of_two_sellers(
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray, int], threshold: float, by_seller: bool
) -> None:
    left, right, probability, products = pairs
    seller = np.arange(products) % 3 - 1 if by_seller else None  # -1: unknown, never in conflict
    group = cluster_products(left, right, probability, products, threshold=threshold, seller=seller)
    known = {(a, b): p for a, b, p in zip(left.tolist(), right.tolist(), probability.tolist(), strict=True)}
    for a in range(products):
        for b in range(a + 1, products):
            if group[a] == group[b]:
                assert known.get((a, b), 0) >= threshold - 1e-6
                assert seller is None or seller[a] != seller[b] or seller[a] < 0


def test_a_chain_is_divided_and_a_clique_is_not() -> None:
    left, right = np.array([0, 1, 3, 3, 4]), np.array([1, 2, 4, 5, 5])
    probability = np.array([0.9, 0.8, 0.9, 0.7, 0.8], np.float32)
    group = cluster_products(left, right, probability, 7, threshold=0.5)
    assert group[0] == group[1] != group[2]
    assert group[3] == group[4] == group[5]
    assert len(set(group.tolist())) == 4


def test_the_best_pair_decides_where_a_product_could_go_to_two_groups() -> None:
    left, right = np.array([0, 1]), np.array([1, 2])
    group = cluster_products(left, right, np.array([0.6, 0.9], np.float32), 3, threshold=0.5)
    assert group[0] != group[1] == group[2]


def test_an_id_stays_with_most_of_its_members_whoever_comes_or_goes() -> None:
    former = ["g1", "g1", "g1", None, "g2"]
    ids = assign_group_ids(["a", "b", "c", "d", "e"], [0, 0, 1, 0, 0], former, 1)
    assert ids[:2] == ["g1", "g1"] == [ids[3], ids[4]]  # g2 is merged into g1, which has more members there
    assert ids[2] not in ("g1", "g2")  # c is split off
    assert name_changes(former, ids) == [None, None, "split", "joined", "merged"]


def test_an_id_does_not_die_with_the_member_that_it_was_made_for() -> None:
    (first, _, _) = assign_group_ids(["a", "b", "c"], [0, 0, 0], [None] * 3, 1)
    assert assign_group_ids(["b", "c"], [0, 0], [first, first], 2) == [first, first]
    assert assign_group_ids(["a", "b"], [0, 1], [None, None], 2)[0] not in (first, None)


def slow_context(left: list[int], right: list[int], probability: list[float]) -> list[dict[str, float]]:
    rows = []
    pairs = list(zip(left, right, probability, strict=True))
    for a, b, p in pairs:
        others = [[q for x, y, q in pairs if side in (x, y) and (x, y) != (a, b)] for side in (a, b)]
        partners = [{(y if x == side else x): q for x, y, q in pairs if side in (x, y)} for side in (a, b)]
        shared = [partners[0][third] * partners[1][third] for third in partners[0].keys() & partners[1].keys()]
        rank = [sum(q > p for q in one) for one in others]
        best, total = [max(one, default=0) for one in others], [sum(one) for one in others]
        row = {"probability": p, "shared": sum(shared), "best_shared": max(shared, default=0)}
        for name, values in (("rank", rank), ("best_other", best), ("sum_other", total)):
            row |= {f"{name}_low": min(values), f"{name}_high": max(values)}
        rows.append(row)
    return rows


def test_the_context_equals_a_plain_count_over_all_pairs() -> None:
    rng = np.random.default_rng(0)
    left, right = np.triu_indices(7, 1)
    kept = rng.random(len(left)) < 0.6
    left, right = left[kept], right[kept]
    probability = rng.permutation(np.linspace(0.02, 0.98, len(left))).astype(np.float32)
    context = compute_context(left, right, probability, 7, np.arange(len(left)))
    some = rng.permutation(len(left))[:3]
    np.testing.assert_array_equal(compute_context(left, right, probability, 7, some), context[some])
    for got, row in zip(context, slow_context(left.tolist(), right.tolist(), probability.tolist()), strict=True):
        assert dict(zip(CONTEXT_FEATURES, got.tolist(), strict=True)) == pytest.approx(row, rel=1e-4, abs=1e-6)


def test_candidates_are_the_nearest_of_every_space_and_lack_no_pair_of_a_query() -> None:
    rng = np.random.default_rng(0)
    spaces = {}
    for name in ("one", "two"):
        vectors = rng.normal(size=(30, 4)).astype(np.float32)
        spaces[name] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    spaces["two"][3] = np.nan
    left, right = find_candidates(spaces, np.array([3, 5]), top_k=4)
    expected = set()
    for vectors in spaces.values():
        for query in (3, 5):
            if not np.isnan(vectors[query, 0]):
                similarity = np.where(np.isnan(vectors[:, 0]), -2, vectors @ vectors[query])
                near = [row for row in np.argsort(-similarity).tolist() if row != query][:4]
                expected |= {(min(query, row), max(query, row)) for row in near}
    assert set(zip(left.tolist(), right.tolist(), strict=True)) == expected
    missing = list_missing_pairs(np.array([0]), np.array([1]), [np.array([0, 1, 2])], 30)
    assert [side.tolist() for side in missing] == [[0, 1], [2, 2]]
