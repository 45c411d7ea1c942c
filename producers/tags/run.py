"""`produce tags`: vectors and titles to `product_tags`.

A run fits the taggers on the labelled products, then tags every product version that they have not tagged yet. A second
run with the same inputs adds nothing.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import InvalidInputError
from feature_repo.offline import delta, quarantine
from feature_repo.schema import TAG_PREDICTIONS, TAG_VARIANTS, TAGS
from producers.tags import embedding_rows, tagger_set, variants
from producers.tags.embedding_rows import KEY
from producers.tags.tagger_set import TaggerSet, Track


@dataclass(frozen=True)
class TaggingSummary:
    """What one run did."""

    tagger_version: str
    """Digest of the labels, the encoder version and the settings."""
    encoder_version: str
    """Version of the vectors that were used."""
    labels: int
    """Number of valid labels, in all splits."""
    refused: int
    """Number of invalid labels, which were quarantined."""
    unlearned: tuple[str, ...]
    """Tags with fewer than two different labels in the training split, in the order of schema.TAGS; their columns are
    null. Empty if there was nothing to add, because no tagger is fitted then."""
    rows: int
    """Rows added to `product_tags`; 0 if this tagger version had tagged every product version before."""
    predictions: int
    """Rows added to `tag_predictions`; 0 if the table had predictions of this tagger version before."""


def tag_products(
    settings: Settings,
    labels: Path,
    *,
    encoder_version: str | None,
    abstain: float,
    now: datetime,
    track: Track = lambda fits, total: fits,
) -> TaggingSummary:
    """Fit the taggers, and tag every product version that they have not tagged yet.

    Invalid labels are quarantined, also if the run then fails. A second run with the same inputs adds no rows. With
    other labels, encoder version or `abstain` the tagger version is another one, and all product versions are tagged
    again; the earlier rows stay.

    Args:
        settings: The deployment.
        labels: Parquet or CSV with product_id, tag and value, and optionally `group`. Products of one group are the
            same design.
        encoder_version: Version of the vectors; None for the newest.
        abstain: A label that is less probable than this is stored as null, in [0, 1].
        now: The created timestamp of the rows, with a time zone.
        track: Wraps the taggers as they are fitted, given their number, to show progress.

    Raises:
        NotFoundError: There are no vectors of the encoder version, or a product with a text vector has no row in
            `product_catalogue`.
        InvalidInputError: The encoder version is ambiguous, no label is valid, or no tag can be learned.
        VitrineError: The label file cannot be read, has no rows, or lacks a column.
    """
    encoder_version = embedding_rows.choose_encoder_version(settings, encoder_version)
    rows = embedding_rows.read_embedding_rows(settings, encoder_version)
    labelled, refused = tagger_set.join_labels(rows, labels)
    quarantine.add(settings, "tags", refused, now)
    if not len(labelled):
        raise InvalidInputError(
            f"{labels}: none of its {len(refused)} labels is valid; the quarantine table has the reasons"
        )
    version = tagger_set.compute_tagger_version(labelled, encoder_version, abstain)
    untagged = _select_untagged(rows, settings.table(schema.TAGS_TABLE), version)
    has_predictions = _has_version(settings.table(schema.TAG_PREDICTIONS_TABLE), version)

    chosen = TAG_VARIANTS if not has_predictions else (variants.TAGGER,) if len(untagged) else ()
    fitted = tagger_set.fit_variants(labelled, chosen, track)
    if chosen and not fitted:
        raise InvalidInputError(
            f"{labels}: the training split has two different labels for none of {', '.join(TAGS)}, so nothing can be "
            f"learned from its {len(labelled)} valid labels ({len(refused)} quarantined); nothing was written"
        )

    taggers = TaggerSet(version, encoder_version, abstain, labelled, fitted)
    # Predictions are written first: if the run is killed in between, the next run finds the tags missing and adds them.
    predictions = taggers.predict_held_out(now) if not has_predictions else TAG_PREDICTIONS.empty_table()
    if len(predictions):
        delta.append(settings.table(schema.TAG_PREDICTIONS_TABLE), predictions)
    if len(untagged):
        delta.append(settings.table(schema.TAGS_TABLE), taggers.tag(untagged, now))
    return TaggingSummary(
        tagger_version=version,
        encoder_version=encoder_version,
        labels=len(labelled),
        refused=len(refused),
        unlearned=tuple(tag for tag in TAGS if chosen and (tag, variants.TAGGER) not in fitted),
        rows=len(untagged),
        predictions=len(predictions),
    )


def _select_untagged(rows: pa.Table, path: Path, tagger_version: str) -> pa.Table:
    """Return the rows that this tagger version has not tagged."""
    if not delta.exists(path):
        return rows
    tagged = delta.read(path, [*KEY, "tagger_version"]).filter(pc.field("tagger_version") == tagger_version)
    numbered = rows.select(KEY).append_column("row", pa.array(np.arange(len(rows))))
    return rows.take(numbered.join(tagged.select(KEY), KEY, join_type="left anti").sort_by("row")["row"])


def _has_version(path: Path, tagger_version: str) -> bool:
    return delta.exists(path) and bool(
        len(delta.read(path, ["tagger_version"], where=pc.field("tagger_version") == tagger_version))
    )
