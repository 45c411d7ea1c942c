"""Captions beside the sellers' own titles (BLEU-4, chrF), and by whether colour, category and age stage are true.

BLEU and chrF are of the whole corpus, by sacrebleu; titles of a shop come in any order of words, so they stay low even
for a line that is right. Whether what a line names is so matters more: titles themselves, stuffed with words that do
not apply, stand beside as the measure.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from feature_repo import schema, vocabulary
from feature_repo.config import Settings
from feature_repo.errors import VitrineError
from feature_repo.offline import delta, input_files
from feature_repo.schema import EVENT_TIMESTAMP, PRODUCT_ID

ATTRIBUTES = ("colour", "category", "child_age")
REPLICATES = 1000


@dataclass(frozen=True)
class Truthfulness:
    """Of what lines name of one attribute."""

    attribute: str
    lines: str
    """Captions, or the sellers' titles."""
    names: float
    """Share of the lines that name a value."""
    true: float
    """Share of those that name the true one and no other; NaN where none names any."""
    ci95: tuple[float, float]
    """Of `true`, bootstrap over products."""
    products: int


@dataclass(frozen=True)
class CaptionsReport:
    """Everything that is said of one captioner."""

    captioner_version: str
    products: int
    bleu4: float
    """In [0, 100]."""
    chrf: float
    """In [0, 100]."""
    signature: str
    """How sacrebleu computed BLEU."""
    truthfulness: Sequence[Truthfulness]


def evaluate_captions(settings: Settings, *, held_out: Path | None, truth: Path | None, seed: int) -> CaptionsReport:
    """Judge the newest captions.

    Args:
        settings: the deployment.
        held_out: Parquet or CSV with product_id: only these products are judged; all that have a caption, if not given.
        truth: the truth folder of a generated shop, for what is true of a product.
        seed: of the bootstrap.

    Raises:
        VitrineError: there are no captions, or none of the asked products.
    """
    rows = _lines(settings)
    version = rows["captioner_version"][0].as_py()
    if held_out is not None:
        asked = input_files.read_table(held_out, [PRODUCT_ID])[PRODUCT_ID].combine_chunks()
        rows = rows.filter(pc.is_in(rows[PRODUCT_ID], value_set=asked))
        if not len(rows):
            raise VitrineError(f"{held_out}: none of its products has a caption; run `produce captions`")
    captions, titles = rows["caption"].to_pylist(), rows["title"].to_pylist()
    bleu = BLEU(tokenize="zh")
    score = bleu.corpus_score(captions, [titles]).score
    return CaptionsReport(
        captioner_version=version,
        products=len(rows),
        bleu4=score,
        chrf=CHRF().corpus_score(captions, [titles]).score,
        signature=str(bleu.get_signature()),
        truthfulness=_truthfulness(rows, truth, np.random.default_rng(seed)) if truth else (),
    )


def to_json(report: CaptionsReport) -> str:
    """For other programs; NaN becomes null."""
    figures = asdict(report)
    for row in figures["truthfulness"]:
        row["true"], row["ci95"] = _finite(row["true"]), [_finite(bound) for bound in row["ci95"]]
    return json.dumps(figures, indent=1)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _lines(settings: Settings) -> pa.Table:
    """product_id, caption, captioner_version and title: each product's newest caption of the newest captioner."""
    captions = delta.read(settings.table(schema.CAPTION_TABLE))
    if not len(captions):
        raise VitrineError("table `product_caption` is empty; run `produce captions`")
    captions = captions.sort_by([("created_timestamp", "descending"), (EVENT_TIMESTAMP, "descending")])
    newest = captions.filter(pc.field("captioner_version") == captions["captioner_version"][0])
    newest = newest.group_by(PRODUCT_ID, use_threads=False).aggregate(
        [(name, "first") for name in ("caption", "captioner_version", EVENT_TIMESTAMP)]
    )
    newest = newest.rename_columns([PRODUCT_ID, "caption", "captioner_version", EVENT_TIMESTAMP])
    titles = delta.read(settings.table(schema.CATALOGUE_TABLE), [PRODUCT_ID, EVENT_TIMESTAMP, "title"])
    titles = (
        titles.filter(pc.is_valid(titles["title"]))
        .group_by([PRODUCT_ID, EVENT_TIMESTAMP])
        .aggregate([("title", "max")])
    )
    titles = titles.rename_columns([PRODUCT_ID, EVENT_TIMESTAMP, "title"])
    return newest.join(titles, [PRODUCT_ID, EVENT_TIMESTAMP], join_type="inner").sort_by(PRODUCT_ID)


def _truthfulness(rows: pa.Table, truth: Path, chance: np.random.Generator) -> list[Truthfulness]:
    known = pq.read_table(truth / "products.parquet")
    place = pc.index_in(rows[PRODUCT_ID], value_set=known[PRODUCT_ID].combine_chunks())
    if place.null_count:
        raise VitrineError(f"{truth}: the truth does not know {place.null_count} of the products; is it of this shop?")
    table, found = vocabulary.read_vocabulary(truth), []
    for attribute in ATTRIBUTES:
        values = known[attribute].take(place).to_pylist()
        for lines, column in (("captions", "caption"), ("titles", "title")):
            said = [vocabulary.find_values(line, table[attribute]) for line in rows[column].to_pylist()]
            right = np.array([one == {value} for one, value in zip(said, values, strict=True) if one], dtype=float)
            drawn = right[chance.integers(len(right), size=(REPLICATES, len(right)))].mean(axis=1) if len(right) else []
            low, high = np.quantile(drawn, [0.025, 0.975]) if len(right) else (np.nan, np.nan)
            share = float(right.mean()) if len(right) else float("nan")
            named = len(right) / len(said)
            found.append(Truthfulness(attribute, lines, named, share, (float(low), float(high)), len(said)))
    return found
