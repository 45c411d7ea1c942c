"""Train every ranker of a measurement, from features that are binned once, on all cores.

    main       the baseline, all features, the placebo and the ceiling, trained on all rows before the test; all
               features and the placebo take only the groups that pass the screening (`screening.py`)
    ablation   leave-one-in (the baseline and one group), leave-one-out (all groups but one) and each group with
               permuted content, trained on a sample of the rows before the validation, because verdicts are decided
               on the validation days
    oracle     all features with predicted inputs replaced by the truth, trained as the ablation
    curve      the baseline and all features on shares of the rows before the test

Both leave-one-in and leave-one-out are reported: adding groups in one order would credit the first of two that overlap.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consumers.ranking import ground_truth, lightgbm_ranker, screening
from consumers.ranking.bootstrap import draw_weights
from consumers.ranking.content_features import compute_groups
from consumers.ranking.ground_truth import GroundTruth
from consumers.ranking.lightgbm_ranker import TrainedRanker
from consumers.ranking.placebo import permute_content
from consumers.ranking.plan import (
    ALL,
    BASE,
    BOTH,
    CEILING,
    CURVE_SHARES,
    DIN,
    LIGHTGBM,
    PERMUTED,
    PLACEBO,
    RANKERS,
    WITHOUT,
    TrainingPlan,
)
from consumers.ranking.prepared_features import PreparedFeatures, prepare_features
from consumers.ranking.splits import RowSplit
from consumers.ranking.training_set import RankingTrainingSet
from feature_repo import schema
from feature_repo.cores import map_on_all_cores
from feature_repo.errors import InvalidInputError

Floats = NDArray[np.float64]
RankerKey = tuple[str, str, int]
"""Section (main, secondary, ablation, oracle, curve), name, and the number of the permutation or 0."""
TrainingTask = tuple[int, Callable[[], Iterator[tuple[RankerKey, TrainedRanker]]]]
"""Number of rankers that the task trains, and the function that trains them."""
Screen = Callable[[Mapping[str, TrainedRanker]], tuple[str, ...]]
"""Returns the groups that pass the screening, from the rankers of the baseline with each group."""
Progress = Callable[[str, int, int], None]
"""Called with the name of a ranker that was trained, the number of models trained so far, and the number of all."""


@dataclass(frozen=True)
class RankerScores:
    """Click probabilities from every ranker of one measurement, and what the rankers used.

    Scores are float64 in [0, 1], with one line for each of the m seeds, or permutations of a placebo. Columns are the
    test rows, or the scored rows (validation and test rows), in the log's order.
    """

    model: str
    """Kind of the main rankers: lightgbm or din. Those of `ablation`, `oracle` and `curve` are always lightgbm."""
    main: Mapping[str, Floats]
    """Name to scores [m, test rows]: BASE, ALL, PLACEBO if vectors are joined, CEILING and `oracle` if there is a
    truth. `oracle`, the last, has one line: the probabilities from which the clicks were drawn."""
    secondary: Mapping[str, Floats]
    """The baseline, all features and the placebo of the other kind of ranker [m, test rows]; empty unless both ran."""
    ablation: Mapping[str, Floats]
    """Name to scores [m, scored rows]: BASE, ALL, each group alone with the baseline (GROUP), all groups without it
    (WITHOUT + GROUP), and the group with permuted content (PERMUTED + GROUP) if vectors are joined."""
    oracle: Mapping[str, Floats]
    """Each of ORACLE_STEPS, in their order, to scores [1, scored rows]: all features, with predicted inputs replaced by
    true ones; then CEILING. All are trained on the rows of the ablation. Empty without a truth."""
    curve: Mapping[float, tuple[Floats, Floats]]
    """Share of the training rows (CURVE_SHARES) to the scores of the baseline and of all features [1, test rows]. Share
    0.1 is trained on every tenth of the rows before the test, 0.3 on every third."""
    gain: Mapping[str, float]
    """Feature to its share of the loss reduction in the trees with all features that were taken. The shares sum to 1,
    or are all 0 if no tree has a split."""
    features: Mapping[str, int]
    """Group, or BASE for the baseline, to its number of features; BASE comes first."""
    group_of: Mapping[str, str]
    """Feature to its group; BASE for the baseline's."""
    taken: Sequence[str]
    """Groups that passed the screening, and that ALL has in `main`, `secondary` and `curve`."""
    permuted_taken: Mapping[str, int]
    """Group to the number of permutations in which it passed the screening with permuted content, so that PLACEBO has
    it; empty without a placebo."""


