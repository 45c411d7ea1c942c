"""The quality of each tag beside simpler variants, from the test split of table `tag_predictions`."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from consumers.report_json import report_to_json
from consumers.tagging import metrics
from consumers.tagging.estimates import Estimate, estimate_bias_corrected, make_estimate
from consumers.tagging.metrics import Ints, TagPredictions
from consumers.tagging.novelty import (
    LabelledProducts,
    SeenComparison,
    WeekShare,
    compare_seen,
    read_labelled_products,
    share_by_week,
)
from consumers.tagging.recall import RecallAt, measure_recall
from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import CorruptDataError, NotFoundError
from feature_repo.offline import delta, production
from feature_repo.schema import CREATED_TIMESTAMP, PRODUCT_ID, TAG_VARIANTS, TAGS

THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Probabilities below which labels are withheld, to measure coverage and accuracy."""
# The tagger in use, and the variants that it should be better than.
TAGGER, RIVALS = TAG_VARIANTS[0], ("bag of words", "text tower")
CHANCE_DRAWS = 100
"""Draws for the calibration error by chance."""
KEY = [PRODUCT_ID, "tag", "variant"]
"""The columns that identify a prediction of one tagger version."""


@dataclass(frozen=True)
class ThresholdMetrics:
    """The metrics if labels that are less probable than `threshold` are withheld."""

    threshold: float
    """The smallest probability of a label that is kept, in [0, 1]."""
    coverage: Estimate
    """Share of the products whose label is kept."""
    accuracy: Estimate
    """Share of the kept labels that are true; undefined if none is kept."""


@dataclass(frozen=True)
class VariantReport:
    """The metrics for one tag of one variant of the tagger: a classifier that uses certain features of a product."""

    variant: str
    """One of schema.TAG_VARIANTS."""
    accuracy: Estimate
    """Share of the products whose most probable label is true."""
    macro_f1: Estimate
    """Mean of the F1 of the labels that a product has or is predicted to have, each with equal weight, in [0, 1]."""
    calibration_error: Estimate
    """How far probabilities are from the share of labels that are true, in [0, 1]; lower is better. It depends on the
    number of products; compare it with `calibration_error_by_chance`."""
    calibration_error_by_chance: float
    """The mean error that perfectly calibrated probabilities would have on as many products."""
    brier: Estimate
    """Mean squared error of the probabilities, summed over the labels, in [0, 2]; lower is better."""
    thresholds: list[ThresholdMetrics]
    """One for each of THRESHOLDS, in ascending order."""


@dataclass(frozen=True)
class TagReport:
    """The metrics of all variants for one tag, on the same products."""

    tag: str
    """One of schema.TAGS, or a further one."""
    products: int
    """Number of products of the test split that have a label of the tag."""
    groups: int
    """Number of groups (designs) that these products belong to."""
    variants: list[VariantReport]
    """One for each of schema.TAG_VARIANTS, in that order: the tagger in use first."""
    rival: str
    """The variant of RIVALS with the higher accuracy on these products; the first one if they are equal."""
    gain: Estimate
    """Accuracy of the tagger minus that of the better rival, in [-1, 1]. The better rival is chosen again in every
    replicate, so that choosing it from the same data does not favour the tagger."""
    by_seen: SeenComparison | None
    """Accuracy of the tagger for products that the encoder was not trained on, and for the others. None if it is not
    known which those are."""
    weeks: list[WeekShare]
    """Accuracy of the tagger by the week in which products arrived, in the order of time."""


@dataclass(frozen=True)
class TagsReport:
    """The metrics of the newest tagger version."""

    tagger_version: str
    """The tagger version whose predictions were written last."""
    created: datetime
    """When the newest of its predictions were written, in UTC."""
    replicates: int
    """Number of bootstrap replicates of each interval."""
    tags: list[TagReport]
    """In the order of schema.TAGS, then by name. A tag without predictions in the test split is left out."""
    encoder_version: str | None
    """The encoder of the vectors that the tags are predicted from; None if no tag of this tagger is stored."""
    recall: list[RecallAt]
    """Text-to-image recall of these vectors among the products of the test split; empty if it cannot be measured."""
    notes: list[str]
    """One line for each metric that is undefined or missing, with the reason."""

    def to_json(self) -> str:
        """Return the report as JSON, with the field names as keys; an undefined metric is null."""
        return report_to_json(self)


