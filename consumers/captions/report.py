"""The quality of captions: BLEU-4, CIDEr-D and chrF against the sellers' titles, and whether what they state is true.

The scores are of all captions together, and a missing caption counts as an empty one. They are low even for correct
captions, because the words of shop titles come in any order. Whether the attributes that a line names are true is more
important. The titles are evaluated in the same way, for comparison: sellers also name attributes that are not true.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sacrebleu.metrics.chrf import CHRF

from consumers.report_json import report_to_json
from feature_repo import schema, vocabulary
from feature_repo.config import Settings
from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.evaluation import caption_scores
from feature_repo.offline import delta, input_files
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_ID

ATTRIBUTES = ("category", "colour", "pattern", "child_age", "child_gender")
"""The attributes of a product whose values are looked for in the lines, if the truth and the words have them."""
FIELDS = ("caption", "missing_reason", "captioner_version", "encoder_version")
"""Columns of captions that the report uses."""
REPLICATES = 1000
"""Number of bootstrap replicates of each interval."""


@dataclass(frozen=True)
class Truthfulness:
    """How often the captions, or the titles, name the true value of one attribute of the product."""

    attribute: str
    """One of ATTRIBUTES."""
    lines: str
    """`captions` or `titles`: which lines were searched, one for each product."""
    names: float
    """Share of the products whose line names at least one value of the attribute, in [0, 1]."""
    true: float
    """Share of those that name the true value and no other, in [0, 1]; NaN if no line names a value."""
    ci95: tuple[float, float]
    """Lower and upper bound of the 95% bootstrap interval of `true` over products; NaN if no line names a value."""
    products: int
    """Number of products, with those that have no caption."""


@dataclass(frozen=True)
class CaptionsReport:
    """The quality of the captions of one captioner."""

    captioner_version: str
    """The captioner whose captions were written last."""
    encoder_version: str | None
    """The encoder that it used; None if the captions are of version 0.2 or earlier."""
    products: int
    """Number of products that have a title and a caption, or the reason for none."""
    captioned: int
    """Number of those that have a caption."""
    missing: dict[str, int]
    """Reason for no caption to the number of products, the most frequent first."""
    bleu4: float
    """How many sequences of one to four tokens captions share with titles, in [0, 100]; higher is better. A Chinese
    character is a token of its own."""
    cider_d: float
    """How many rare sequences of tokens captions share with titles: 0 or more, times 100 as papers state it; higher is
    better."""
    chrf: float
    """How many sequences of characters captions share with titles, in [0, 100]; higher is better."""
    signature: str
    """How sacrebleu computed BLEU: its version and settings, in its own format."""
    truthfulness: Sequence[Truthfulness]
    """For each of ATTRIBUTES, in that order, first of the captions, then of the titles. Empty without a truth
    folder."""

    def to_json(self) -> str:
        """Return the report as JSON, with the field names as keys; NaN and infinity become null."""
        return report_to_json(self)


def evaluate_captions(settings: Settings, *, held_out: Path | None, truth: Path | None, seed: int) -> CaptionsReport:
    """Evaluate the newest caption of each product by the newest captioner, the one whose captions were written last.

    The newest caption is the one that was written last; of those written at once, that of the latest product version.
    It is compared with the title of the same product version. Products without a title there are left out.

    Args:
        settings: the deployment.
        held_out: Parquet or CSV with product_id: only these products are evaluated. Those without a caption are
            ignored, and a repeated one counts once. None for all.
        truth: the truth folder of a generated shop; None for no truthfulness.
        seed: seed of the bootstrap.

    Raises:
        NotFoundError: a table does not exist, there are no captions, none of the products in `held_out`, or none of
            the products that have a title.
        InvalidInputError: the truth folder lacks a product, or `held_out` cannot be read.
    """
    rows = _read_captions(settings)
    if held_out is not None:
        product_ids = input_files.read_table(held_out, [PRODUCT_ID])[PRODUCT_ID].combine_chunks()
        rows = rows.filter(pc.is_in(rows[PRODUCT_ID], value_set=product_ids))
        if not len(rows):
            raise NotFoundError(f"{held_out}: none of its products has a caption; run `produce captions`")
    if not len(rows):
        raise NotFoundError("no product that has a caption has a title; there is nothing to compare captions with")
    captions, titles = pc.fill_null(rows["caption"], "").to_pylist(), rows["title"].to_pylist()
    references = [[title] for title in titles]
    reasons = Counter(pc.drop_null(rows["missing_reason"]).to_pylist())
    return CaptionsReport(
        captioner_version=rows["captioner_version"][0].as_py(),
        encoder_version=rows["encoder_version"][0].as_py(),
        products=len(rows),
        captioned=len(rows) - rows["caption"].null_count,
        missing=dict(reasons.most_common()),
        bleu4=caption_scores.compute_bleu4(captions, references),
        cider_d=caption_scores.compute_cider_d(captions, references),
        chrf=CHRF().corpus_score(captions, [titles]).score,
        signature=caption_scores.describe_bleu4(),
        truthfulness=_measure_truthfulness(rows, truth, np.random.default_rng(seed)) if truth else (),
    )


def _read_captions(settings: Settings) -> pa.Table:
    """Return product_id, FIELDS and title, sorted by product_id; FIELDS that the table lacks are null."""
    captions = delta.read(settings.table(schema.CAPTION_TABLE))
    if not len(captions):
        raise NotFoundError("table `product_caption` is empty; run `produce captions`")
    for name in FIELDS:
        if name not in captions.column_names:
            captions = captions.append_column(name, pa.nulls(len(captions), pa.string()))
    captions = captions.sort_by([(CREATED_TIMESTAMP, "descending"), (EVENT_TIMESTAMP, "descending")])
    newest = captions.filter(pc.field("captioner_version") == captions["captioner_version"][0])
    newest = newest.group_by(PRODUCT_ID, use_threads=False).aggregate(
        [(name, "first", pc.ScalarAggregateOptions(skip_nulls=False)) for name in (*FIELDS, EVENT_TIMESTAMP)]
    )
    newest = newest.rename_columns([PRODUCT_ID, *FIELDS, EVENT_TIMESTAMP])
    titles = delta.read(settings.table(schema.CATALOGUE_TABLE), [PRODUCT_ID, EVENT_TIMESTAMP, "title"])
    titles = (
        titles.filter(pc.is_valid(titles["title"]))
        .group_by([PRODUCT_ID, EVENT_TIMESTAMP])
        .aggregate([("title", "max")])
    )
    titles = titles.rename_columns([PRODUCT_ID, EVENT_TIMESTAMP, "title"])
    return newest.join(titles, [PRODUCT_ID, EVENT_TIMESTAMP], join_type="inner").sort_by(PRODUCT_ID)


def _measure_truthfulness(rows: pa.Table, truth: Path, rng: np.random.Generator) -> list[Truthfulness]:
    products = pq.read_table(truth / "products.parquet")
    row_index = pc.index_in(rows[PRODUCT_ID], value_set=products[PRODUCT_ID].combine_chunks())
    if row_index.null_count:
        raise InvalidInputError(
            f"{truth}: the truth folder lacks {row_index.null_count} of the products; is it of this shop?"
        )
    words, result = vocabulary.read_vocabulary(truth), []
    for attribute in ATTRIBUTES:
        if attribute not in words or attribute not in products.column_names:
            continue
        true_values = products[attribute].take(row_index).to_pylist()
        for lines, column in (("captions", "caption"), ("titles", "title")):
            named = [vocabulary.find_values(line or "", words[attribute]) for line in rows[column].to_pylist()]
            is_true = np.array(
                [values == {true} for values, true in zip(named, true_values, strict=True) if values], dtype=float
            )
            share, low, high = np.nan, np.nan, np.nan
            if len(is_true):
                replicates = is_true[rng.integers(len(is_true), size=(REPLICATES, len(is_true)))].mean(axis=1)
                share, (low, high) = is_true.mean(), np.quantile(replicates, [0.025, 0.975])
            names = len(is_true) / len(named)
            result.append(Truthfulness(attribute, lines, names, float(share), (float(low), float(high)), len(named)))
    return result
