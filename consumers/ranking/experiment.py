"""Every ranker that a measurement trains, on as few sorted bins and as few cores as will do.

    main      the baseline, all features, the placebo, the attainable: trained on everything before the test
    ladder    each group added to the baseline, taken from all, and added with swapped content: trained on a sample of
              the rows before the validation days, for verdicts are taken on those
    headroom  all features with one input after another replaced by the truth, beside the ladder
    curve     the baseline and all features on shares of the rows before the test

A ladder of one order would give the credit to whoever comes first; added and removed are both shown.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consumers.ranking import headroom, rankers
from consumers.ranking.leaks import every_leak, refuse_leaks
from consumers.ranking.multimodal import Group, feature_groups, fit_projection
from consumers.ranking.placebo import with_swapped_content
from consumers.ranking.rankers import Binned, Fit
from consumers.ranking.tabular import names_of_context, tabular_features
from consumers.ranking.training_set import TrainingSet
from consumers.ranking.truth import Truth
from feature_repo.errors import VitrineError

Floats = NDArray[np.float64]
Key = tuple[str, str, int]
"""Section, ranker, and which of its seeds or permutations."""

BASE = "tabular"
ALL = "all features"
PLACEBO = "placebo"
ATTAINABLE = "attainable"
WITHOUT = "all but "
SWAPPED = "placebo "
LIGHTGBM, DIN, BOTH = "lightgbm", "din", "both"
RANKERS = (LIGHTGBM, DIN, BOTH)
CURVE = (0.1, 0.3)
"""Shares of the rows before the test, beside all of them."""


@dataclass(frozen=True)
class Plan:
    """How much is trained."""

    seeds: int = 5
    """Of the main rankers."""
    permutations: int = 20
    """Of the placebo."""
    ladder_rows: int = 250_000
    """At most, of the rows that the ladder is trained on."""
    ranker: str = "lightgbm"
    """What the main rankers are: lightgbm, din, or both, which has din's baseline and all features beside."""
    din_rows: int = 200_000
    """At most, of the rows that a DIN is trained on."""


@dataclass(frozen=True)
class Split:
    """Which rows of the log [n] do what."""

    train: NDArray[np.bool_]
    """Before the test [n]."""
    judged: NDArray[np.bool_]
    """Validation and test [n]."""
    validation: NDArray[np.bool_]
    """[judged]; the others are the test."""
    ladder: NDArray[np.int64]
    """Which of the train rows the ladder is trained on, all before the validation."""

    @property
    def test(self) -> NDArray[np.bool_]:
        """[n]."""
        return ~self.train


def split_rows(data: TrainingSet, validation: int, start: int, ladder_rows: int) -> Split:
    """Part a log at two moments (microseconds)."""
    time = data.time
    judged = time >= validation
    early = np.flatnonzero(time[time < start] < validation)
    chance = np.random.default_rng(0)
    sample = early if len(early) <= ladder_rows else np.sort(chance.choice(early, ladder_rows, replace=False))
    return Split(time < start, judged, (time < start)[judged], sample)


@dataclass(frozen=True)
class Scores:
    """What every ranker said; each entry holds one row a seed or a permutation."""

    model: str
    """What the main rankers are."""
    main: Mapping[str, Floats]
    """Click probabilities [m, test rows]."""
    beside: Mapping[str, Floats]
    """Of the other kind of ranker, the baseline and all features, if both were trained [m, test rows]."""
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


