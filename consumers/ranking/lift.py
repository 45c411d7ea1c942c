"""Differences between rankers that scored the same rows, with confidence intervals.

A difference is a mean over training seeds (over permutations for the placebo). Its intervals come from drawing users,
or users and products, with the same draws for both rankers (`bootstrap.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from consumers.ranking import metrics
from consumers.ranking.ablation import RankerScores
from consumers.ranking.bootstrap import BootstrapWeights, Floats, average_rankers, percentile_interval
from consumers.ranking.plan import ALL, BASE, LIGHTGBM, PERMUTED, PLACEBO, WITHOUT
from consumers.ranking.verdict import Evidence
from feature_repo.cores import map_on_all_cores

OVER_PLACEBO = "all features over placebo"
"""Name of the comparison of all features with their placebo."""
UNDEFINED = (float("nan"), float("nan"))
"""The interval of a difference that has none."""


@dataclass(frozen=True)
class Comparison:
    """One metric of two rankers on the same rows: all test or validation rows, or a part of them (a slice)."""

    name: str
    """What is compared, for example a group's name, `GROUP, taken away` or `GROUP over placebo`."""
    model: str
    """lightgbm, din, or truth for the oracle."""
    slice: str
    """Name of the slice; `all` for all rows."""
    metric: str
    """A key of `metrics.METRICS`."""
    base: float
    """The metric of the ranker `against`, averaged over its training seeds or permutations."""
    with_features: float
    """The metric of the other ranker, averaged in the same way."""
    lift: float
    """`with_features` - `base`; for log loss, lower is better."""
    ci95: tuple[float, float]
    """95% interval of the lift, users drawn; users and products drawn where a group is compared with its placebo. NaN
    where the metric is undefined in a replicate."""
    rows: int
    """Number of rows that are compared."""
    ci95_two_way: tuple[float, float] = UNDEFINED
    """95% interval of the lift, users and products drawn; NaN for metrics other than AUC."""
    against: str = BASE
    """Name of the ranker whose value is `base`."""
    days: str = "test"
    """Rows that are compared: test or validation."""

    @property
    def interval(self) -> tuple[float, float]:
        """The interval that is shown with the lift: users and products drawn for AUC, users drawn for other metrics."""
        return self.ci95_two_way if self.metric == "auc" else self.ci95

    @property
    def is_significant(self) -> bool:
        """Whether zero lies outside the interval. False for NaN."""
        low, high = self.interval
        return low > 0 or high < 0

    @property
    def effect(self) -> str:
        """`gain` or `loss` if the lift is significantly better or worse, else an empty text.

        Lower is better for log loss. Calibration is best at 1, so that its difference alone is neither.
        """
        if not self.is_significant or self.metric == "calibration":
            return ""
        is_higher = self.interval[0] > 0
        return "gain" if is_higher == (self.metric != "log_loss") else "loss"

    def as_json(self) -> dict[str, object]:
        """Return the comparison as `consume lift --json` prints it.

        Returns:
            All fields by name, except that `with_features` is called `with`. Intervals are lists [low, high]. NaN stays
            NaN.
        """
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
    weights: BootstrapWeights,
    slices: Mapping[str, NDArray[np.bool_]],
    *,
    seed: int,
    model: str,
) -> list[Comparison]:
    """Compare every ranker with the baseline on all test rows, and all features with it on every slice.

    If there is a placebo, all features are compared with it too, on all test rows.

    Args:
        scores: ranker to click probabilities [m, test rows], one line for each of its m seeds or permutations; must
            have BASE and ALL.
        weights: bootstrap weights of the test rows.
        slices: name of a part of the test rows to its mask [test rows]; may be empty.
        seed: seed of the draw of training seeds.
        model: kind of the rankers, lightgbm or din; goes into the comparisons.

    Returns:
        First all rows, then the slices in their order; in each, metric by metric in the order of METRICS. Of one
        metric, the rankers in the order of `scores` but ALL last, then all features over the placebo.
    """
    every_row = np.ones(len(weights.clicked), bool)
    names = [name for name in (*(n for n in scores if n not in (BASE, ALL)), ALL) if name in scores]

    def compare(part: str) -> list[Comparison]:
        rows = every_row if part == "all" else slices[part]
        rankers = names if part == "all" else [ALL]
        count = int(rows.sum())
        result: list[Comparison] = []
        for metric in metrics.METRICS:
            one_way = {name: weights.compute_metric(metric, scores[name], rows) for name in [BASE, *rankers]}
            two_way: dict[str, Floats] = {}
            if metric == "auc":
                two_way = {name: weights.compute_two_way_auc(scores[name], rows) for name in [BASE, *rankers]}
            for name in rankers:
                comparison = _compare(one_way, two_way, BASE, name, seed)
                kind = model if name != "oracle" else "truth"
                result.append(replace(comparison, model=kind, metric=metric, slice=part, rows=count))
            if part == "all" and PLACEBO in one_way:
                comparison = _compare(one_way, two_way, PLACEBO, ALL, seed)
                result.append(replace(comparison, name=OVER_PLACEBO, model=model, metric=metric, rows=count))
        return result

    return [comparison for part in map_on_all_cores(compare, ["all", *slices]) for comparison in part]


