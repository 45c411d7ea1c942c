"""One measurement from the log to the result: read, join, split, train, compare."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from consumers.ranking import proxies, verdict
from consumers.ranking.ablation import Progress, RankerScores, train_rankers
from consumers.ranking.baseline_features import compute_baseline, list_unused_columns, map_context_columns
from consumers.ranking.bootstrap import (
    BootstrapWeights,
    average_rankers,
    delong_interval,
    draw_weights,
    percentile_interval,
)
from consumers.ranking.content_features import compute_groups, fit_projection
from consumers.ranking.costs import combine_costs, measure_fetch_costs
from consumers.ranking.export import check_export, export_training_set
from consumers.ranking.ground_truth import GroundTruth, read_ground_truth
from consumers.ranking.joined_log import read_and_join
from consumers.ranking.leakage import check_log
from consumers.ranking.lift import compare_groups, compare_groups_by_slice, compare_rankers
from consumers.ranking.plan import ALL, BASE, DIN, LIGHTGBM, TrainingPlan
from consumers.ranking.result import AucStep, LearningCurvePoint, LiftResult
from consumers.ranking.slices import slice_test_rows
from consumers.ranking.splits import find_test_start, find_validation_start, split_rows
from consumers.ranking.training_set import RankingTrainingSet, check_encoder_version
from consumers.tagging.report import evaluate_tags
from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.offline import delta, training_products
from feature_repo.schema import PRODUCT_ID
from feature_repo.table_format import DEFAULT_FORMAT, TableFormat


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
    progress: Progress,
    table_format: TableFormat = DEFAULT_FORMAT,
    max_lost_share: float = 1.0,
) -> LiftResult:
    """Measure what a feature service is worth to a ranker: read and join a log, train rankers and compare them.

    Every impression is a training or a test row, or is counted in `LiftResult.rows` as refused and is in the quarantine
    with its reason. Nothing but the quarantine is written.

    Args:
        settings: the deployment.
        impressions: file with the columns of `schema.IMPRESSIONS` and any context columns.
        service: name of the Feast feature service.
        truth: truth folder of a generated shop; adds the ceiling and the oracle. None leaves them out.
        test_days: length of the test in days, counted back from the end of the log's last day (UTC). None takes the
            last sixth of the rows, or more if that has only clicked or only unclicked rows.
        plan: how much to train.
        replicates: number of bootstrap draws.
        now: time of the measurement, with a time zone; later impressions are refused.
        timings: (step, seconds) of the steps before, for the build time of each group.
        progress: called after each trained ranker with its name, the number of models trained and the number of all;
            calls come from several threads.
        table_format: what the user says about the log.
        max_lost_share: the largest share of the log's rows that may be refused because of one column.

    Returns:
        The result with costs, and with proxies if vectors of a known encoder were joined.

    Raises:
        NotFoundError: the log, the feature service or a file of the truth does not exist.
        InvalidInputError: the log or the truth is unusable, the log cannot be split, `plan.ranker` is unknown, no group
            of features can be computed, or a feature leaks.
        EncoderMismatchError: the joined views hold vectors of several encoder versions.
        UnavailableError: the online store does not answer.
    """
    data, counts = read_and_join(
        settings, impressions, service, now, table_format=table_format, max_lost_share=max_lost_share
    )
    check_log(data, str(impressions))
    known_truth = read_ground_truth(truth, data) if truth else None
    result = measure_joined_lift(
        data, known_truth, test_days=test_days, plan=plan, replicates=replicates, counts=counts, progress=progress
    )
    shown = pc.unique(data.impressions.column(PRODUCT_ID)).to_pylist()
    lift = result.find(ALL)
    assert lift is not None
    sections: dict[str, object] = {}
    if result.encoder is not None and schema.EMBEDDING_TABLE in data.views:
        test = data.timestamp_us >= result.split.astype(np.int64)
        sections["proxies"] = {
            "encoder": result.encoder,
            "next_click_hit_rate": proxies.next_click_hit_rate(data, test),
            "same_product_recall": proxies.same_product_recall(data, known_truth) if known_truth else float("nan"),
            "tag_f1": _tag_f1(settings),
            **_measure_unseen(settings, data, test, result.encoder, known_truth),
            "lift": lift.lift,
            "ci95": list(lift.ci95),
        }
    costs = combine_costs(list(result.verdicts), measure_fetch_costs(settings, shown), timings)
    return replace(result, costs=costs, sections=sections)


def _measure_unseen(
    settings: Settings, data: RankingTrainingSet, test: NDArray[np.bool_], encoder: str, truth: GroundTruth | None
) -> dict[str, float]:
    """The proxies over products that the encoder was not trained on; NaN if there are none or it is not known."""
    trained = training_products.read(settings, encoder)
    rows = np.zeros(len(test), bool) if trained is None else proxies.find_unseen(data, trained)
    recall = proxies.same_product_recall(data, truth, rows) if truth else float("nan")
    return {
        f"next_click_hit_rate{proxies.UNSEEN}": proxies.next_click_hit_rate(data, test & rows),
        f"same_product_recall{proxies.UNSEEN}": recall,
    }


def _tag_f1(settings: Settings) -> float:
    """Mean macro F1 of the tags on held-out products; NaN where no tagger was trained."""
    if not delta.exists(settings.table(schema.TAG_PREDICTIONS_TABLE)):
        return float("nan")
    quality = evaluate_tags(settings, replicates=2, seed=0)
    return float(np.mean([tag.variants[0].macro_f1.value for tag in quality.tags]))


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
    created_before: datetime | None = None,
    table_format: TableFormat = DEFAULT_FORMAT,
    max_lost_share: float = 1.0,
) -> dict[str, int]:
    """Read a log, join it with a feature service, and write it as a training set.

    Features that leak are not looked for. Refused and unmatched rows go to the quarantine.

    Args:
        settings: the deployment.
        impressions: file with the columns of `schema.IMPRESSIONS` and any context columns.
        out: folder to write; an earlier export there is replaced.
        service: name of the Feast feature service.
        test_days: length of the test in days, counted back from the end of the log's last day (UTC). None takes the
            last sixth of the rows, or more if that has only clicked or only unclicked rows.
        formats: some of `export.FORMATS`; at least one.
        now: time of the export, with a time zone; later impressions are refused.
        progress: called with the name of each part before it is written.
        created_before: only feature rows that were created before this time are joined, which gives the export that was
            made then again; None joins all.
        table_format: what the user says about the log.
        max_lost_share: the largest share of the log's rows that may be refused because of one column.

    Returns:
        File, relative to `out`, to its size in bytes, sorted by path.

    Raises:
        UsageError: no format is given, or one is not in `export.FORMATS`.
        NotFoundError: there is no such log or no such feature service.
        InvalidInputError: `out` holds something other than an export, or the log is unusable or cannot be split.
        EncoderMismatchError: the joined views hold vectors of several encoder versions.
    """
    check_export(out, formats)
    data, _ = read_and_join(
        settings,
        impressions,
        service,
        now,
        created_before=created_before,
        table_format=table_format,
        max_lost_share=max_lost_share,
    )
    check_log(data, str(impressions))
    test_start = find_test_start(data, test_days)
    validation_start = find_validation_start(data, test_start)
    time = data.timestamp_us
    part = np.where(time < validation_start, "train", np.where(time < test_start, "validation", "test"))
    features = dict(compute_baseline(data))
    embedding = data.views.get(schema.EMBEDDING_TABLE)
    projection = fit_projection(embedding, test_start) if embedding is not None else None
    for group in compute_groups(data, projection).values():
        features |= group
    return export_training_set(data, part, features, out, formats, progress)


def measure_joined_lift(
    data: RankingTrainingSet,
    truth: GroundTruth | None,
    *,
    test_days: float | None,
    plan: TrainingPlan,
    replicates: int,
    counts: Mapping[str, int],
    progress: Progress,
) -> LiftResult:
    """Measure the lift of a joined log. Costs and proxies, which need the deployment, are left out.

    Args:
        data: the joined log.
        truth: its truth; None leaves out the ceiling and the oracle.
        test_days: length of the test in days, counted back from the end of the log's last day (UTC). None takes the
            last sixth of the rows, or more if that has only clicked or only unclicked rows.
        plan: how much to train.
        replicates: number of bootstrap draws.
        counts: numbers of `unmatched` and `refused` rows; they are added to `LiftResult.rows`.
        progress: called after each trained ranker with its name, the number of models trained and the number of all;
            calls come from several threads.

    Returns:
        The result; its costs and sections are empty.

    Raises:
        InvalidInputError: the log cannot be split, `plan.ranker` is unknown, no group of features can be computed, or a
            feature leaks.
        EncoderMismatchError: the joined views hold vectors of several encoder versions.
    """
    test_start = find_test_start(data, test_days)
    validation_start = find_validation_start(data, test_start)
    split = split_rows(data, validation_start, test_start, plan.ablation_rows)
    scores = train_rankers(data, split, test_start, plan, truth, progress)
    on_test, on_validation = (
        draw_weights(data, rows, replicates, 0) for rows in (split.test, split.scored & split.train)
    )
    slices = slice_test_rows(data, split.test)
    comparisons = compare_rankers(scores.main, on_test, slices, seed=0, model=scores.model)
    if scores.secondary:
        comparisons += compare_rankers(scores.secondary, on_test, {}, seed=0, model=DIN)
    test_groups, _ = compare_groups(scores, on_test, ~split.validation, seed=0, days="test")
    validation_groups, evidence = compare_groups(scores, on_validation, split.validation, seed=0, days="validation")
    return LiftResult(
        comparisons=[*test_groups, *comparisons, *validation_groups],
        group_slices=compare_groups_by_slice(scores, on_test, ~split.validation, slices, seed=0),
        scores=scores,
        clicked=on_test.clicked,
        user=data.user[split.test],
        validation=np.datetime64(validation_start, "us"),
        split=np.datetime64(test_start, "us"),
        rows={
            "train": int(split.train.sum()),
            "test": int(split.test.sum()),
            "validation": int(split.validation.sum()),
            "validation_clicks": int(on_validation.clicked.sum()),
            "ladder": len(split.ablation),
            **counts,
        },
        replicates=replicates,
        encoder=check_encoder_version(data),
        verdicts=verdict.decide_verdicts(evidence),
        headroom=_headroom(scores, on_test, split.validation),
        curve=_learning_curve(scores, on_test, int(split.train.sum())),
        delong=delong_interval(scores.main[BASE][0], scores.main[ALL][0], on_test.clicked),
        unused=list_unused_columns(data),
        context=map_context_columns(data),
    )


def _headroom(scores: RankerScores, weights: BootstrapWeights, validation: NDArray[np.bool_]) -> list[AucStep]:
    """AUC on the test from the baseline to the oracle, empty without truth. All rankers are trained on the same rows.

    Args:
        scores: scores of every ranker.
        weights: bootstrap weights of the test rows.
        validation: mask of the validation rows [scored rows].
    """
    if not scores.oracle:
        return []
    steps = {"baseline": scores.ablation[BASE], ALL: scores.ablation[ALL], **scores.oracle}
    on_test = {name: each[:, ~validation] for name, each in steps.items()}
    on_test["oracle"] = scores.main["oracle"]  # the true probabilities: nothing is trained
    auc, gauc = (
        {name: _mean_metric(weights, metric, each) for name, each in on_test.items()} for metric in ("auc", "gauc")
    )
    return [AucStep(name, auc[name], gauc[name]) for name in on_test]


def _mean_metric(weights: BootstrapWeights, metric: str, scores: NDArray[np.float64]) -> float:
    """A metric of the test rows [m, test rows], averaged over the m rankers, without any draw."""
    return float(weights.without_replicates().compute_metric(metric, scores)[:, 0].mean())


def _learning_curve(scores: RankerScores, weights: BootstrapWeights, rows: int) -> list[LearningCurvePoint]:
    """The points of the learning curve in ascending number of rows; `rows` is the number of all training rows."""
    points = []
    pairs = dict(scores.curve)
    if scores.model == LIGHTGBM:
        pairs[1.0] = scores.main[BASE], scores.main[ALL]
    for share, (base, with_features) in pairs.items():
        before, after = weights.compute_two_way_auc(base), weights.compute_two_way_auc(with_features)
        lift = average_rankers(after - before, 0)
        low, high = (float(each[:, 0].mean()) for each in (before, after))
        gauc_lift = _mean_metric(weights, "gauc", with_features) - _mean_metric(weights, "gauc", base)
        interval = percentile_interval(lift)
        points.append(LearningCurvePoint(round(share * rows), low, high, float(lift[0]), interval, gauc_lift))
    return points
