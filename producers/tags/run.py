"""`produce tags`: vectors and titles to `product_tags`.

A run fits the taggers on the labelled products, then tags every product version whose newest row is not of these
taggers, or was made from other vectors or another title. A second run with the same inputs adds nothing.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import InvalidInputError
from feature_repo.location import Location
from feature_repo.offline import delta, quarantine
from feature_repo.schema import CREATED_TIMESTAMP, INPUT_DIGEST, TAG_PREDICTIONS, TAG_VARIANTS, TAGS
from feature_repo.table_format import DEFAULT_FORMAT, TableFormat
from producers.stored_rows import find_outdated
from producers.tags import embedding_rows, tagger_set, variants
from producers.tags import labels as label_file
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
    reasons: tuple[str, ...]
    """Why they are invalid: a text for each reason, with the number of labels and an example."""
    further_tags: tuple[str, ...]
    """Tags of the labels beyond schema.TAGS, by name."""
    unlearned: tuple[str, ...]
    """Tags with fewer than two different labels in the training split, in the order of schema.TAGS, then by name; they
    are null in the rows. Empty if there was nothing to add, because no tagger is fitted then."""
    rows: int
    """Rows added to `product_tags`; 0 if those of all product versions were up to date."""
    predictions: int
    """Rows added to `tag_predictions`; 0 if its newest rows are of these taggers."""


def tag_products(
    settings: Settings,
    labels: Path,
    *,
    encoder_version: str | None,
    abstain: float,
    recompute: bool = False,
    now: datetime,
    table_format: TableFormat = DEFAULT_FORMAT,
    track: Track = lambda fits, total: fits,
) -> TaggingSummary:
    """Fit the taggers, and tag every product version whose newest row they have not made from the same inputs.

    Invalid labels are quarantined, also if the run then fails. A second run with the same inputs adds no rows. With
    other labels, encoder version or `abstain` the tagger version is another one, and all product versions are tagged
    again; the earlier rows stay. The same holds if the vectors or titles of labelled products were corrected.

    Args:
        settings: the deployment.
        labels: Parquet or CSV with product_id, tag and value, and optionally `group`. Products of one group are the
            same design.
        encoder_version: version of the vectors; None for the one in production.
        abstain: a label that is less probable than this is stored as null, in [0, 1].
        recompute: write the rows of all product versions and the predictions again, those that are up to date too.
        now: the created timestamp of the rows, with a time zone.
        table_format: what the user says about the label file.
        track: wraps the taggers as they are fitted, given their number, to show progress.

    Raises:
        NotFoundError: there are no vectors of the encoder version, or a product with a text vector has no row in
            `product_catalogue`.
        InvalidInputError: the encoder version is ambiguous, no label is valid, or no tag can be learned.
        VitrineError: the label file cannot be read, has no rows, or lacks a column.
    """
    encoder_version = embedding_rows.choose_encoder_version(settings, encoder_version)
    rows = embedding_rows.read_embedding_rows(settings, encoder_version)
    tag_values = label_file.list_tag_values(settings.age_scale)
    labelled, refused = tagger_set.join_labels(rows, labels, tag_values, table_format)
    quarantine.add(settings, "tags", refused, now)
    tagger_set.require_labels(labelled, refused, labels)
    version = tagger_set.compute_tagger_version(labelled, encoder_version, abstain, settings.age_scale.stages)
    training_digest = tagger_set.compute_training_digest(labelled)
    outdated = find_outdated(
        settings.table(schema.TAGS_TABLE),
        rows.select(KEY),
        tagger_set.compute_digests(rows, training_digest),
        version_column="tagger_version",
        version=version,
        encoder_version=encoder_version,
        recompute=recompute,
    )
    untagged = rows.take(pa.array(outdated))
    predictions_path = settings.table(schema.TAG_PREDICTIONS_TABLE)
    has_predictions = not recompute and _has_predictions(predictions_path, version, training_digest)

    tags = tagger_set.list_tags(labelled)
    chosen = TAG_VARIANTS if not has_predictions else (variants.TAGGER,) if len(untagged) else ()
    fitted = tagger_set.fit_variants(labelled, chosen, tag_values, track)
    if chosen and not fitted:
        raise InvalidInputError(
            f"{labels}: no tag of {', '.join(tags)} has two different labels in the training split, so nothing can be "
            f"learned from the {len(labelled)} valid labels; nothing was written"
            + "".join(f"; refused {reason}" for reason in label_file.describe_refused(refused))
        )

    taggers = TaggerSet(version, encoder_version, abstain, labelled, fitted)
    # Predictions are written first: if the run is killed in between, the next run finds the tags missing and adds them.
    predictions = taggers.predict_held_out(now) if not has_predictions else TAG_PREDICTIONS.empty_table()
    if len(predictions):
        delta.append(predictions_path, predictions)
    if len(untagged):
        delta.append(settings.table(schema.TAGS_TABLE), taggers.tag(untagged, now))
    return TaggingSummary(
        tagger_version=version,
        encoder_version=encoder_version,
        labels=len(labelled),
        refused=len(refused),
        reasons=tuple(label_file.describe_refused(refused)),
        further_tags=tags[len(TAGS) :],
        unlearned=tuple(tag for tag in tags if chosen and (tag, variants.TAGGER) not in fitted),
        rows=len(untagged),
        predictions=len(predictions),
    )


def _has_predictions(path: Location, tagger_version: str, training_digest: int) -> bool:
    """Return whether the newest predictions of this tagger version are, as far as known, of this training."""
    if not delta.exists(path):
        return False
    has_digest = INPUT_DIGEST in delta.open_dataset(path).schema.names
    of_version = pc.field("tagger_version") == tagger_version
    rows = delta.read(path, [CREATED_TIMESTAMP, *[INPUT_DIGEST] * has_digest], where=of_version)
    newest = rows.filter(pc.equal(rows[CREATED_TIMESTAMP], pc.max(rows[CREATED_TIMESTAMP])))
    digests = newest[INPUT_DIGEST].drop_null().unique().to_pylist() if has_digest else []
    return bool(len(newest)) and digests in ([], [training_digest])
