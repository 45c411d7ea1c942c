"""Rankers that see the same rows, with and without a group of features, and the interval of the difference.

Rows before the split train, rows from it on test. Every ranker is trained with each seed; a difference is the mean
over seeds, and its interval comes from drawing the test's users, and the seeds, with replacement (percentile bootstrap,
Efron and Tibshirani 1993, chapter 13), the same draws for both rankers.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from consumers.ranking import metrics, rankers
from consumers.ranking.multimodal import feature_groups, fit_projection
from consumers.ranking.placebo import with_swapped_content
from consumers.ranking.tabular import tabular_features
from consumers.ranking.training_set import TrainingSet
from consumers.ranking.truth import Truth
from feature_repo.errors import VitrineError

BASE = "tabular"
ALL = "all features"
MODEL = "lightgbm"

Job: TypeAlias = tuple[str, Callable[[], rankers.Features], Sequence[int]]
"""A ranker's name, its features, and the seeds to train it with."""


@dataclass(frozen=True)
class Comparison:
    """One metric of one ranker beside the baseline's, on one slice of the test rows."""

    name: str
    model: str
    slice: str
    metric: str
    base: float
    with_features: float
    lift: float
    """with_features - base; for log loss a negative one is the better."""
    ci95: tuple[float, float]
    rows: int

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
        }


@dataclass(frozen=True)
class Scores:
    """What every ranker said of the test rows."""

    test: NDArray[np.bool_]
    """Which rows of the training set are the test [n]."""
    by_name: Mapping[str, NDArray[np.float64]]
    """Ranker to click probabilities [seeds, test rows]; the oracle has one row."""
    features: Mapping[str, int]
    """Ranker to how many features it saw."""


