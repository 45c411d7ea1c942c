"""Measures of retrieval over queries, each with a 95% interval from drawing queries with replacement."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytrec_eval
from numpy.typing import ArrayLike
from scipy.stats import bootstrap

CUTOFFS = (1, 5, 10)
"""The k of recall in benchmarks of text to image."""
MEAN_RECALL = "mean recall"
"""Name of the mean of R@1, R@5 and R@10."""
TREC_MEASURES = {
    "map": "AP",
    "recip_rank": "RR",
    "ndcg_cut_10": "nDCG@10",
    "P_10": "P@10",
    "recall_10": "recall@10",
    "recall_100": "recall@100",
}
"""Name in trec_eval to the name that is shown. Recall is here the share of the relevant documents that are found."""
REPLICATES = 1000


@dataclass(frozen=True)
class Measure:
    """The mean of a measure over queries. NaN, also in the interval, without queries."""

    value: float
    low: float
    """Lower bound of the 95% interval."""
    high: float

    @classmethod
    def of(cls, values: ArrayLike, seed: int = 0) -> "Measure":
        """Return the mean of one value a query, with the percentile interval of its bootstrap."""
        array = np.asarray(values, np.float64)
        if len(array) < 2 or (array == array[:1]).all():
            mean = float(array.mean()) if len(array) else math.nan
            return cls(mean, mean, mean)
        drawn = bootstrap(
            (array,), np.mean, n_resamples=REPLICATES, method="percentile", rng=np.random.default_rng(seed), batch=50
        )
        return cls(float(array.mean()), *map(float, drawn.confidence_interval))


def measure_recall(
    rankings: Mapping[int, Sequence[object]], truth: Mapping[int, Sequence[object]], cutoffs: Sequence[int] = CUTOFFS
) -> dict[str, Measure]:
    """Return R@k for each k, and their mean: the share of queries with a true picture among the first k.

    As in MUGE, one true picture is enough.

    Args:
        rankings: query to its pictures, best first. A query of `truth` without a ranking has no hit.
        truth: query to its true pictures.
        cutoffs: values of k.
    """
    hits = np.array(
        [[bool(set(truth[query]) & set(rankings.get(query, ())[:k])) for k in cutoffs] for query in truth], float
    ).reshape(len(truth), len(cutoffs))
    measures = {f"R@{k}": Measure.of(column) for k, column in zip(cutoffs, hits.T, strict=True)}
    return measures | {MEAN_RECALL: Measure.of(hits.mean(axis=1))}


def measure_trec(run: Mapping[str, Mapping[str, float]], qrels: Mapping[str, Mapping[str, int]]) -> dict[str, Measure]:
    """Return TREC_MEASURES of a run, by trec_eval. A query of the judgements that the run lacks counts as 0.

    Args:
        run: query to document to score. As in trec_eval, equal scores are ordered by document id.
        qrels: query to document to relevance, an integer; above 0 is relevant. Queries without a relevant document are
            left out.
    """
    judged = {query: documents for query, documents in qrels.items() if any(value > 0 for value in documents.values())}
    scores = pytrec_eval.RelevanceEvaluator(judged, set(TREC_MEASURES)).evaluate(
        {query: dict(documents) for query, documents in run.items()}
    )
    return {
        shown: Measure.of([scores[query][name] if query in scores else 0.0 for query in judged])
        for name, shown in TREC_MEASURES.items()
    }
