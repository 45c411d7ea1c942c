"""One measurement from end to end: the log read, joined and split, rankers trained, differences drawn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from consumers.ranking import proxies, verdict
from consumers.ranking.ablation import RankerScores, train_rankers
from consumers.ranking.baseline_features import compute_baseline, list_unused_columns
from consumers.ranking.bootstrap import (
    BootstrapWeights,
    DelongInterval,
    average_rankers,
    draw_weights,
    percentile_interval,
)
from consumers.ranking.content_features import compute_groups, fit_projection
from consumers.ranking.costs import GroupCost, combine_costs, measure_fetch_costs
from consumers.ranking.export import PARQUET, check_export, export_training_set
from consumers.ranking.ground_truth import GroundTruth, read_ground_truth
from consumers.ranking.leakage import check_log
from consumers.ranking.lift import Comparison, compare_groups, compare_rankers, delong_of
from consumers.ranking.plan import ALL, BASE, DIN, LIGHTGBM, TrainingPlan
from consumers.ranking.slices import slice_test_rows
from consumers.ranking.splits import find_test_start, find_validation_start, split_rows
from consumers.ranking.training_set import TrainingSet, check_encoder_version, join_views
from consumers.ranking.verdict import Verdict
from consumers.tagging.report import evaluate_tags
from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.offline import delta, quarantine
from feature_repo.offline.input_files import read_impressions
from feature_repo.schema import IMPRESSION_ID, PRODUCT_ID

STEP = "lift"
UNMATCHED = "no feature view had anything for its product at that time; row kept"


@dataclass(frozen=True)
class LearningCurvePoint:
    """One point of the learning curve."""

    rows: int
    base: float
    with_features: float
    lift: float
    ci95_two_way: tuple[float, float]


@dataclass(frozen=True)
class AucStep:
    """One step on the way from the baseline to the oracle, in AUC."""

    name: str
    auc: float


@dataclass(frozen=True)
class LiftResult:
    """Everything that the report says of one measurement."""

    comparisons: Sequence[Comparison]
    scores: RankerScores
    clicked: NDArray[np.integer]
    """0/1 of the test rows [test rows]."""
    user: NDArray[np.integer]
    """Users of the test rows [test rows]."""
    validation: np.datetime64
    split: np.datetime64
    rows: Mapping[str, int]
    """train, test, validation, ladder, unmatched and refused: what went in, and what did not."""
    replicates: int
    encoder: str | None
    verdicts: Mapping[str, Verdict]
    headroom: Sequence[AucStep]
    curve: Sequence[LearningCurvePoint]
    delong: DelongInterval
    costs: Sequence[GroupCost] = ()
    unused: Sequence[str] = ()
    """Context columns of the log that no ranker saw, each with its type."""
    sections: Mapping[str, object] = field(default_factory=dict)
    """What other programs get beside the comparisons."""

    @property
    def _of_groups(self) -> set[str]:
        return {c.name for c in self.comparisons if c.name.split(" over ")[0].split(", ")[0] in self.verdicts}

    def find(self, name: str, part: str = "all", metric: str = "auc", *, days: str = "test") -> Comparison | None:
        """One comparison of the main kind of ranker (of the trees for single groups), or None where it was not made."""
        wanted = (name, part, metric, days)
        return next(
            (
                c
                for c in self.comparisons
                if (c.name, c.slice, c.metric, c.days) == wanted
                and (c.model in (self.scores.model, "truth") or c.name in self._of_groups)
            ),
            None,
        )


def measure_lift(
    settings: Settings,
    impressions: Path,
    *,
    service: str,
    truth: Path | None,
    test_days: float | None,
    plan: TrainingPlan,
    replicates: int,
    now: datetime,
    timings: Sequence[tuple[str, float]] = (),
    progress: Callable[[str, int, int], None],
) -> LiftResult:
    """Measure what a feature service is worth to a ranker of `impressions`.

    Every impression is trained on, tested on, or in `Run.rows` and the quarantine with its reason.

    Args:
        settings: the deployment.
        impressions: file of schema.IMPRESSIONS and context columns.
        service: name of the Feast feature service.
        truth: a generated shop's truth folder, for the attainable and the oracle.
        test_days: as in `split_time`.
        plan: how much is trained.
        replicates: of the bootstrap.
        now: later impressions are refused.
        timings: (step, seconds) of the steps that led here, for what a group costs.
        progress: told of every ranker trained.
    """
    data, counted = read_and_join(settings, impressions, service, now)
    check_log(data, str(impressions))
    known = read_ground_truth(truth, data) if truth else None
    run = measure_joined_lift(
        data, known, test_days=test_days, plan=plan, replicates=replicates, counted=counted, progress=progress
    )
    shown = pc.unique(data.impressions.column(PRODUCT_ID)).to_pylist()
    lift = run.find(ALL)
    assert lift is not None
    sections: dict[str, object] = {}
    if run.encoder is not None and schema.EMBEDDING_TABLE in data.views:
        test = data.time >= run.split.astype(np.int64)
        sections["proxies"] = {
            "encoder": run.encoder,
            "next_click_hit_rate": proxies.next_click_hit_rate(data, test),
            "same_product_recall": proxies.same_product_recall(data, known) if known else float("nan"),
            "tag_f1": _tag_f1(settings),
            "lift": lift.lift,
            "ci95": list(lift.ci95),
        }
    found = combine_costs(list(run.verdicts), measure_fetch_costs(settings, shown), timings)
    return replace(run, costs=found, sections=sections)


def _tag_f1(settings: Settings) -> float:
    """Mean macro F1 of the tags on held-out products; NaN where no tagger was judged."""
    if not delta.exists(settings.table(schema.TAG_PREDICTIONS_TABLE)):
        return float("nan")
    judged = evaluate_tags(settings, replicates=2, seed=0)
    return float(np.mean([tag.variants[0].macro_f1.value for tag in judged.tags]))


def read_and_join(
    settings: Settings, impressions: Path, service: str, now: datetime
) -> tuple[TrainingSet, dict[str, int]]:
    """A log joined with a feature service, and how many rows were refused or have no feature, each quarantined."""
    log = read_impressions(impressions, now=now)
    data = join_views(settings, service, log.table)
    unmatched = _unmatched(data)
    quarantine.add(settings, STEP, [*log.refused, *log.notes, *unmatched], now)
    return data, {"unmatched": len(unmatched), "refused": len(log.refused)}


def join_and_export(
    settings: Settings,
    impressions: Path,
    out: Path,
    *,
    service: str,
    test_days: float | None,
    formats: Sequence[str],
    now: datetime,
    progress: Callable[[str], None],
) -> dict[str, int]:
    """Join a log and write it as a training set; arguments are `measure`'s and `export`'s."""
    check_export(out, formats)
    data, _ = read_and_join(settings, impressions, service, now)
    check_log(data, str(impressions))
    start = find_test_start(data, test_days)
    middle = find_validation_start(data, start)
    part = np.where(data.time < middle, "train", np.where(data.time < start, "validation", "test"))
    features = dict(compute_baseline(data))
    embedding = data.views.get(schema.EMBEDDING_TABLE)
    if set(formats) != {PARQUET}:
        for group in compute_groups(data, fit_projection(embedding, start) if embedding is not None else None).values():
            features |= group
    return export_training_set(data, part, features, out, formats, progress)


def measure_joined_lift(
    data: TrainingSet,
    truth: GroundTruth | None,
    *,
    test_days: float | None,
    plan: TrainingPlan,
    replicates: int,
    counted: Mapping[str, int],
    progress: Callable[[str, int, int], None],
) -> LiftResult:
    """`measure` of a log that is joined already; `counted` are the rows that were not as they should be."""
    start = find_test_start(data, test_days)
    middle = find_validation_start(data, start)
    split = split_rows(data, middle, start, plan.ladder_rows)
    scores = train_rankers(data, split, start, plan, truth, progress)
    judged = split.judged
    on_test, on_validation = (draw_weights(data, rows, replicates, 0) for rows in (split.test, judged & split.train))
    parts = slice_test_rows(data, split.test)
    comparisons = compare_rankers(scores.main, on_test, parts, seed=0, model=scores.model)
    if scores.beside:
        comparisons += compare_rankers(scores.beside, on_test, {}, seed=0, model=DIN)
    added, _ = compare_groups(scores, on_test, ~split.validation, seed=0, days="test")
    decided, evidence = compare_groups(scores, on_validation, split.validation, seed=0, days="validation")
    return LiftResult(
        comparisons=[*added, *comparisons, *decided],
        scores=scores,
        clicked=on_test.clicked,
        user=data.user[split.test],
        validation=np.datetime64(middle, "us"),
        split=np.datetime64(start, "us"),
        rows={
            "train": int(split.train.sum()),
            "test": int(split.test.sum()),
            "validation": int(split.validation.sum()),
            "ladder": len(split.ladder),
            **counted,
        },
        replicates=replicates,
        encoder=check_encoder_version(data),
        verdicts=verdict.decide_verdicts(evidence),
        headroom=_headroom(scores, on_test, split.validation),
        curve=_curve(scores, on_test, int(split.train.sum())),
        delong=delong_of(scores.main, on_test.clicked),
        unused=list_unused_columns(data),
    )


def _headroom(scores: RankerScores, drawn: BootstrapWeights, validation: NDArray[np.bool_]) -> list[AucStep]:
    """From the baseline to the oracle on the test, where there is a truth: the ladder's rankers, then the main ones."""
    if not scores.headroom:
        return []
    steps = {"baseline": scores.ladder[BASE], ALL: scores.ladder[ALL], **scores.headroom}
    on_test = {name: each[:, ~validation] for name, each in steps.items()}
    on_test |= {name: scores.main[name] for name in ("attainable", "oracle")}
    once = drawn.once()
    return [AucStep(name, float(once.measure("auc", each)[:, 0].mean())) for name, each in on_test.items()]


def _curve(scores: RankerScores, drawn: BootstrapWeights, rows: int) -> list[LearningCurvePoint]:
    points = []
    pairs = dict(scores.curve)
    if scores.model == LIGHTGBM:
        pairs[1.0] = scores.main[BASE], scores.main[ALL]
    for share, (base, with_features) in pairs.items():
        before, after = drawn.two_way(base), drawn.two_way(with_features)
        lift = average_rankers(after - before, 0)
        low, high = (float(each[:, 0].mean()) for each in (before, after))
        points.append(LearningCurvePoint(round(share * rows), low, high, float(lift[0]), percentile_interval(lift)))
    return points


def _unmatched(data: TrainingSet) -> list[quarantine.RejectedRow]:
    """Impressions that no view had anything for: kept, with every feature missing, and named."""
    of_products = [view.row < 0 for name, view in data.views.items() if name != schema.INTEREST_TABLE]
    shown = data.impressions.filter(pa.array(np.all(of_products, axis=0))).select([IMPRESSION_ID, PRODUCT_ID])
    return [
        quarantine.RejectedRow(row[IMPRESSION_ID], PRODUCT_ID, UNMATCHED, row[PRODUCT_ID]) for row in shown.to_pylist()
    ]
