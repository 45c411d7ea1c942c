"""The taggers of all tags, fitted on one label file, and the rows that they predict.

The taggers learn from the first version of each labelled product. They, and `tagger_version`, therefore stay the same
when titles and images change.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.arrow.take import matrix_to_lists, to_matrix
from feature_repo.config import Settings
from feature_repo.cores import map_on_all_cores
from feature_repo.errors import InvalidInputError
from feature_repo.offline import validation
from feature_repo.offline.quarantine import RejectedRow
from feature_repo.schema import (
    CHILD_AGES,
    CREATED_TIMESTAMP,
    EVENT_TIMESTAMP,
    INPUT_DIGEST,
    LABELS,
    PRODUCT_ID,
    PRODUCT_TAGS,
    TAG_PREDICTIONS,
    TAG_SEPARATOR,
    TAG_SPLITS,
    TAG_VARIANTS,
    TAGS,
    VECTOR,
)
from feature_repo.table_format import DEFAULT_FORMAT, TableFormat
from producers import input_digest
from producers.input_digest import Digests
from producers.tags import embedding_rows, split, stacking, variants
from producers.tags import labels as label_file
from producers.tags.classifier import NO_FOLD
from producers.tags.embedding_rows import KEY
from producers.tags.stacking import StackedTagger, combine_taggers
from producers.tags.tagger import REGULARISATION_GRID, Tagger, fit_tagger

REVISION = 3
"""Increased with every change of the code that changes a prediction."""

Track: TypeAlias = Callable[[Iterable[Tagger | None], int], Iterable[Tagger | None]]
"""Wraps the taggers as they are fitted, given their number, to show progress."""


@dataclass(frozen=True)
class TaggerSet:
    """The taggers that were fitted on one label file."""

    tagger_version: str
    """The version that is written to each row, from `compute_tagger_version`."""
    encoder_version: str
    """Version of the vectors that the taggers learned from."""
    abstain: float
    """A label that is less probable than this is stored as null, in [0, 1]."""
    labelled: pa.Table
    """The labelled rows, as returned by `join_labels`."""
    taggers: dict[tuple[str, str], Tagger | StackedTagger]
    """(tag, variant) to the tagger, as from `fit_variants`; a tag that could not be learned is missing."""

    @cached_property
    def _training_digest(self) -> int:
        return compute_training_digest(self.labelled)

    def tag(self, rows: pa.Table, now: datetime) -> pa.Table:
        """Return one row of schema.PRODUCT_TAGS for each embedding row, in their order.

        The label is the most probable one, the first if several are. A label that is less probable than `abstain` is
        null; its probability is not. All columns of a tag that could not be learned are null. `further_tags` has
        TAG=VALUE for each further tag whose label is not null, in the order of their names. A product that trained a
        tagger is predicted by the classifier of its fold, which was trained without it, if there is one.

        Args:
            rows: embedding rows with `title`, as `read_embedding_rows` returns them.
            now: the created timestamp, with a time zone.
        """
        columns = {name: rows[name] for name in KEY}
        for tag in TAGS:
            names = (tag, f"{tag}_probability", f"{tag}_distribution")
            tagger = self.taggers.get((tag, variants.TAGGER))
            if tagger is None:
                columns |= {name: pa.nulls(len(rows), pa.null()) for name in names}
                continue
            probabilities = tagger.predict_probabilities(rows, self._find_folds(rows, tag))
            values = (
                self._choose_labels(tagger, probabilities),
                pa.array(probabilities.max(axis=1)),
                matrix_to_lists(probabilities),
            )
            columns |= dict(zip(names, values, strict=True))
        columns["further_tags"], columns["further_tag_probabilities"] = self._list_further_tags(rows)
        columns[INPUT_DIGEST] = input_digest.to_arrow(compute_digests(rows, self._training_digest))
        constants = {"encoder_version": self.encoder_version, "tagger_version": self.tagger_version}
        return _add_constants(pa.table(columns), constants | {CREATED_TIMESTAMP: now}, PRODUCT_TAGS)

    def _choose_labels(self, tagger: Tagger | StackedTagger, probabilities: np.ndarray) -> pa.Array:
        """Return the most probable label of each row; null where its probability is below `abstain`."""
        label = np.array(tagger.labels, dtype=object)[probabilities.argmax(axis=1)]
        return pa.array(label, pa.string(), mask=probabilities.max(axis=1) < self.abstain)

    def _list_further_tags(self, rows: pa.Table) -> tuple[pa.Array, pa.Array]:
        """Return TAG=VALUE for each further tag of each row, and its probability; nulls if there is no further tag."""
        texts: list[list[str]] = [[] for _ in range(len(rows))]
        chances: list[list[float]] = [[] for _ in range(len(rows))]
        further = [
            (tag, tagger)
            for (tag, variant), tagger in self.taggers.items()
            if tag not in TAGS and variant == variants.TAGGER
        ]
        if not further:
            return pa.nulls(len(rows), pa.list_(pa.string())), pa.nulls(len(rows), VECTOR)
        for tag, tagger in further:
            probabilities = tagger.predict_probabilities(rows, self._find_folds(rows, tag))
            labels, highest = self._choose_labels(tagger, probabilities).to_pylist(), probabilities.max(axis=1).tolist()
            for row, (label, probability) in enumerate(zip(labels, highest, strict=True)):
                if label is not None:
                    texts[row].append(f"{tag}{TAG_SEPARATOR}{label}")
                    chances[row].append(probability)
        return pa.array(texts, pa.list_(pa.string())), pa.array(chances, VECTOR)

    def predict_held_out(self, now: datetime) -> pa.Table:
        """Return the predictions of every fitted variant for the labelled products outside the training split.

        They are the probabilities of all labels, however low: `abstain` is not used.

        Args:
            now: the created timestamp, with a time zone.

        Returns:
            Rows of schema.TAG_PREDICTIONS, tagger by tagger in the order of `taggers`, each sorted by product. No rows
            if all labelled products are in the training split.
        """
        side = pa.array(split.assign_splits(self.labelled["group"].to_pylist()))
        held_out = self.labelled.append_column("split", side).filter(pc.is_in(side, value_set=pa.array(TAG_SPLITS)))
        parts = [TAG_PREDICTIONS.empty_table()]
        for (tag, variant), tagger in self.taggers.items():
            rows = held_out.filter(pc.field("tag") == tag)
            if len(rows):
                constants = {
                    "variant": variant,
                    "labels": tagger.labels,
                    "tagger_version": self.tagger_version,
                    CREATED_TIMESTAMP: now,
                    INPUT_DIGEST: self._training_digest,
                }
                part = rows.append_column("truth", rows["value"])
                part = part.append_column("probabilities", matrix_to_lists(tagger.predict_probabilities(rows)))
                parts.append(_add_constants(part, constants, TAG_PREDICTIONS))
        return pa.concat_tables(parts)

    @cached_property
    def _group_of_product(self) -> dict[str, str]:
        return dict(zip(self.labelled[PRODUCT_ID].to_pylist(), self.labelled["group"].to_pylist(), strict=True))

    @cached_property
    def _groups_of_tag(self) -> dict[str, set[str]]:
        """The groups with a label of each tag."""
        groups: dict[str, set[str]] = {}
        for tag, group in zip(self.labelled["tag"].to_pylist(), self.labelled["group"].to_pylist(), strict=True):
            groups.setdefault(tag, set()).add(group)
        return groups

    def _find_folds(self, rows: pa.Table, tag: str) -> np.ndarray:
        """Return the fold of each row whose group trained the tagger of `tag`, NO_FOLD for the others, int64 [n]."""
        group = [self._group_of_product.get(product, "") for product in rows[PRODUCT_ID].to_pylist()]
        groups_of_tag = self._groups_of_tag.get(tag, set())
        has_label = np.array([name in groups_of_tag for name in group], dtype=bool)
        is_training = (split.assign_splits(group) == split.TRAIN) & has_label
        return np.where(is_training, split.assign_folds(group), NO_FOLD)


def fit_taggers(
    settings: Settings,
    labels: Path,
    encoder_version: str,
    abstain: float,
    table_format: TableFormat = DEFAULT_FORMAT,
) -> TaggerSet:
    """Fit the taggers that `produce tags` fits on the same labels. Nothing is written, and invalid labels are ignored.

    Only the tagger in use is fitted, not the variants that it is compared with. A tag with fewer than two different
    labels in the training split is left out; its columns are null in `TaggerSet.tag`. All tags may be left out.

    Args:
        settings: the deployment.
        labels: Parquet or CSV with product_id, tag and value, and optionally `group`.
        encoder_version: version of the vectors.
        abstain: a label that is less probable than this is stored as null, in [0, 1].
        table_format: what the user says about the label file.

    Raises:
        NotFoundError: there are no vectors of the encoder version, or a product with a text vector has no row in
            `product_catalogue`.
        InvalidInputError: no label is valid.
        VitrineError: the label file cannot be read, has no rows, or lacks a column.
    """
    rows = embedding_rows.read_embedding_rows(
        settings, embedding_rows.choose_encoder_version(settings, encoder_version)
    )
    tag_values = label_file.list_tag_values(settings.age_scale)
    labelled, refused = join_labels(rows, labels, tag_values, table_format)
    require_labels(labelled, refused, labels)
    taggers = fit_variants(labelled, (variants.TAGGER,), tag_values)
    version = compute_tagger_version(labelled, encoder_version, abstain, settings.age_scale.stages)
    return TaggerSet(version, encoder_version, abstain, labelled, taggers)


def require_labels(labelled: pa.Table, refused: Sequence[RejectedRow], file: Path) -> None:
    """Raise InvalidInputError, which gives the reasons, if no label of the file is valid."""
    if not len(labelled):
        reasons = "; ".join(label_file.describe_refused(refused))
        raise InvalidInputError(f"{file}: none of its {len(refused):,} labels is valid: {reasons}")


def join_labels(
    rows: pa.Table, file: Path, tag_values: label_file.TagValues, table_format: TableFormat = DEFAULT_FORMAT
) -> tuple[pa.Table, list[RejectedRow]]:
    """Read a label file, and return the embedding row of each valid label, and the refused labels.

    Args:
        rows: as returned by `read_embedding_rows`. The first version of each product is used, the one with the earliest
            event timestamp.
        file: Parquet or CSV with product_id, tag and value, and optionally `group`.
        tag_values: the allowed values of tags.
        table_format: what the user says about the file.

    Returns:
        Embedding rows with `title`, `tag`, `value` and `group`, one for each valid label, sorted by product and tag;
        and the refused labels: rows that do not fit the header of a CSV, then the others, in the order of the file.

    Raises:
        VitrineError: the file cannot be read, has no rows, or lacks a column.
    """
    misshapen: list[RejectedRow] = []
    labels = label_file.read_labels(file, table_format, misshapen.extend)
    validation.require_columns(labels, LABELS.names, file)
    valid, refused = label_file.check_labels(labels, set(rows[PRODUCT_ID].to_pylist()), tag_values)
    first = embedding_rows.select_first_versions(rows)
    labelled = first.take(pc.index_in(valid[PRODUCT_ID], value_set=first[PRODUCT_ID]))
    for name in ("tag", "value", "group"):
        labelled = labelled.append_column(name, valid[name])
    return labelled, misshapen + refused


def fit_variants(
    labelled: pa.Table,
    chosen: Sequence[str],
    tag_values: label_file.TagValues,
    track: Track = lambda fits, total: fits,
) -> dict[tuple[str, str], Tagger | StackedTagger]:
    """Fit a tagger for every tag and every chosen variant, on all cores.

    That of `variants.TAGGER` combines the variants of `stacking.PARTS`, which are fitted for it.

    Args:
        labelled: as returned by `join_labels`.
        chosen: names from schema.TAG_VARIANTS; none gives no taggers.
        tag_values: the allowed values of tags.
        track: wraps the taggers as they are fitted, given their number, to show progress.

    Returns:
        (tag, variant) to the tagger, in the order of `list_tags` and, for each tag, of `chosen`. A tag is left out if
        the training split has fewer than two different labels of it.
    """
    parts = stacking.PARTS if variants.TAGGER in chosen else ()
    single = [variant for variant in TAG_VARIANTS if variant != variants.TAGGER and variant in (*parts, *chosen)]
    pairs = [(tag, variant) for tag in list_tags(labelled) for variant in single]

    def fit(pair: tuple[str, str]) -> Tagger | None:
        tag, variant = pair
        return fit_tagger(variant, labelled.filter(pc.field("tag") == tag), values=tag_values.get(tag, ()))

    def combine(tag: str) -> StackedTagger:
        of_tag = labelled.filter(pc.field("tag") == tag)
        return combine_taggers(tuple(fitted[tag, part] for part in stacking.PARTS), of_tag)

    results = track(map_on_all_cores(fit, pairs), len(pairs))
    fitted = {pair: tagger for pair, tagger in zip(pairs, results, strict=True) if tagger is not None}
    stacked = [tag for tag in list_tags(labelled) if parts and (tag, parts[0]) in fitted]
    combined = dict(zip(stacked, map_on_all_cores(combine, stacked), strict=True))
    all_taggers = fitted | {(tag, variants.TAGGER): tagger for tag, tagger in combined.items()}
    wanted = [(tag, variant) for tag in list_tags(labelled) for variant in chosen]
    return {pair: all_taggers[pair] for pair in wanted if pair in all_taggers}


def list_tags(labelled: pa.Table) -> tuple[str, ...]:
    """Return the tags that can be learned: schema.TAGS, whether they have labels or not, then the others by name."""
    return (*TAGS, *sorted(set(labelled["tag"].to_pylist()) - set(TAGS)))


def compute_tagger_version(
    labelled: pa.Table, encoder_version: str, abstain: float, age_stages: tuple[str, ...] = CHILD_AGES
) -> str:
    """Return the tagger version: `tagger-` and 12 hex digits, a digest of everything that the taggers depend on.

    Args:
        labelled: as returned by `join_labels`; of these, the labels and groups count and which product versions have
            them, but not the vectors.
        encoder_version: version of the vectors.
        abstain: the probability below which a label is stored as null.
        age_stages: the allowed values of child_age. Those of the default scale leave the version as it was before
            scales could be configured.
    """
    content = [*labelled.select(["tag", PRODUCT_ID, EVENT_TIMESTAMP, "value", "group"]).to_pydict().values()]
    parameters = [
        encoder_version,
        abstain,
        REGULARISATION_GRID,
        split.TRAIN_SHARE,
        split.FOLDS,
        stacking.PARTS,
        stacking.REGULARISATION,
    ]
    text = json.dumps([REVISION, parameters, content, *([age_stages] if age_stages != CHILD_AGES else [])], default=str)
    return f"tagger-{blake2b(text.encode(), digest_size=6).hexdigest()}"


def compute_digests(rows: pa.Table, training_digest: int) -> Digests:
    """Return the digest of what each row of tags is made from: vectors, title, and what the taggers learned from.

    Args:
        rows: n embedding rows with `title`.
        training_digest: from `compute_training_digest`.
    """
    vectors = [input_digest.hash_vectors(to_matrix(rows[name])) for name in embedding_rows.VECTOR_COLUMNS]
    training = np.full(len(rows), training_digest, np.int64)
    return input_digest.combine(*vectors, input_digest.hash_texts(rows["title"]), input_digest.hash_numbers(training))


def compute_training_digest(labelled: pa.Table) -> int:
    """Return a digest of the vectors and titles of the labelled rows: a 64-bit integer with a sign.

    The tagger version depends on the other inputs of the training, and only on which product versions have a label.

    Args:
        labelled: as returned by `join_labels`.
    """
    rows = compute_digests(labelled, 0)
    factors = input_digest.hash_numbers(np.arange(len(rows)))
    return int((rows * factors).sum(dtype=np.uint64).astype(np.int64))


def _add_constants(rows: pa.Table, constants: dict[str, Any], table_schema: pa.Schema) -> pa.Table:
    """Return `rows` with a column for each constant, cast to `table_schema`."""
    for name, value in constants.items():
        rows = rows.append_column(name, pa.repeat(pa.scalar(value, table_schema.field(name).type), len(rows)))
    return rows.select(table_schema.names).cast(table_schema)
