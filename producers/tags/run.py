"""Vectors and titles to `product_tags`: child age stage, child gender and category, with calibrated probabilities.

The taggers learn from the first version of each labelled product, so that they stay the same, and `tagger_version`
with them, while titles and pictures change; then they tag every version of every product that they have not tagged
yet. A second run with the same inputs adds nothing.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.arrow.take import matrix_to_lists
from feature_repo.config import Settings
from feature_repo.cores import map_on_all_cores
from feature_repo.errors import VitrineError
from feature_repo.offline import delta, quarantine, validation
from feature_repo.schema import (
    CREATED_TIMESTAMP,
    EVENT_TIMESTAMP,
    LABELS,
    PRODUCT_ID,
    PRODUCT_TAGS,
    TAG_PREDICTIONS,
    TAG_PREDICTIONS_TABLE,
    TAG_SPLITS,
    TAG_VARIANTS,
    TAGS,
    TAGS_TABLE,
)
from producers.tags import embedding_rows, split, variants
from producers.tags import labels as label_file
from producers.tags.embedding_rows import KEY
from producers.tags.tagger import NO_FOLD, REGULARISATION_GRID, Tagger, fit_tagger

REVISION = 2
"""Raised with every change of the code that changes a prediction."""


@dataclass(frozen=True)
class TaggingSummary:
    """What one run did."""

    tagger_version: str
    encoder_version: str
    labels: int
    refused: int
    unlearnt: tuple[str, ...]
    """Tags of which the training split shows fewer than two labels: their columns are null."""
    rows: int
    """Added to `product_tags`."""
    predictions: int
    """Added to `tag_predictions`."""


def tag_products(
    settings: Settings,
    labels: Path,
    *,
    encoder_version: str | None,
    abstain: float,
    now: datetime,
    track: Callable[[Iterable[Tagger | None], int], Iterable[Tagger | None]] = lambda fits, total: fits,
) -> TaggingSummary:
    """Fit the taggers, and tag every product version that they have not tagged yet.

    Args:
        labels: Parquet, schema.LABELS and optionally `group`: products of one group are the same design.
        encoder_version: whose vectors to use; None for the newest.
        abstain: a label less probable than this is stored as null; in [0, 1].
        now: the created timestamp of all that is written, with a time zone.
        track: wraps the taggers as they are fitted, and how many there will be, to show progress.

    Raises:
        VitrineError: no vectors, an unknown or ambiguous encoder version, an unreadable label file, no usable label, or
            too few to learn a single tag.
    """
    encoder_version = embedding_rows.choose_encoder_version(settings, encoder_version)
    rows = embedding_rows.read(settings, encoder_version)
    came = label_file.read_labels(labels)
    validation.require_columns(came, LABELS.names, labels)
    checked, refused = label_file.check_labels(came, set(rows[PRODUCT_ID].to_pylist()))
    quarantine.add(settings, "tags", refused, now)
    if not len(checked):
        raise VitrineError(f"{labels}: none of its {len(refused)} labels is usable; the quarantine table says why")
    taught = _with_labels(embedding_rows.select_first_versions(rows), checked)
    tagger_version = compute_tagger_version(taught, encoder_version, abstain)
    new = _not_yet(rows, settings.table(TAGS_TABLE), tagger_version)
    judged = _has_version(settings.table(TAG_PREDICTIONS_TABLE), tagger_version)

    chosen = TAG_VARIANTS if not judged else (variants.TAGGER,) if len(new) else ()
    taggers = _fit_all(taught, chosen, track)

    if chosen and not taggers:
        raise VitrineError(
            f"{labels}: of none of {', '.join(TAGS)} does the training split show two different labels, so nothing "
            f"can be learnt of its {len(checked)} usable ones ({len(refused)} quarantined); nothing was written"
        )

    # Predictions first: a run that is killed in between finds the tags missing, and adds them, the next time.
    predictions = _predictions(taggers, taught, tagger_version, now) if not judged else TAG_PREDICTIONS.empty_table()
    if len(predictions):
        delta.append(settings.table(TAG_PREDICTIONS_TABLE), predictions)
    if len(new):
        tags = _tags(taggers, new, taught, abstain)
        stamps = {"tagger_version": tagger_version, "encoder_version": encoder_version, CREATED_TIMESTAMP: now}
        delta.append(settings.table(TAGS_TABLE), _stamped(tags, stamps, PRODUCT_TAGS))
    return TaggingSummary(
        tagger_version=tagger_version,
        encoder_version=encoder_version,
        labels=len(checked),
        refused=len(refused),
        unlearnt=tuple(tag for tag in TAGS if chosen and (tag, variants.TAGGER) not in taggers),
        rows=len(new),
        predictions=len(predictions),
    )


@dataclass(frozen=True)
class TaggerSet:
    """Taggers learned from labels, for products that come later."""

    tagger_version: str
    encoder_version: str
    abstain: float
    taught: pa.Table
    taggers: dict[tuple[str, str], Tagger]

    def tag(self, rows: pa.Table, now: datetime) -> pa.Table:
        """Rows of `product_tags` for embedding rows with `title`, in their order."""
        stamps = {
            "tagger_version": self.tagger_version,
            "encoder_version": self.encoder_version,
            CREATED_TIMESTAMP: now,
        }
        return _stamped(_tags(self.taggers, rows, self.taught, self.abstain), stamps, PRODUCT_TAGS)


def fit_taggers(settings: Settings, labels: Path, encoder_version: str, abstain: float) -> TaggerSet:
    """The taggers that `tag_products` has of the same labels; nothing is written.

    Raises:
        VitrineError: no vectors of the encoder, an unreadable label file, no usable label, or
            too few to learn a single tag.
    """
    rows = embedding_rows.read(settings, embedding_rows.choose_encoder_version(settings, encoder_version))
    came = label_file.read_labels(labels)
    validation.require_columns(came, LABELS.names, labels)
    checked, refused = label_file.check_labels(came, set(rows[PRODUCT_ID].to_pylist()))
    if not len(checked):
        raise VitrineError(f"{labels}: none of its {len(refused)} labels is usable; `produce tags` says why")
    taught = _with_labels(embedding_rows.select_first_versions(rows), checked)
    taggers = _fit_all(taught, (variants.TAGGER,))
    return TaggerSet(
        compute_tagger_version(taught, encoder_version, abstain), encoder_version, abstain, taught, taggers
    )


def compute_tagger_version(taught: pa.Table, encoder_version: str, abstain: float) -> str:
    """The tagger version: what was learned from, and how."""
    learned_from = [*taught.select(["tag", PRODUCT_ID, EVENT_TIMESTAMP, "value", "group"]).to_pydict().values()]
    how = [encoder_version, abstain, REGULARISATION_GRID, split.TRAIN_SHARE, split.CALIBRATION_SHARE, split.FOLDS]
    content = json.dumps([REVISION, how, learned_from], default=str)
    return f"tagger-{blake2b(content.encode(), digest_size=6).hexdigest()}"


def _fit_all(
    taught: pa.Table,
    chosen: Sequence[str],
    track: Callable[[Iterable[Tagger | None], int], Iterable[Tagger | None]] = lambda fits, total: fits,
) -> dict[tuple[str, str], Tagger]:
    """The taggers of every tag by the chosen variants; none of a tag of which there is nothing to learn."""
    wanted = [(tag, variant) for tag in TAGS for variant in chosen]

    def fitted(each: tuple[str, str]) -> Tagger | None:
        tag, variant = each
        return fit_tagger(tag, variant, taught.filter(pc.field("tag") == tag), folds=variant == variants.TAGGER)

    made = track(map_on_all_cores(fitted, wanted), len(wanted))
    return {each: tagger for each, tagger in zip(wanted, made, strict=True) if tagger is not None}


def _with_labels(rows: pa.Table, labels: pa.Table) -> pa.Table:
    """The row of each label with its `tag`, `value` and `group`, in the order of `labels`."""
    place = pc.index_in(labels[PRODUCT_ID], value_set=rows[PRODUCT_ID])
    taught = rows.take(place)
    for name in ("tag", "value", "group"):
        taught = taught.append_column(name, labels[name])
    return taught


def _predictions(
    taggers: dict[tuple[str, str], Tagger], taught: pa.Table, tagger_version: str, now: datetime
) -> pa.Table:
    """What every variant says of the labelled products that trained nothing (schema.TAG_PREDICTIONS)."""
    side = pa.array(split.assign_splits(taught["group"].to_pylist()))
    held_out = taught.append_column("split", side).filter(pc.is_in(side, value_set=pa.array(TAG_SPLITS)))
    parts = [TAG_PREDICTIONS.empty_table()]
    for (tag, variant), tagger in taggers.items():
        shown = held_out.filter(pc.field("tag") == tag)
        if len(shown):
            said = {
                "variant": variant,
                "labels": tagger.labels,
                "tagger_version": tagger_version,
                CREATED_TIMESTAMP: now,
            }
            part = shown.append_column("truth", shown["value"])
            part = part.append_column("probabilities", matrix_to_lists(tagger.probabilities(shown).astype(np.float32)))
            parts.append(_stamped(part, said, TAG_PREDICTIONS))
    return pa.concat_tables(parts)


def _tags(taggers: dict[tuple[str, str], Tagger], rows: pa.Table, taught: pa.Table, abstain: float) -> pa.Table:
    """KEY and the columns of every tag for embedding rows, in their order."""
    columns = {name: rows[name] for name in KEY}
    for tag in TAGS:
        label, probability, distribution = f"{tag}", f"{tag}_probability", f"{tag}_distribution"
        tagger = taggers.get((tag, variants.TAGGER))
        if tagger is None:
            for name in (label, probability, distribution):
                columns[name] = pa.nulls(len(rows), pa.null())
            continue
        probabilities = tagger.probabilities(rows, _folds(rows, taught, tag))
        best, surest = probabilities.argmax(axis=1), probabilities.max(axis=1)
        names = np.array(tagger.labels, dtype=object)[best]
        columns[label] = pa.array(names, pa.string(), mask=surest < abstain)
        columns[probability] = pa.array(surest)
        columns[distribution] = matrix_to_lists(probabilities.astype(np.float32))
    return pa.table(columns)


def _folds(rows: pa.Table, taught: pa.Table, tag: str) -> np.ndarray:
    """The fold of each row whose group trained the tagger of `tag`, NO_FOLD for the others; int64 [n]."""
    groups = dict(zip(taught[PRODUCT_ID].to_pylist(), taught["group"].to_pylist(), strict=True))
    shown = set(taught.filter(pc.field("tag") == tag)["group"].to_pylist())
    group = [groups.get(product, "") for product in rows[PRODUCT_ID].to_pylist()]
    trained = (split.assign_splits(group) == split.TRAIN) & np.array([name in shown for name in group], dtype=bool)
    return np.where(trained, split.assign_folds(group), NO_FOLD)


def _not_yet(rows: pa.Table, path: Path, tagger_version: str) -> pa.Table:
    """The rows that this tagger has not tagged."""
    if not delta.exists(path):
        return rows
    tagged = delta.read(path, [*KEY, "tagger_version"]).filter(pc.field("tagger_version") == tagger_version)
    numbered = rows.select(KEY).append_column("row", pa.array(np.arange(len(rows))))
    return rows.take(numbered.join(tagged.select(KEY), KEY, join_type="left anti").sort_by("row")["row"])


def _has_version(path: Path, tagger_version: str) -> bool:
    return (
        delta.exists(path)
        and pc.any(pc.equal(delta.read(path, ["tagger_version"])["tagger_version"], tagger_version)).as_py() is True
    )


def _stamped(rows: pa.Table, constants: dict[str, Any], schema: pa.Schema) -> pa.Table:
    """`rows` with a constant in the named columns, in the shape of `schema`."""
    for name, value in constants.items():
        rows = rows.append_column(name, pa.repeat(pa.scalar(value, schema.field(name).type), len(rows)))
    return rows.select(schema.names).cast(schema)