def score_all(
    data: TrainingSet,
    split: Split,
    start: int,
    plan: Plan,
    truth: Truth | None,
    progress: Callable[[str, int, int], None],
) -> Scores:
    """Train every ranker.

    Args:
        data: the joined log.
        split: its rows.
        start: first microsecond of the test.
        plan: how much.
        truth: adds the attainable, the oracle and the headroom.
        progress: told of each ranker trained: its name, how many are done, how many there will be.
    """
    if plan.ranker not in RANKERS:
        raise VitrineError(f"no ranker `{plan.ranker}`; there are: {', '.join(RANKERS)}")
    attend = partial(_attend, data, split, plan.din_rows)
    base = tabular_features(data)
    embedding = data.views.get("product_embedding")
    projection = fit_projection(embedding, start) if embedding is not None else None
    groups = feature_groups(data, projection)
    if not groups:
        raise VitrineError("the feature service has neither product_embedding nor product_tags; nothing to compare")
    refuse_leaks(every_leak(data, {BASE: base, **groups}, names_of_context(data)))
    sort = partial(rankers.binned, clicked=data.clicked, train=split.train, judged=split.judged)
    sorted_base, sorted_groups = sort(base), {name: sort(group) for name, group in groups.items()}
    work: list[tuple[int, Callable[[], Iterator[tuple[Key, Fit]]]]] = []
    if embedding is not None:

        def swapped(number: int) -> Iterator[tuple[Key, Fit]]:
            made = feature_groups(with_swapped_content(data, start, number), projection)
            theirs = {name: sort(group) for name, group in made.items()}
            seeds = [number % plan.seeds]
            if plan.ranker == DIN:
                yield ("main", PLACEBO, number), attend([base, *made.values()], seeds)
            else:
                yield ("main", PLACEBO, number), rankers.fit([sorted_base, *theirs.values()], seeds)
            for name, group in theirs.items():
                yield ("ladder", SWAPPED + name, number), rankers.fit([sorted_base, group], [0], split.ladder)

        work += [(1 + len(groups), partial(swapped, number)) for number in range(plan.permutations)]
    if truth is not None:
        replaced = partial(headroom.steps, data, truth, groups, start)
        work.append((len(headroom.STEPS), partial(_headroom, replaced, sorted_base, sort, split)))
    everything = [sorted_base, *sorted_groups.values()]
    seeds = range(plan.seeds)
    if plan.ranker == DIN:
        raw = {BASE: [base], ALL: [base, *groups.values()]}
        raw |= {ATTAINABLE: [base, truth.features]} if truth is not None else {}
        work += [(plan.seeds, partial(_once, ("main", name, 0), attend, parts, seeds)) for name, parts in raw.items()]
    else:
        main_parts = {BASE: [sorted_base], ALL: everything}
        main_parts |= {ATTAINABLE: [sorted_base, sort(truth.features)]} if truth is not None else {}
        for name, parts in main_parts.items():
            work.append((plan.seeds, partial(_once, ("main", name, 0), rankers.fit, parts, seeds)))
    if plan.ranker == BOTH:
        for name, groups_seen in ((BASE, [base]), (ALL, [base, *groups.values()])):
            work.append((plan.seeds, partial(_once, ("beside", name, 0), attend, groups_seen, seeds)))
    ladder = {BASE: [sorted_base], ALL: everything}
    for name, group in sorted_groups.items():
        ladder[name] = [sorted_base, group]
        others = [other for of, other in sorted_groups.items() if of != name]
        ladder[WITHOUT + name] = [sorted_base, *others]
    fit = partial(rankers.fit, rows=split.ladder)
    work += [(1, partial(_once, ("ladder", name, 0), fit, parts, [0])) for name, parts in ladder.items()]
    for share in CURVE:
        fit = partial(rankers.fit, rows=np.arange(0, int(split.train.sum()), round(1 / share)))
        for name, parts in ((BASE, [sorted_base]), (ALL, everything)):
            work.append((1, partial(_once, ("curve", f"{share} {name}", 0), fit, parts, [0])))
    found = _worked_off(work, progress)
    test_of_judged = ~split.validation
    gain = found["ladder" if plan.ranker == DIN else "main", ALL, 0].gain
    owner = dict.fromkeys(base, BASE) | {f: name for name, group in groups.items() for f in group}
    curve = {
        share: tuple(_stack(found, "curve", f"{share} {name}")[:, test_of_judged] for name in (BASE, ALL))
        for share in CURVE
    }
    main = {name: _stack(found, "main", name)[:, test_of_judged] for name in _names(found, "main")}
    if truth is not None:
        main["oracle"] = truth.click_probability[split.test][None]
    return Scores(
        model=DIN if plan.ranker == DIN else LIGHTGBM,
        main=main,
        beside={name: _stack(found, "beside", name)[:, test_of_judged] for name in _names(found, "beside")},
        ladder={name: _stack(found, "ladder", name) for name in _names(found, "ladder")},
        headroom={name: _stack(found, "headroom", name) for name in headroom.STEPS if truth is not None},
        curve=curve,  # type: ignore[arg-type]
        gain=gain,
        features={BASE: len(base), **{name: len(group) for name, group in groups.items()}},
        group_of=owner,
    )


def _worked_off(
    work: Sequence[tuple[int, Callable[[], Iterator[tuple[Key, Fit]]]]], progress: Callable[[str, int, int], None]
) -> dict[Key, Fit]:
    """Do everything, a piece a core with one thread each.

    On a busy machine, threads that wait for each other at every split of a tree cost many times what they save.
    LightGBM works outside Python's lock. The longest come first, so that no core waits for one at the end.
    """
    total = sum(fits for fits, _ in work)
    found: dict[Key, Fit] = {}
    done = 0

    def do(piece: Callable[[], Iterator[tuple[Key, Fit]]]) -> None:
        nonlocal done
        for key, made in piece():
            found[key] = made
            done += len(made.scores)
            progress(key[1], done, total)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(do, [piece for _, piece in sorted(work, key=lambda item: -item[0])]))
    return found


def _once(
    key: Key, fit: Callable[[Sequence[Any], Sequence[int]], Fit], parts: Sequence[Any], seeds: Sequence[int]
) -> Iterator[tuple[Key, Fit]]:
    yield key, fit(parts, seeds)


def _attend(data: TrainingSet, split: Split, most: int, parts: Sequence[rankers.Features], seeds: Sequence[int]) -> Fit:
    """A DIN trained on a sample of the rows before the test, in the form of the trees; NaN on the validation days."""
    from consumers.ranking import din  # torch takes seconds to import, and is asked for by an option

    train = np.flatnonzero(split.train)
    if len(train) > most:
        train = np.sort(np.random.default_rng(0).choice(train, most, replace=False))
    features = {name: values for part in parts for name, values in part.items()}
    scores = np.full((len(seeds), len(split.validation)), np.nan)
    scores[:, ~split.validation] = din.fit_and_score(data, features, train, np.flatnonzero(split.test), seeds)
    return Fit(scores, {})


def _headroom(
    replaced: Callable[[], Iterator[tuple[str, list[Group]]]],
    base: Binned,
    sort: Callable[[rankers.Features], Binned],
    split: Split,
) -> Iterator[tuple[Key, Fit]]:
    for name, groups in replaced():
        yield ("headroom", name, 0), rankers.fit([base, *map(sort, groups)], [0], split.ladder)


def _names(found: Mapping[Key, Fit], section: str) -> list[str]:
    return list(dict.fromkeys(name for of, name, _ in sorted(found) if of == section))


def _stack(found: Mapping[Key, Fit], section: str, name: str) -> Floats:
    """The scores of all seeds and permutations of one ranker [m, judged rows]."""
    return np.concatenate([found[key].scores for key in sorted(found) if key[:2] == (section, name)])