def compare_groups(
    scores: RankerScores, weights: BootstrapWeights, rows: NDArray[np.bool_], *, seed: int, days: str
) -> tuple[list[Comparison], dict[str, Evidence]]:
    """Compare each group of features in AUC: added to the baseline, taken away from all features, and over its placebo.

    Args:
        scores: scores of every ranker.
        weights: bootstrap weights of the compared rows.
        rows: mask of the compared rows among the scored ones [scored rows].
        seed: seed of the draw of permutations.
        days: test or validation; goes into the comparisons.

    Returns:
        The comparisons, group by group in the order of `scores.features`: `GROUP`, `GROUP, taken away` and, if there is
        a placebo, `GROUP over placebo`. And by group the same differences, with users and products drawn, as evidence
        for its verdict.
    """
    ablation = {name: each[:, rows] for name, each in scores.ablation.items()}
    one_way = {
        name: weights.compute_metric("auc", each) for name, each in ablation.items() if not name.startswith(PERMUTED)
    }
    two_way = dict(zip(ablation, map_on_all_cores(weights.compute_two_way_auc, ablation.values()), strict=True))
    count = int(rows.sum())
    result: list[Comparison] = []
    evidence: dict[str, Evidence] = {}
    for name in (name for name in scores.features if name != BASE):
        pairs = [
            (BASE, name, name),
            (WITHOUT + name, ALL, f"{name}, taken away"),
            (PERMUTED + name, name, f"{name} over placebo"),
        ]
        for base, with_features, label in pairs:
            if base in two_way:
                comparison = _compare(one_way, two_way, base, with_features, seed)
                result.append(replace(comparison, name=label, rows=count, days=days))
        permuted = two_way.get(PERMUTED + name)
        over_placebo = None
        if permuted is not None:
            over_placebo = average_rankers(two_way[name], seed) - average_rankers(permuted, seed + 1)
        evidence[name] = Evidence(
            added=average_rankers(two_way[name] - two_way[BASE], seed),
            over_placebo=over_placebo,
            removed=average_rankers(two_way[ALL] - two_way[WITHOUT + name], seed),
        )
    return result, evidence


def compare_groups_by_slice(
    scores: RankerScores,
    weights: BootstrapWeights,
    rows: NDArray[np.bool_],
    slices: Mapping[str, NDArray[np.bool_]],
    *,
    seed: int,
) -> list[Comparison]:
    """Compare each group of features, added to the baseline, with the baseline in AUC, on each slice of the test rows.

    Args:
        scores: scores of every ranker.
        weights: bootstrap weights of the test rows.
        rows: mask of the test rows among the scored ones [scored rows].
        slices: name of a part of the test rows to its mask [test rows]; may be empty.
        seed: seed of the draw of training seeds.

    Returns:
        The comparisons, slice by slice, in each the groups in the order of `scores.features`. Both intervals draw users
        and products.
    """
    ablation = {name: scores.ablation[name][:, rows] for name in scores.features}

    def compare(part: str) -> list[Comparison]:
        two_way = {name: weights.compute_two_way_auc(each, slices[part]) for name, each in ablation.items()}
        count = int(slices[part].sum())
        return [
            replace(_compare({}, two_way, BASE, name, seed), slice=part, rows=count)
            for name in ablation
            if name != BASE
        ]

    return [comparison for part in map_on_all_cores(compare, list(slices)) for comparison in part]


def _compare(
    one_way: Mapping[str, Floats], two_way: Mapping[str, Floats], base: str, with_features: str, seed: int
) -> Comparison:
    """Compare two rankers by their values [rankers, 1 + replicates] in `one_way` or, where absent, in `two_way`."""
    by_user = _difference(one_way, base, with_features, seed)
    by_both = _difference(two_way, base, with_features, seed)
    difference = by_user if by_user is not None else by_both
    assert difference is not None
    values = one_way if by_user is not None else two_way
    return Comparison(
        name=with_features,
        model=LIGHTGBM,
        slice="all",
        metric="auc",
        base=float(values[base][:, 0].mean()),
        with_features=float(values[with_features][:, 0].mean()),
        lift=float(difference[0]),
        ci95=percentile_interval(difference),
        rows=0,
        ci95_two_way=percentile_interval(by_both) if by_both is not None else UNDEFINED,
        against=base,
    )


def _difference(values: Mapping[str, Floats], base: str, with_features: str, seed: int) -> Floats | None:
    """The mean difference [1 + replicates]; None if a ranker is absent.

    Seeds are drawn as pairs where both rankers have the same ones, else independently.
    """
    if base not in values or with_features not in values:
        return None
    left, right = values[base], values[with_features]
    if len(left) == len(right) and PLACEBO not in base:
        return average_rankers(right - left, seed)
    return average_rankers(right, seed) - average_rankers(left, seed + 1)


def compute_captured_share(comparisons: Sequence[Comparison], ceiling: str, model: str = LIGHTGBM) -> float:
    """Return the lift in AUC of all features as a share of the lift of `ceiling`, on all test rows.

    Args:
        comparisons: all comparisons of a measurement; that of all features must be among them.
        ceiling: name of the comparison that is the whole: CEILING or `oracle`.
        model: kind of the rankers, lightgbm or din.

    Returns:
        1 for the whole; below 0 if all features harm; NaN if `ceiling` was not measured, or is no better than the
        baseline.
    """
    lifts = {
        c.name: c.lift
        for c in comparisons
        if (c.slice, c.metric, c.days) == ("all", "auc", "test") and c.model in (model, "truth")
    }
    return lifts[ALL] / lifts[ceiling] if lifts.get(ceiling, 0) > 0 else float("nan")