def train_rankers(
    data: RankingTrainingSet,
    split: RowSplit,
    test_start: int,
    plan: TrainingPlan,
    truth: GroundTruth | None,
    progress: Progress,
) -> RankerScores:
    """Train every ranker of a measurement and score the validation and test rows.

    Args:
        data: the joined log.
        split: which of its rows train, decide the verdicts (validation) and test.
        test_start: first microsecond of the test, in microseconds since 1970 UTC.
        plan: how much to train.
        truth: the truth about the log; adds the ranker that is given true tags and tastes, the true click probabilities
            and the steps of `ground_truth.replace_inputs`. None leaves them out.
        progress: called after each ranker with its name, the number of models trained so far and the number of all; a
            ranker counts once for each seed. Calls come from several threads.

    Returns:
        The scores of every ranker.

    Raises:
        InvalidInputError: `plan.ranker` is unknown, no group of features can be computed, or a feature leaks. This is
            found before anything is trained.
        CorruptDataError: the vectors of one column have different lengths.
    """
    if plan.ranker not in RANKERS:
        raise InvalidInputError(f"no ranker `{plan.ranker}`; there are: {', '.join(RANKERS)}")
    prepared = prepare_features(data, split, test_start)
    screened, others = _screening_tasks(prepared), partial(_other_tasks, prepared, plan, truth)
    total = sum(count for count, _ in [*screened, *others(tuple(prepared.groups), lambda _: ())])
    trained = _run_tasks(screened, progress, 0, total)
    screen = _make_screen(prepared, plan, trained["ablation", BASE, 0])
    taken = screen({name: trained["ablation", name, 0] for name in prepared.groups})
    trained |= _run_tasks(others(taken, screen), progress, sum(count for count, _ in screened), total)
    on_test = ~split.validation
    main = {name: each[:, on_test] for name, each in _section(trained, "main").items()}
    if truth is not None:
        main["oracle"] = truth.click_probability[split.test][None]
    curve, steps = _section(trained, "curve"), _section(trained, "oracle")
    placebos = [ranker for (section, name, _), ranker in trained.items() if (section, name) == ("main", PLACEBO)]
    return RankerScores(
        model=DIN if plan.ranker == DIN else LIGHTGBM,
        main=main,
        secondary={name: each[:, on_test] for name, each in _section(trained, "secondary").items()},
        ablation=_section(trained, "ablation"),
        oracle={name: steps[name] for name in (*ground_truth.ORACLE_STEPS, CEILING) if name in steps},
        curve={
            share: (curve[f"{share} {BASE}"][:, on_test], curve[f"{share} {ALL}"][:, on_test]) for share in CURVE_SHARES
        },
        gain=trained["ablation" if plan.ranker == DIN else "main", ALL, 0].gain,
        features={BASE: len(prepared.base), **{name: len(group) for name, group in prepared.groups.items()}},
        group_of=dict.fromkeys(prepared.base, BASE)
        | {feature: name for name, group in prepared.groups.items() for feature in group},
        taken=taken,
        permuted_taken={name: sum(name in each.groups for each in placebos) for name in prepared.groups if placebos},
    )


def _make_screen(prepared: PreparedFeatures, plan: TrainingPlan, base: TrainedRanker) -> Screen:
    """The screening of this measurement, by the validation rows."""
    split = prepared.split
    weights = draw_weights(prepared.data, split.scored & split.train, screening.REPLICATES, 0)

    def screen(rankers: Mapping[str, TrainedRanker]) -> tuple[str, ...]:
        scores = {name: ranker.scores[0, split.validation] for name, ranker in rankers.items()}
        return screening.screen_groups(scores, base.scores[0, split.validation], weights, plan.screening_errors)

    return screen


def _other_tasks(
    prepared: PreparedFeatures, plan: TrainingPlan, truth: GroundTruth | None, taken: tuple[str, ...], screen: Screen
) -> list[TrainingTask]:
    """All tasks but those of `_screening_tasks`, with the groups that passed the screening."""
    tasks = [
        *_placebo_tasks(prepared, plan, screen),
        *_oracle_tasks(prepared, truth),
        *(_din_tasks if plan.ranker == DIN else _main_tasks)(prepared, plan, truth, taken),
        *_ablation_tasks(prepared),
        *_curve_tasks(prepared, taken),
    ]
    if plan.ranker == BOTH:
        parts = _din_parts(prepared, taken)
        tasks += [_din_task("secondary", name, prepared, plan, each) for name, each in parts.items()]
    return tasks


