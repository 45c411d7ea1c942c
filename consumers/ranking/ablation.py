"""Every ranker that a measurement trains, on as few sorted bins and as few cores as will do.

    main      the baseline, all features, the placebo, the attainable: trained on everything before the test
    ladder    each group added to the baseline, taken from all, and added with swapped content: trained on a sample of
              the rows before the validation days, for verdicts are taken on those
    headroom  all features with one input after another replaced by the truth, beside the ladder
    curve     the baseline and all features on shares of the rows before the test

A ladder of one order would give the credit to whoever comes first; added and removed are both shown.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consumers.ranking import ground_truth, lightgbm_ranker
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
from consumers.ranking.training_set import TrainingSet
from feature_repo import schema
from feature_repo.cores import map_on_all_cores
from feature_repo.errors import VitrineError

Floats = NDArray[np.float64]
RankerKey = tuple[str, str, int]
"""Section, ranker, and which of its seeds or permutations."""
TrainingTask = tuple[int, Callable[[], Iterator[tuple[RankerKey, TrainedRanker]]]]
"""How many rankers a piece of work trains, and the work."""


@dataclass(frozen=True)
class RankerScores:
    """What every ranker said; each entry holds one row a seed or a permutation."""

    model: str
    """What the main rankers are."""
    main: Mapping[str, Floats]
    """Click probabilities [m, test rows]."""
    beside: Mapping[str, Floats]
    """Of the other kind of ranker, the baseline, all features and the placebo, if both were trained [m, test rows]."""
    ladder: Mapping[str, Floats]
    """[m, judged rows]."""
    headroom: Mapping[str, Floats]
    """[1, judged rows], in the order in which inputs were replaced."""
    curve: Mapping[float, tuple[Floats, Floats]]
    """Share of the rows to the baseline and all features [1, test rows] each."""
    gain: Mapping[str, float]
    """Of all features: share of the loss that its splits took off."""
    features: Mapping[str, int]
    """Group to how many features it has."""
    group_of: Mapping[str, str]
    """Feature to its group; the baseline's to BASE."""


def train_rankers(
    data: TrainingSet,
    split: RowSplit,
    start: int,
    plan: TrainingPlan,
    truth: GroundTruth | None,
    progress: Callable[[str, int, int], None],
) -> RankerScores:
    """Train every ranker.

    Args:
        data: the joined log.
        split: its rows.
        start: first microsecond of the test.
        plan: how much.
        truth: adds the attainable, the oracle and the headroom.
        progress: told of each ranker trained: its name, how many are done, how many there will be.

    Raises:
        VitrineError: no such ranker, nothing to compare, or a feature that knows what it cannot.
    """
    if plan.ranker not in RANKERS:
        raise VitrineError(f"no ranker `{plan.ranker}`; there are: {', '.join(RANKERS)}")
    material = prepare_features(data, split, start)
    pieces = [
        *_placebos(material, plan),
        *_headroom(material, truth),
        *(_main_of_din if plan.ranker == DIN else _main)(material, plan, truth),
        *_ladder(material),
        *_curve(material),
    ]
    if plan.ranker == BOTH:
        pieces += [_attending("beside", name, material, plan, parts) for name, parts in _raw(material).items()]
    found = _worked_off(pieces, progress)
    on_test = ~split.validation
    main = {name: each[:, on_test] for name, each in _section(found, "main").items()}
    if truth is not None:
        main["oracle"] = truth.click_probability[split.test][None]
    curve, of_steps = _section(found, "curve"), _section(found, "headroom")
    return RankerScores(
        model=DIN if plan.ranker == DIN else LIGHTGBM,
        main=main,
        beside={name: each[:, on_test] for name, each in _section(found, "beside").items()},
        ladder=_section(found, "ladder"),
        headroom={name: of_steps[name] for name in ground_truth.ORACLE_STEPS if name in of_steps},
        curve={
            share: (curve[f"{share} {BASE}"][:, on_test], curve[f"{share} {ALL}"][:, on_test]) for share in CURVE_SHARES
        },
        gain=found["ladder" if plan.ranker == DIN else "main", ALL, 0].gain,
        features={BASE: len(material.base), **{name: len(group) for name, group in material.groups.items()}},
        group_of=dict.fromkeys(material.base, BASE)
        | {feature: name for name, group in material.groups.items() for feature in group},
    )


def _placebos(material: PreparedFeatures, plan: TrainingPlan) -> list[TrainingTask]:
    """All features, and each group alone, after products have swapped content."""
    if schema.EMBEDDING_TABLE not in material.data.views:
        return []

    def swapped(number: int) -> Iterator[tuple[RankerKey, TrainedRanker]]:
        made = compute_groups(permute_content(material.data, material.start, number), material.projection)
        theirs = {name: material.bin(group) for name, group in made.items()}
        seeds = [number % plan.seeds]
        if plan.ranker != LIGHTGBM:
            section = "main" if plan.ranker == DIN else "beside"
            yield (section, PLACEBO, number), _attend(material, plan.din_rows, [material.base, *made.values()], seeds)
        if plan.ranker != DIN:
            yield ("main", PLACEBO, number), lightgbm_ranker.fit([material.binned_base, *theirs.values()], seeds)
        for name, group in theirs.items():
            fitted = lightgbm_ranker.fit([material.binned_base, group], [0], material.split.ladder)
            yield ("ladder", PERMUTED + name, number), fitted

    mains = 2 if plan.ranker == BOTH else 1
    return [(mains + len(material.groups), partial(swapped, number)) for number in range(plan.permutations)]


