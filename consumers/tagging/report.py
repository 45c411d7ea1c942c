"""How good each tag is, beside what simpler inputs give: from table `tag_predictions`, the test split alone."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from consumers.tagging import metrics
from consumers.tagging.metrics import Ints, TagPredictions
from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import VitrineError
from feature_repo.offline import delta
from feature_repo.schema import CREATED_TIMESTAMP, PRODUCT_ID, TAG_VARIANTS, TAGS

THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9)
TAGGER, RIVALS = TAG_VARIANTS[0], ("bag of words", "text tower")
CHANCE_DRAWS = 100
KEY = [PRODUCT_ID, "tag", "variant"]


@dataclass(frozen=True)
class Estimate:
    """A metric with its 95% interval by bootstrap over groups; NaN where it is undefined.

    The percentile interval (Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13).
    """

    value: float
    ci95: tuple[float, float]


@dataclass(frozen=True)
class ThresholdMetrics:
    """What is left when labels less probable than `threshold` are withheld."""

    threshold: float
    coverage: Estimate
    accuracy: Estimate


@dataclass(frozen=True)
class VariantReport:
    """How good one variant is at one tag."""

    variant: str
    accuracy: Estimate
    macro_f1: Estimate
    calibration_error: Estimate
    """Its interval is for what so many products show on average, so compare it with the next figure."""
    calibration_error_by_chance: float
    """What perfectly calibrated probabilities would show on these products."""
    brier: Estimate
    thresholds: list[ThresholdMetrics]


@dataclass(frozen=True)
class TagReport:
    """How good the variants are at one tag, on the same products."""

    tag: str
    products: int
    groups: int
    variants: list[VariantReport]
    rival: str
    """The better of RIVALS on these products."""
    gain: Estimate
    """Accuracy of the tagger minus that of the better rival; in every replicate the rival that is better there, so
    that choosing it after the fact does not flatter the tagger."""


@dataclass(frozen=True)
class TagsReport:
    """The newest tagger version, judged."""

    tagger_version: str
    created: datetime
    replicates: int
    tags: list[TagReport]
    notes: list[str]
    """What could not be judged, and why."""


def evaluate_tags(settings: Settings, *, replicates: int, seed: int) -> TagsReport:
    """Judge the newest tagger version of `tag_predictions`.

    Args:
        replicates: bootstrap draws of groups behind each interval.
        seed: of the draws.

    Raises:
        VitrineError: there is no such table, it holds no predictions, or the variants do not speak of the same
            products.
    """
    table = delta.read(settings.table(schema.TAG_PREDICTIONS_TABLE))
    if not len(table):
        raise VitrineError("table `tag_predictions` is empty; run `produce tags` first")
    newest = table.take([pc.sort_indices(table, [(CREATED_TIMESTAMP, "descending")])[0]]).to_pylist()[0]
    rows = table.filter((pc.field("tagger_version") == newest["tagger_version"]) & (pc.field("split") == "test"))
    rows = _said_last(rows)
    tags, notes = [], []
    for tag in TAGS:
        of_tag = rows.filter(pc.field("tag") == tag)
        if len(of_tag):
            tags.append(_judge_tag(tag, of_tag, replicates, seed))
        else:
            notes.append(f"{tag}: not judged, no labelled product of the test split was predicted")
    for judged in tags:
        for variant in judged.variants:
            unkept = [at.threshold for at in variant.thresholds if math.isnan(at.accuracy.value)]
            if unkept:
                notes.append(
                    f"{judged.tag}, {variant.variant}: accuracy undefined from threshold {min(unkept):g}, "
                    "no product is that sure"
                )
    return TagsReport(newest["tagger_version"], newest[CREATED_TIMESTAMP], replicates, tags, notes)


def to_json(report: TagsReport) -> str:
    """The report as JSON; an undefined figure is null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        if isinstance(value, datetime):
            return value.isoformat()
        return None if isinstance(value, float) and math.isnan(value) else value

    return json.dumps(plain(asdict(report)), ensure_ascii=False, indent=2, allow_nan=False)