def evaluate_tags(settings: Settings, *, replicates: int, seed: int) -> TagsReport:
    """Evaluate the taggers in use on the test split of `tag_predictions`.

    They are those of the row of `product_tags` that was created last, of the encoder version in production; without
    predictions of them, those of the newest predictions.

    If a prediction was written twice, the last one counts. Without predictions in the test split there are no tags in
    the report, but notes.

    Args:
        settings: the deployment.
        replicates: number of bootstrap replicates; with 0 there are no intervals (NaN).
        seed: seed of the bootstrap.

    Raises:
        NotFoundError: the table does not exist or is empty.
        CorruptDataError: the variants have predictions for different products.
    """
    table = delta.read(settings.table(schema.TAG_PREDICTIONS_TABLE))
    if not len(table):
        raise NotFoundError("table `tag_predictions` is empty; run `produce tags` first")
    of_taggers_in_use = table.filter(pc.field("tagger_version") == (_find_taggers_in_use(settings) or ""))
    table = of_taggers_in_use if len(of_taggers_in_use) else table
    newest = table.take([pc.sort_indices(table, [(CREATED_TIMESTAMP, "descending")])[0]]).to_pylist()[0]
    of_tagger = table.filter(pc.field("tagger_version") == newest["tagger_version"])
    products = read_labelled_products(settings, of_tagger)
    rows = _drop_duplicates(of_tagger.filter(pc.field("split") == "test"))
    tags, notes = [], []
    further = sorted(set(pc.unique(rows["tag"]).to_pylist()) - set(TAGS))
    for tag in (*TAGS, *further):
        tag_rows = rows.filter(pc.field("tag") == tag)
        if len(tag_rows):
            tags.append(_evaluate_tag(tag, tag_rows, products, replicates, seed))
        else:
            notes.append(f"{tag}: not evaluated, the test split has no predictions for it")
    for report in tags:
        for variant in report.variants:
            undefined = [row.threshold for row in variant.thresholds if math.isnan(row.accuracy.value)]
            if undefined:
                notes.append(
                    f"{report.tag}, {variant.variant}: accuracy undefined from threshold {min(undefined):g}, "
                    "no probability is that high"
                )
    notes += _describe_seen(products, rows)
    by_product = rows.group_by(PRODUCT_ID).aggregate([("group", "min")]).sort_by(PRODUCT_ID)
    ids, groups = by_product[PRODUCT_ID].combine_chunks(), by_product["group_min"].combine_chunks()
    return TagsReport(
        tagger_version=newest["tagger_version"],
        created=newest[CREATED_TIMESTAMP],
        replicates=replicates,
        tags=tags,
        encoder_version=products.encoder_version,
        recall=measure_recall(settings, products, ids, groups, replicates, seed),
        notes=notes,
    )


def _describe_seen(products: LabelledProducts, rows: pa.Table) -> list[str]:
    """Return a line if the figures say nothing about products that the encoder has not seen."""
    if products.encoder_version is None or not len(rows):
        return []
    if products.is_seen is None:
        return [
            f"it is not known which products {products.encoder_version} was trained on, so figures may flatter; "
            "checkpoints of `produce encoder` say it"
        ]
    if products.is_seen[products.find(rows[PRODUCT_ID])].all():
        return [
            f"{products.encoder_version} was trained on a product of every group of the test split: how tags and "
            "vectors are for others is not known; hold some out with `produce encoder --hold-out`"
        ]
    return []