def split_time(data: TrainingSet, test_days: float | None) -> int:
    """Where the test begins, in microseconds: `test_days` before the end of the last day, else at 5/6 of the rows.

    Raises:
        VitrineError: nothing would be left on one side, or one side has no click or nothing but clicks.
    """
    time, clicked = data.time, data.clicked
    if test_days is None:
        start = int(np.quantile(time, 5 / 6, method="higher"))
    else:
        day = 86_400_000_000
        start = int((time.max() // day + 1) * day - test_days * day)
    for side, rows in (("before", time < start), ("after", time >= start)):
        if not rows.any() or clicked[rows].min() == clicked[rows].max():
            raise VitrineError(
                f"{rows.sum()} impressions {side} {np.datetime64(start, 'us')} and not both clicked and unclicked "
                "among them; choose another --test-days or bring a longer log"
            )
    return start


def score_all(
    data: TrainingSet,
    start: int,
    seeds: Sequence[int],
    truth: Truth | None,
    progress: Callable[[str, int, int], None],
) -> Scores:
    """Train every ranker with every seed.

    Args:
        data: the joined log.
        start: first microsecond of the test.
        seeds: of the rankers; the placebo takes one permutation for each.
        truth: adds the attainable and the oracle.
        progress: told of each ranker trained: its name, how many are done, how many there will be.
    """
    test = data.time >= start
    clicked = data.clicked
    base = tabular_features(data)
    embedding = data.views.get("product_embedding")
    projection = fit_projection(embedding, start) if embedding is not None else None
    groups = feature_groups(data, projection)
    if not groups:
        raise VitrineError("the feature service has neither product_embedding nor product_tags; nothing to compare")
    jobs: list[Job] = [(BASE, partial(_together, base), seeds)]
    jobs += [(name, partial(_together, base, group), seeds) for name, group in groups.items()]
    jobs.append((ALL, partial(_together, base, *groups.values()), seeds))
    if embedding is not None:

        def placebo(seed: int) -> rankers.Features:
            return _together(base, *feature_groups(with_swapped_content(data, start, seed), projection).values())

        jobs += [("placebo", partial(placebo, seed), [seed]) for seed in seeds]
    if truth is not None:
        jobs.append(("attainable", partial(_together, base, truth.features), seeds))
    total = sum(len(with_seeds) for _, _, with_seeds in jobs)
    found: dict[tuple[str, int], NDArray[np.float64]] = {}
    seen: dict[str, int] = {}

    def train(job: Job) -> None:
        name, make, with_seeds = job
        features = make()
        made = rankers.fit_and_score(features, clicked, ~test, test, with_seeds)
        found.update({(name, seed): scores for seed, scores in zip(with_seeds, made, strict=True)})
        seen[name] = len(features)
        progress(name, len(found), total)

    # A ranker per core with one thread each: on a busy machine, threads that wait for each other at every split of a
    # tree cost many times what they save. LightGBM works outside Python's lock. The widest come last in the list and
    # are trained first, so that no core waits for one at the end.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(train, reversed(jobs)))
    scores = {name: np.stack([found[name, seed] for seed in seeds]) for name, *_ in jobs}
    if truth is not None:
        scores["oracle"] = truth.click_probability[test][None]
    return Scores(test, scores, seen)


def compare(
    data: TrainingSet, scores: Scores, slices: Mapping[str, NDArray[np.bool_]], *, replicates: int, seed: int
) -> list[Comparison]:
    """Every ranker against the baseline on all test rows, and all features against it on every slice.

    Args:
        data: the joined log.
        scores: as `score_all` gives them.
        slices: name to which test rows [test rows].
        replicates: of the bootstrap.
        seed: of the bootstrap.
    """
    clicked = data.clicked[scores.test]
    _, user = np.unique(data.user[scores.test], return_inverse=True)
    weights = metrics.resampled_users(int(user.max()) + 1, replicates, seed)
    chance = np.random.default_rng(seed)
    every = np.ones(len(clicked), bool)
    result: list[Comparison] = []
    for part, rows in {"all": every, **slices}.items():
        names = [name for name in scores.by_name if name != BASE] if part == "all" else [ALL]
        for metric, measure in metrics.METRICS.items():
            values = {
                name: np.stack([measure(s[rows], clicked[rows], user[rows], weights) for s in scores.by_name[name]])
                for name in [BASE, *names]
            }
            for name in names:
                lift = _over_seeds(values[name] - values[BASE], chance)
                result.append(
                    Comparison(
                        name=name,
                        model=MODEL if name != "oracle" else "truth",
                        slice=part,
                        metric=metric,
                        base=float(values[BASE][:, 0].mean()),
                        with_features=float(values[name][:, 0].mean()),
                        lift=float(lift[0]),
                        ci95=_interval(lift[1:]),
                        rows=int(rows.sum()),
                    )
                )
    return result


def captured_share(comparisons: Sequence[Comparison], ceiling: str) -> float:
    """Which share of the AUC between the baseline and `ceiling` all features gain; NaN where there is no ceiling."""
    lifts = {c.name: c.lift for c in comparisons if c.slice == "all" and c.metric == "auc"}
    return lifts[ALL] / lifts[ceiling] if lifts.get(ceiling, 0) > 0 else float("nan")


def _together(*groups: rankers.Features) -> rankers.Features:
    """The features of all groups, in their order."""
    return {name: values for group in groups for name, values in group.items()}


def _over_seeds(differences: NDArray[np.float64], chance: np.random.Generator) -> NDArray[np.float64]:
    """Mean over seeds [1 + replicates]: of all seeds in column 0, of seeds drawn with replacement in the others."""
    seeds, columns = differences.shape
    drawn = chance.integers(0, seeds, size=(seeds, columns))
    drawn[:, 0] = np.arange(seeds)
    return np.take_along_axis(differences, drawn, axis=0).mean(axis=0)


def _interval(replicates: NDArray[np.float64]) -> tuple[float, float]:
    """2.5th and 97.5th percentile; NaN where the metric is undefined in any replicate."""
    low, high = np.percentile(replicates, [2.5, 97.5])
    return float(low), float(high)