def _said_last(rows: pa.Table) -> pa.Table:
    """Each product, tag and variant once: two runs of one tagger at the same time write its predictions twice."""
    rows = rows.sort_by(CREATED_TIMESTAMP).append_column("row", pa.array(np.arange(len(rows))))
    return rows.take(rows.group_by(KEY).aggregate([("row", "max")])["row_max"].combine_chunks().sort())


def _judge_tag(tag: str, rows: pa.Table, replicates: int, seed: int) -> TagReport:
    groups = pc.unique(rows["group"])
    weights = metrics.draw_group_weights(len(groups), replicates, seed)
    said: dict[str, TagPredictions] = {}
    products = None
    for variant in TAG_VARIANTS:
        of_variant = rows.filter(pc.field("variant") == variant).sort_by(PRODUCT_ID)
        if products is not None and of_variant[PRODUCT_ID].to_pylist() != products:
            raise VitrineError(
                f"table `tag_predictions`: for {tag}, {variant} speaks of other products than {TAGGER}; "
                "remove the table and run `produce tags` again"
            )
        products = of_variant[PRODUCT_ID].to_pylist()
        said[variant] = _said(of_variant, groups)
    accuracy = {variant: metrics.compute_accuracy(said[variant], weights) for variant in TAG_VARIANTS}
    rivals = np.stack([accuracy[rival] for rival in RIVALS])
    return TagReport(
        tag=tag,
        products=len(products or ()),
        groups=len(groups),
        variants=[_judge_variant(variant, said[variant], weights, seed) for variant in TAG_VARIANTS],
        rival=RIVALS[int(rivals[:, 0].argmax())],
        gain=_figure(accuracy[TAGGER] - rivals.max(axis=0)),
    )


def _judge_variant(variant: str, said: TagPredictions, weights: Ints, seed: int) -> VariantReport:
    def figure(metric: Callable[[TagPredictions, Ints], np.ndarray]) -> Estimate:
        return _figure(metric(said, weights))

    return VariantReport(
        variant=variant,
        accuracy=figure(metrics.compute_accuracy),
        macro_f1=figure(metrics.compute_macro_f1),
        calibration_error=estimate_bias_corrected(metrics.compute_calibration_error(said, weights)),
        calibration_error_by_chance=metrics.compute_chance_calibration_error(said, CHANCE_DRAWS, seed),
        brier=figure(metrics.compute_brier_score),
        thresholds=[
            ThresholdMetrics(
                threshold,
                _figure(metrics.compute_coverage(said, weights, threshold)),
                _figure(metrics.compute_selective_accuracy(said, weights, threshold)),
            )
            for threshold in THRESHOLDS
        ],
    )


def _said(rows: pa.Table, groups: pa.Array) -> TagPredictions:
    labels = rows["labels"][0].as_py()
    column = {label: number for number, label in enumerate(labels)}
    return TagPredictions(
        probabilities=pc.list_flatten(rows["probabilities"]).to_numpy().reshape(len(rows), len(labels)),
        truth=np.array([column.get(truth, -1) for truth in rows["truth"].to_pylist()]),
        group=pc.index_in(rows["group"], value_set=groups).to_numpy(),
    )


def _figure(replicates: np.ndarray) -> Estimate:
    """Row 0 is the value, the others give the interval; those that are undefined are left out of it."""
    drawn = replicates[1:][np.isfinite(replicates[1:])]
    if not len(drawn) or math.isnan(replicates[0]):
        return Estimate(float(replicates[0]), (math.nan, math.nan))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(float(replicates[0]), (float(low), float(high)))


def estimate_bias_corrected(replicates: np.ndarray) -> Estimate:
    """As other figures, for a metric whose replicates lie above it on average, as those of calibration error do.

    The percentile interval less the bootstrap's estimate of bias, mean of the replicates minus figure (Efron and
    Tibshirani 1993, chapter 10), and not below 0. Uncorrected it can leave out its own figure. Were it corrected twice,
    towards the error of infinitely many products, it would miss that where the probabilities are nearly calibrated.
    """
    plain = _figure(replicates)
    if math.isnan(plain.ci95[0]):
        return plain
    bias = float(np.nanmean(replicates[1:])) - plain.value
    return Estimate(plain.value, (max(plain.ci95[0] - bias, 0.0), plain.ci95[1] - bias))