def _drop_duplicates(rows: pa.Table) -> pa.Table:
    """Return the last row of each product, tag and variant. Two concurrent runs of one tagger write them twice."""
    rows = rows.sort_by(CREATED_TIMESTAMP).append_column("row", pa.array(np.arange(len(rows))))
    return rows.take(rows.group_by(KEY).aggregate([("row", "max")])["row_max"].combine_chunks().sort())


def _find_taggers_in_use(settings: Settings) -> str | None:
    """Return the tagger version of the newest tags that readers get; None without tags."""
    path = settings.table(schema.TAGS_TABLE)
    if not delta.exists(path):
        return None
    rows = delta.read(path, ["tagger_version", CREATED_TIMESTAMP], where=production.rows_filter(path))
    newest = rows.filter(pc.equal(rows[CREATED_TIMESTAMP], pc.max(rows[CREATED_TIMESTAMP])))
    return str(newest["tagger_version"][0].as_py()) if len(newest) else None


def _evaluate_tag(tag: str, rows: pa.Table, labelled: LabelledProducts, replicates: int, seed: int) -> TagReport:
    groups = pc.unique(rows["group"])
    weights = metrics.draw_group_weights(len(groups), replicates, seed)
    predictions: dict[str, TagPredictions] = {}
    products = None
    for variant in TAG_VARIANTS:
        variant_rows = rows.filter(pc.field("variant") == variant).sort_by(PRODUCT_ID)
        if products is not None and variant_rows[PRODUCT_ID].to_pylist() != products:
            raise CorruptDataError(
                f"table `tag_predictions`: for {tag}, {variant} has predictions for other products than {TAGGER}; "
                "remove the table and run `produce tags` again"
            )
        products = variant_rows[PRODUCT_ID].to_pylist()
        predictions[variant] = _read_predictions(variant_rows, groups)
    accuracy = {variant: metrics.compute_accuracy(predictions[variant], weights) for variant in TAG_VARIANTS}
    tagger, row = predictions[TAGGER], labelled.find(pa.array(products, pa.string()))
    rivals = np.stack([accuracy[rival] for rival in RIVALS])
    return TagReport(
        tag=tag,
        products=len(products or ()),
        groups=len(groups),
        variants=[_evaluate_variant(variant, predictions[variant], weights, seed) for variant in TAG_VARIANTS],
        rival=RIVALS[int(rivals[:, 0].argmax())],
        gain=make_estimate(accuracy[TAGGER] - rivals.max(axis=0)),
        by_seen=compare_seen(tagger.is_correct, tagger.group, weights, labelled, row),
        weeks=share_by_week(tagger.is_correct, tagger.group, weights, labelled, row),
    )


def _evaluate_variant(variant: str, predictions: TagPredictions, weights: Ints, seed: int) -> VariantReport:
    def estimate(metric: Callable[[TagPredictions, Ints], np.ndarray]) -> Estimate:
        return make_estimate(metric(predictions, weights))

    return VariantReport(
        variant=variant,
        accuracy=estimate(metrics.compute_accuracy),
        macro_f1=estimate(metrics.compute_macro_f1),
        calibration_error=estimate_bias_corrected(metrics.compute_calibration_error(predictions, weights)),
        calibration_error_by_chance=metrics.compute_chance_calibration_error(predictions, CHANCE_DRAWS, seed),
        brier=estimate(metrics.compute_brier_score),
        thresholds=[
            ThresholdMetrics(
                threshold,
                make_estimate(metrics.compute_coverage(predictions, weights, threshold)),
                make_estimate(metrics.compute_selective_accuracy(predictions, weights, threshold)),
            )
            for threshold in THRESHOLDS
        ],
    )


def _read_predictions(rows: pa.Table, groups: pa.Array) -> TagPredictions:
    labels = rows["labels"][0].as_py()
    column = {label: number for number, label in enumerate(labels)}
    return TagPredictions(
        probabilities=pc.list_flatten(rows["probabilities"]).to_numpy().reshape(len(rows), len(labels)),
        truth=np.array([column.get(truth, -1) for truth in rows["truth"].to_pylist()]),
        group=pc.index_in(rows["group"], value_set=groups).to_numpy(),
    )
