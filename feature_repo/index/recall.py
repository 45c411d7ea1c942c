"""Recall of searches against exact search, unfiltered and under filters that leave a share of the products."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from feature_repo.index.nearest import DEFAULT_SEARCH, AllowedVectors, Ints, VectorColumn, Vectors

SHARES = (1.0, 0.1, 0.01, 0.001)
"""Shares of the products that the measured filters leave; 1 is no filter."""
TOP_K = 10
"""Results that are compared for each query."""
QUERIES = 100
"""Most queries of a measurement."""
TARGET = 0.95
"""Recall that the number of candidates must reach."""
CANDIDATES = (16, 24, 32, 48, 64, 80, 96, 112, 128, 160, 192, 256, 320, 384, 512, 768, 1024)
"""Numbers of candidates that are tried until the recall reaches TARGET."""


def measure_recall(column: VectorColumn, queries: Vectors, seed: int = 0) -> dict[str, Any]:
    """Return the recall@TOP_K of a column, and the fewest candidates with which it reaches TARGET.

    Args:
        column: vectors with or without a graph.
        queries: float32 [q, d], such as text vectors where the column has image vectors.
        seed: of the random products that the filters leave.

    Returns:
        `queries`, and `shares`: for each of SHARES a mapping with `share`, `candidates` and `recall`. A filter that
        leaves fewer than TOP_K products is left out. Without a graph every recall is 1. If no number of CANDIDATES
        reaches TARGET, the largest one and its recall are returned.
    """
    rng = np.random.default_rng(seed)
    measured = []
    for share in SHARES:
        count = round(share * len(column.matrix))
        if count < TOP_K:
            continue
        total = len(column.matrix)
        allowed = None if share == 1 else AllowedVectors(np.sort(rng.choice(total, count, replace=False)), total)
        truth = [column.search(query, TOP_K, allowed, exact=True)[0] for query in queries]
        for candidates in CANDIDATES:
            found = [column.search(query, TOP_K, allowed, candidates=candidates)[0] for query in queries]
            value = compute_recall(found, truth)
            if value >= TARGET or column.graph is None:
                break
        measured.append({"share": share, "candidates": candidates, "recall": round(value, 4)})
    return {"queries": len(queries), "shares": measured}


def compute_recall(found: list[Ints], truth: list[Ints]) -> float:
    """Return the mean share of the true results that were found; NaN without queries."""
    shares = [len(np.intersect1d(one, true)) / len(true) for one, true in zip(found, truth, strict=True) if len(true)]
    return float(np.mean(shares)) if shares else float("nan")


def choose_candidates(measured: Mapping[str, Any] | None, share: float) -> int:
    """Return how many candidates a search keeps: the most that any measured share of at least half of `share` needed.

    A narrower filter needs more candidates. DEFAULT_SEARCH where no such share was measured.

    Args:
        measured: from `measure_recall`; None if nothing was measured.
        share: share of the products that a filter leaves, 1 without one.
    """
    shares = (measured or {}).get("shares", ())
    return max((one["candidates"] for one in shares if one["share"] >= min(share, 1.0) * 0.5), default=DEFAULT_SEARCH)
