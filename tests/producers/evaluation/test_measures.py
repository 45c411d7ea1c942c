"""Measures equal a slow definition, and their intervals contain them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.evaluation.measures import MEAN_RECALL, Measure, measure_recall, measure_trec
from producers.evaluation.retrieval import rank_pictures

SEEDS = st.integers(0, 2**32 - 1)


@given(seed=SEEDS, texts=st.integers(0, 6), pictures=st.integers(0, 8), top_k=st.integers(1, 10))
def test_the_ranking_equals_a_full_sort_of_the_usable_pictures(
    seed: int, texts: int, pictures: int, top_k: int
) -> None:
    chance = np.random.default_rng(seed)
    left = chance.integers(-2, 3, (texts, 2)).astype(np.float32)  # small integers: many equal cosines
    right = chance.integers(-2, 3, (pictures, 2)).astype(np.float32)
    left[chance.random(texts) < 0.2] = np.nan
    right[chance.random(pictures) < 0.3] = np.nan
    ranking = rank_pictures(left, right, top_k)
    for row, text in enumerate(left):
        usable = [] if np.isnan(text).any() else [p for p in range(pictures) if not np.isnan(right[p]).any()]
        best = sorted(usable, key=lambda p: (-float(text @ right[p]), p))[:top_k]
        assert ranking.pictures[row].tolist() == best + [-1] * (top_k - len(best))
        assert np.isnan(ranking.cosines[row]).tolist() == [position == -1 for position in ranking.pictures[row]]


def test_recall_counts_a_query_with_any_true_picture_among_the_first() -> None:
    rankings = {1: [5, 6, 7], 2: [8, 9], 3: list(range(20, 40))}
    truth = {1: [5], 2: [1, 9], 3: [27], 4: [1]}
    measures = measure_recall(rankings, truth)
    assert {name: measure.value for name, measure in measures.items()} == {
        "R@1": 0.25,
        "R@5": 0.5,
        "R@10": 0.75,
        MEAN_RECALL: pytest.approx(0.5),
    }


def test_an_interval_contains_the_mean_and_narrows_with_queries() -> None:
    widths = []
    for count in (20, 2000):
        measure = Measure.of([0.0, 1.0] * (count // 2))
        assert measure.low < measure.value == 0.5 < measure.high
        widths.append(measure.high - measure.low)
    assert widths[1] < 0.15 * widths[0]
    assert Measure.of([1.0, 1.0]) == Measure(1, 1, 1)
    assert math.isnan(Measure.of([]).value)


@given(seed=SEEDS)
def test_trec_measures_equal_their_definitions(seed: int) -> None:
    chance = np.random.default_rng(seed)
    documents = [f"d{number}" for number in range(30)]
    qrels = {
        f"q{query}": {
            document: int(value) for document, value in zip(documents, chance.integers(0, 3, 30), strict=True)
        }
        for query in range(3)
    }
    qrels["unfound"] = {"d1": 1}
    run = {
        query: dict(zip(chance.permutation(documents)[:20].tolist(), chance.permutation(20).tolist(), strict=True))
        for query in ("q0", "q1", "q2")
    }
    expected: dict[str, list[float]] = {name: [] for name in ("AP", "RR", "nDCG@10", "P@10", "recall@10", "recall@100")}
    for query, judged in qrels.items():
        ranked = sorted(run.get(query, {}), key=lambda document: -run[query][document])
        gains = [judged.get(document, 0) for document in ranked]
        relevant = sum(value > 0 for value in judged.values())
        hits = [gain > 0 for gain in gains]
        precisions = [sum(hits[: rank + 1]) / (rank + 1) for rank, hit in enumerate(hits) if hit]
        expected["AP"].append(sum(precisions) / relevant)
        expected["RR"].append(next((1 / (rank + 1) for rank, hit in enumerate(hits) if hit), 0.0))
        expected["P@10"].append(sum(hits[:10]) / 10)
        expected["recall@10"].append(sum(hits[:10]) / relevant)
        expected["recall@100"].append(sum(hits) / relevant)
        discounted = sum(gain / math.log2(rank + 2) for rank, gain in enumerate(gains[:10]))
        ideal = sorted(judged.values(), reverse=True)[:10]
        expected["nDCG@10"].append(discounted / sum(gain / math.log2(rank + 2) for rank, gain in enumerate(ideal)))
    measures = measure_trec({query: dict(scores) for query, scores in run.items()}, qrels)
    assert {name: measure.value for name, measure in measures.items()} == {
        name: pytest.approx(np.mean(values), abs=1e-6) for name, values in expected.items()
    }