def _headroom(material: PreparedFeatures, truth: GroundTruth | None) -> list[TrainingTask]:
    """All features, with one input after another replaced by the truth."""
    if truth is None:
        return []

    def replaced() -> Iterator[tuple[RankerKey, TrainedRanker]]:
        for name, groups in ground_truth.replace_inputs(material.data, truth, material.groups, material.start):
            parts = [material.binned_base, *map(material.bin, groups)]
            yield ("headroom", name, 0), lightgbm_ranker.fit(parts, [0], material.split.ladder)

    return [(len(ground_truth.ORACLE_STEPS), replaced)]


def _main(material: PreparedFeatures, plan: TrainingPlan, truth: GroundTruth | None) -> list[TrainingTask]:
    """The baseline, all features and the attainable, with every seed on everything before the test."""
    parts = {BASE: [material.binned_base], ALL: material.everything}
    if truth is not None:
        parts[CEILING] = [material.binned_base, material.bin(truth.features)]
    seeds = range(plan.seeds)
    return [
        (plan.seeds, partial(_once, ("main", name, 0), lightgbm_ranker.fit, each, seeds))
        for name, each in parts.items()
    ]


def _main_of_din(material: PreparedFeatures, plan: TrainingPlan, truth: GroundTruth | None) -> list[TrainingTask]:
    """`_main`, by the ranker in torch."""
    parts = _raw(material)
    if truth is not None:
        parts[CEILING] = [material.base, truth.features]
    return [_attending("main", name, material, plan, each) for name, each in parts.items()]


def _ladder(material: PreparedFeatures) -> list[TrainingTask]:
    """Each group added to the baseline, and taken from all."""
    of = material.binned_groups
    parts = {BASE: [material.binned_base], ALL: material.everything}
    parts |= {name: [material.binned_base, group] for name, group in of.items()}
    for name in of:
        parts[WITHOUT + name] = [material.binned_base, *(group for other, group in of.items() if other != name)]
    fit = partial(lightgbm_ranker.fit, rows=material.split.ladder)
    return [(1, partial(_once, ("ladder", name, 0), fit, each, [0])) for name, each in parts.items()]


def _curve(material: PreparedFeatures) -> list[TrainingTask]:
    """The baseline and all features on shares of the rows before the test."""
    pieces: list[TrainingTask] = []
    for share in CURVE_SHARES:
        fit = partial(lightgbm_ranker.fit, rows=np.arange(0, int(material.split.train.sum()), round(1 / share)))
        for name, parts in ((BASE, [material.binned_base]), (ALL, material.everything)):
            pieces.append((1, partial(_once, ("curve", f"{share} {name}", 0), fit, parts, [0])))
    return pieces


def _once(
    key: RankerKey,
    fit: Callable[[Sequence[Any], Sequence[int]], TrainedRanker],
    parts: Sequence[Any],
    seeds: Sequence[int],
) -> Iterator[tuple[RankerKey, TrainedRanker]]:
    yield key, fit(parts, seeds)


def _raw(material: PreparedFeatures) -> dict[str, list[lightgbm_ranker.Features]]:
    """The features of the baseline and of all, as a ranker takes them that has no use for bins."""
    return {BASE: [material.base], ALL: [material.base, *material.groups.values()]}


def _attending(
    section: str, name: str, material: PreparedFeatures, plan: TrainingPlan, parts: Sequence[lightgbm_ranker.Features]
) -> TrainingTask:
    fit = partial(_attend, material, plan.din_rows)
    return plan.seeds, partial(_once, (section, name, 0), fit, parts, range(plan.seeds))


def _attend(
    material: PreparedFeatures, most: int, parts: Sequence[lightgbm_ranker.Features], seeds: Sequence[int]
) -> TrainedRanker:
    """A DIN trained on a sample of the rows before the test, in the form of the trees; NaN on the validation days."""
    from consumers.ranking import din_ranker  # torch takes seconds to import, and is asked for by an option

    split = material.split
    train = np.flatnonzero(split.train)
    if len(train) > most:
        train = np.sort(np.random.default_rng(0).choice(train, most, replace=False))
    features = {name: values for part in parts for name, values in part.items()}
    scores = np.full((len(seeds), len(split.validation)), np.nan)
    scores[:, ~split.validation] = din_ranker.fit_and_score(
        material.data, features, train, np.flatnonzero(split.test), seeds
    )
    return TrainedRanker(scores, {})


def _worked_off(
    pieces: Sequence[TrainingTask], progress: Callable[[str, int, int], None]
) -> dict[RankerKey, TrainedRanker]:
    """Do everything; the longest come first, so that no core waits for one at the end."""
    total = sum(fits for fits, _ in pieces)
    found: dict[RankerKey, TrainedRanker] = {}
    done = 0

    def do(piece: TrainingTask) -> None:
        nonlocal done
        for key, made in piece[1]():
            found[key] = made
            done += len(made.scores)
            progress(key[1], done, total)

    list(map_on_all_cores(do, sorted(pieces, key=lambda piece: -piece[0])))
    return found


def _section(found: Mapping[RankerKey, TrainedRanker], section: str) -> dict[str, Floats]:
    """The scores of all seeds and permutations of each ranker of a section [m, judged rows]."""
    keys = [key for key in sorted(found) if key[0] == section]
    return {
        name: np.concatenate([found[key].scores for key in keys if key[1] == name])
        for name in dict.fromkeys(key[1] for key in keys)
    }