def _placebo_tasks(prepared: PreparedFeatures, plan: TrainingPlan, screen: Screen) -> list[TrainingTask]:
    """One task for each permutation: each group of permuted content with the baseline, and those that pass together.

    There are none if no vectors are joined.
    """
    if schema.EMBEDDING_TABLE not in prepared.data.views:
        return []

    def train(permutation: int) -> Iterator[tuple[RankerKey, TrainedRanker]]:
        permuted = permute_content(prepared.data, prepared.test_start, permutation)
        groups = compute_groups(permuted, prepared.projection)
        binned = {name: prepared.bin(group) for name, group in groups.items()}
        alone: dict[str, TrainedRanker] = {}
        for name, group in binned.items():
            alone[name] = lightgbm_ranker.fit([prepared.binned_base, group], [0], prepared.split.ablation)
            yield ("ablation", PERMUTED + name, permutation), alone[name]
        taken = screen(alone)
        seeds = [permutation % plan.seeds]
        if plan.ranker != LIGHTGBM:
            section = "main" if plan.ranker == DIN else "secondary"
            parts = [prepared.base, *(groups[name] for name in taken)]
            ranker = _train_din(prepared, plan.din_rows, parts, seeds)
            yield (section, PLACEBO, permutation), replace(ranker, groups=taken)
        if plan.ranker != DIN:
            ranker = lightgbm_ranker.fit([prepared.binned_base, *(binned[name] for name in taken)], seeds)
            yield ("main", PLACEBO, permutation), replace(ranker, groups=taken)

    mains = 2 if plan.ranker == BOTH else 1
    return [(mains + len(prepared.groups), partial(train, number)) for number in range(plan.permutations)]


def _oracle_tasks(prepared: PreparedFeatures, truth: GroundTruth | None) -> list[TrainingTask]:
    """One task: all features, with one input after another replaced by the truth, and the ceiling. None without it."""
    if truth is None:
        return []

    def train() -> Iterator[tuple[RankerKey, TrainedRanker]]:
        steps = ground_truth.replace_inputs(prepared.data, truth, prepared.groups, prepared.test_start)
        for name, groups in steps:
            parts = [prepared.binned_base, *map(prepared.bin, groups)]
            yield ("oracle", name, 0), lightgbm_ranker.fit(parts, [0], prepared.split.ablation)
        parts = [prepared.binned_base, prepared.bin(truth.features)]
        yield ("oracle", CEILING, 0), lightgbm_ranker.fit(parts, [0], prepared.split.ablation)

    return [(len(ground_truth.ORACLE_STEPS) + 1, train)]


def _main_tasks(
    prepared: PreparedFeatures, plan: TrainingPlan, truth: GroundTruth | None, taken: tuple[str, ...]
) -> list[TrainingTask]:
    """The baseline, all features that were taken and the ceiling, with every seed, on all rows before the test."""
    parts: dict[str, Callable[[], list[lightgbm_ranker.BinnedFeatures]]] = {
        BASE: lambda: [prepared.binned_base],
        ALL: lambda: prepared.select(taken),
    }
    if truth is not None:
        parts[CEILING] = lambda: [prepared.binned_base, prepared.bin(truth.features)]
    seeds = range(plan.seeds)

    def train(name: str) -> Iterator[tuple[RankerKey, TrainedRanker]]:
        yield ("main", name, 0), lightgbm_ranker.fit(parts[name](), seeds)

    return [(plan.seeds, partial(train, name)) for name in parts]


def _din_tasks(
    prepared: PreparedFeatures, plan: TrainingPlan, truth: GroundTruth | None, taken: tuple[str, ...]
) -> list[TrainingTask]:
    """The rankers of `_main_tasks`, as DINs."""
    parts = _din_parts(prepared, taken)
    if truth is not None:
        parts[CEILING] = [prepared.base, truth.features]
    return [_din_task("main", name, prepared, plan, each) for name, each in parts.items()]


def _screening_tasks(prepared: PreparedFeatures) -> list[TrainingTask]:
    """The baseline, and each group added to it, on the rows of the ablation."""
    parts = {BASE: [prepared.binned_base], **{name: prepared.select([name]) for name in prepared.groups}}
    return _tasks_on_ablation_rows(prepared, parts)


