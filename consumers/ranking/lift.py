"""Rankers that see the same rows, with and without a group of features, and the interval of the difference.

A difference is the mean over training seeds (over permutations, for the placebo); its intervals come from drawing
users, or users and products, the same draws for both rankers (`draws.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from consumers.ranking import metrics
from consumers.ranking.ablation import RankerScores
from consumers.ranking.bootstrap import (
    BootstrapWeights,
    DelongInterval,
    Floats,
    average_rankers,
    delong_interval,
    percentile_interval,
)
from consumers.ranking.plan import ALL, BASE, LIGHTGBM, PERMUTED, PLACEBO, WITHOUT
from consumers.ranking.verdict import Evidence
from feature_repo.cores import map_on_all_cores

OVER_PLACEBO = "all features over placebo"
UNDEFINED = (float("nan"), float("nan"))


@dataclass(frozen=True)
class Comparison:
    """One metric of one ranker beside another's, on one slice of some rows."""

    name: str
    model: str
    slice: str
    metric: str
    base: float
    with_features: float
    lift: float
    """with_features - base; for log loss a negative one is the better."""
    ci95: tuple[float, float]
    """Users drawn."""
    rows: int
    ci95_two_way: tuple[float, float] = UNDEFINED
    """Users and products drawn; AUC only, NaN for the others."""
    against: str = BASE
    """Whose value `base` is."""
    days: str = "test"
    """On which days: test or validation."""

    @property
    def sure(self) -> bool:
        """Whether zero lies outside the wider interval that there is."""
        low, high = self.ci95_two_way if np.isfinite(self.ci95_two_way[0]) else self.ci95
        return low > 0 or high < 0

    def as_json(self) -> dict[str, object]:
        """In the shape that other programs rely on."""
        return {
            "name": self.name,
            "model": self.model,
            "slice": self.slice,
            "metric": self.metric,
            "base": self.base,
            "with": self.with_features,
            "lift": self.lift,
            "ci95": list(self.ci95),
            "rows": self.rows,
            "ci95_two_way": list(self.ci95_two_way),
            "against": self.against,
            "days": self.days,
        }


def compare_rankers(
    scores: Mapping[str, Floats],
    drawn: BootstrapWeights,
    slices: Mapping[str, NDArray[np.bool_]],
    *,
    seed: int,
    model: str,
) -> list[Comparison]:
    """Every ranker against the baseline on all test rows, and all features against it on every slice.

    Args:
        scores: ranker to click probabilities of the test rows [m, test rows], BASE and ALL among them.
        drawn: of the test rows.
        slices: name to which test rows [test rows].
        seed: of the draw of seeds.
        model: what was trained.
    """
    every = np.ones(len(drawn.clicked), bool)
    names = [name for name in (*(n for n in scores if n not in (BASE, ALL)), ALL) if name in scores]

    def compare(part: str) -> list[Comparison]:
        rows = every if part == "all" else slices[part]
        rankers = names if part == "all" else [ALL]
        result: list[Comparison] = []
        for metric in metrics.METRICS:
            value = {name: drawn.measure(metric, scores[name], rows) for name in [BASE, *rankers]}
            two_way = {name: drawn.two_way(scores[name], rows) for name in [BASE, *rankers]} if metric == "auc" else {}
            for name in rankers:
                made = _compared(value, two_way, BASE, name, seed)
                made = replace(made, model=model if name != "oracle" else "truth")
                result.append(replace(made, metric=metric, slice=part, rows=int(rows.sum())))
            if part == "all" and PLACEBO in value:
                made = _compared(value, two_way, PLACEBO, ALL, seed)
                result.append(replace(made, name=OVER_PLACEBO, model=model, metric=metric, rows=int(rows.sum())))
        return result

    return [made for part in map_on_all_cores(compare, ["all", *slices]) for made in part]


def compare_groups(
    scores: RankerScores, drawn: BootstrapWeights, rows: NDArray[np.bool_], *, seed: int, days: str
) -> tuple[list[Comparison], dict[str, Evidence]]:
    """Each group added, taken away, and over its placebo, in AUC; and the same as evidence for a verdict.

    Args:
        scores: of every ranker.
        drawn: of the rows judged here.
        rows: which of the judged rows those are [judged].
        seed: of the draw of permutations.
        days: what to call them.
    """
    ladder = {name: each[:, rows] for name, each in scores.ladder.items()}
    value = {name: drawn.measure("auc", each) for name, each in ladder.items() if not name.startswith(PERMUTED)}
    two_way = dict(zip(ladder, map_on_all_cores(drawn.two_way, ladder.values()), strict=True))
    count = int(rows.sum())
    result: list[Comparison] = []
    evidence: dict[str, Evidence] = {}
    for name in (name for name in scores.features if name != BASE):
        pairs = [
            (BASE, name, name),
            (WITHOUT + name, ALL, f"{name}, taken away"),
            (PERMUTED + name, name, f"{name} over placebo"),
        ]
        for base, with_features, called in pairs:
            if base in two_way:
                made = _compared(value, two_way, base, with_features, seed)
                result.append(replace(made, name=called, rows=count, days=days))
        swapped = two_way.get(PERMUTED + name)
        evidence[name] = Evidence(
            added=average_rankers(two_way[name] - two_way[BASE], seed),
            over_placebo=None
            if swapped is None
            else average_rankers(two_way[name], seed) - average_rankers(swapped, seed + 1),
            removed=average_rankers(two_way[ALL] - two_way[WITHOUT + name], seed),
        )
    return result, evidence


def _compared(
    value: Mapping[str, Floats], two_way: Mapping[str, Floats], base: str, with_features: str, seed: int
) -> Comparison:
    """The difference of two rankers, each [rankers, 1 + replicates] in `value` or `two_way`."""
    by_user = _difference(value, base, with_features, seed)
    by_both = _difference(two_way, base, with_features, seed)
    best = by_user if by_user is not None else by_both
    assert best is not None
    source = value if by_user is not None else two_way
    return Comparison(
        name=with_features,
        model=LIGHTGBM,
        slice="all",
        metric="auc",
        base=float(source[base][:, 0].mean()),
        with_features=float(source[with_features][:, 0].mean()),
        lift=float(best[0]),
        ci95=percentile_interval(best),
        rows=0,
        ci95_two_way=percentile_interval(by_both) if by_both is not None else UNDEFINED,
        against=base,
    )


def _difference(of: Mapping[str, Floats], base: str, with_features: str, seed: int) -> Floats | None:
    """[1 + replicates]; seeds are drawn as pairs where both rankers have the same ones, else each by itself."""
    if base not in of or with_features not in of:
        return None
    left, right = of[base], of[with_features]
    if len(left) == len(right) and PLACEBO not in base:
        return average_rankers(right - left, seed)
    return average_rankers(right, seed) - average_rankers(left, seed + 1)


def delong_of(scores: Mapping[str, Floats], clicked: NDArray[np.integer]) -> DelongInterval:
    """All features against the baseline, first seed, as if rows were independent."""
    return delong_interval(scores[BASE][0], scores[ALL][0], clicked)


def compute_captured_share(comparisons: Sequence[Comparison], ceiling: str, model: str = LIGHTGBM) -> float:
    """Which share of the AUC between the baseline and `ceiling` all features gain; NaN where there is no ceiling."""
    lifts = {
        c.name: c.lift
        for c in comparisons
        if (c.slice, c.metric, c.days) == ("all", "auc", "test") and c.model in (model, "truth")
    }
    return lifts[ALL] / lifts[ceiling] if lifts.get(ceiling, 0) > 0 else float("nan")