def _ablation_tasks(prepared: PreparedFeatures) -> list[TrainingTask]:
    """All groups, and each group removed from all."""
    names = list(prepared.groups)
    parts = {ALL: prepared.select(names)}
    parts |= {WITHOUT + name: prepared.select([other for other in names if other != name]) for name in names}
    return _tasks_on_ablation_rows(prepared, parts)


def _tasks_on_ablation_rows(
    prepared: PreparedFeatures, parts: Mapping[str, Sequence[lightgbm_ranker.BinnedFeatures]]
) -> list[TrainingTask]:
    """A task for each ranker, which trains it on the rows of the ablation with one seed."""
    fit = partial(lightgbm_ranker.fit, rows=prepared.split.ablation)
    return [(1, partial(_train_one, ("ablation", name, 0), fit, each, [0])) for name, each in parts.items()]


def _curve_tasks(prepared: PreparedFeatures, taken: tuple[str, ...]) -> list[TrainingTask]:
    """The baseline and all features that were taken on shares of the rows before the test."""
    tasks: list[TrainingTask] = []
    for share in CURVE_SHARES:
        fit = partial(lightgbm_ranker.fit, rows=np.arange(0, int(prepared.split.train.sum()), round(1 / share)))
        for name, parts in ((BASE, [prepared.binned_base]), (ALL, prepared.select(taken))):
            tasks.append((1, partial(_train_one, ("curve", f"{share} {name}", 0), fit, parts, [0])))
    return tasks


def _train_one(
    key: RankerKey,
    fit: Callable[[Sequence[Any], Sequence[int]], TrainedRanker],
    parts: Sequence[Any],
    seeds: Sequence[int],
) -> Iterator[tuple[RankerKey, TrainedRanker]]:
    """Train one ranker when the first item is requested, and yield it with its key."""
    yield key, fit(parts, seeds)


def _din_parts(prepared: PreparedFeatures, taken: tuple[str, ...]) -> dict[str, list[lightgbm_ranker.Features]]:
    """The unbinned features of the baseline, and of it and the groups that were taken."""
    return {BASE: [prepared.base], ALL: [prepared.base, *(prepared.groups[name] for name in taken)]}


def _din_task(
    section: str,
    name: str,
    prepared: PreparedFeatures,
    plan: TrainingPlan,
    parts: Sequence[lightgbm_ranker.Features],
) -> TrainingTask:
    """The task of training one DIN with every seed of the plan."""
    fit = partial(_train_din, prepared, plan.din_rows)
    return plan.seeds, partial(_train_one, (section, name, 0), fit, parts, range(plan.seeds))


def _train_din(
    prepared: PreparedFeatures,
    max_rows: int,
    parts: Sequence[lightgbm_ranker.Features],
    seeds: Sequence[int],
) -> TrainedRanker:
    """Train a DIN on at most `max_rows` rows before the test. Its scores of the validation rows are NaN."""
    from consumers.ranking import din_ranker  # torch takes seconds to import and only --ranker needs it

    split = prepared.split
    train = np.flatnonzero(split.train)
    if len(train) > max_rows:
        train = np.sort(np.random.default_rng(0).choice(train, max_rows, replace=False))
    features = {name: values for part in parts for name, values in part.items()}
    scores = np.full((len(seeds), len(split.validation)), np.nan)
    scores[:, ~split.validation] = din_ranker.fit_and_score(
        prepared.data, features, train, np.flatnonzero(split.test), seeds
    )
    return TrainedRanker(scores, {})


def _run_tasks(
    tasks: Sequence[TrainingTask], progress: Progress, done: int, total: int
) -> dict[RankerKey, TrainedRanker]:
    """Run all tasks on all cores, the longest first, so that no core waits for a long one at the end.

    `done` of the `total` number of rankers have been trained before.
    """
    trained: dict[RankerKey, TrainedRanker] = {}

    def run(task: TrainingTask) -> None:
        nonlocal done
        for key, ranker in task[1]():
            trained[key] = ranker
            done += len(ranker.scores)
            progress(key[1], done, total)

    list(map_on_all_cores(run, sorted(tasks, key=lambda task: -task[0])))
    return trained


def _section(trained: Mapping[RankerKey, TrainedRanker], section: str) -> dict[str, Floats]:
    """The scores of all seeds and permutations of each ranker of a section [m, scored rows], sorted by name."""
    keys = [key for key in sorted(trained) if key[0] == section]
    return {
        name: np.concatenate([trained[key].scores for key in keys if key[1] == name])
        for name in dict.fromkeys(key[1] for key in keys)
    }
