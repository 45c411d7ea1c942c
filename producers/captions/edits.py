"""Labels from merchants' edits: what an edited caption states about its product, for `produce tags --labels`."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo import schema
from feature_repo.arrow import text
from feature_repo.config import Settings
from feature_repo.errors import InvalidInputError, UsageError
from feature_repo.files.atomic_write import replace_atomically
from feature_repo.offline import delta, input_files, validation
from feature_repo.offline.validation import RowCheck
from feature_repo.schema import LABELS, PRODUCT_ID, TAGS
from feature_repo.vocabulary import Words, find_values
from producers.tags.labels import CHECKED_SCHEMA, read_labels

EDIT_COLUMNS = (PRODUCT_ID, "caption", "edited_caption", "at")
"""Columns of a file of edits."""
OUTCOMES = ("kept", "changed", "withdrawn", "added")
"""What an edit does to an attribute: it states the same, another value, none any more, or one that was not stated."""


@dataclass(frozen=True)
class EditsSummary:
    """What the edits say, and the labels that were written."""

    edits: int
    """Products with an edit."""
    superseded: int
    """Edits of a product that has a later one; they are not used."""
    outcomes: dict[str, dict[str, int]]
    """Attribute to the number of edits by outcome; an attribute that no edit concerns is left out."""
    ambiguous: int
    """Attributes of an edited caption with several values; they give no label."""
    not_tags: int
    """Statements about attributes that are no tags; they give no label."""
    added: int
    """Labels of a product and tag that had none."""
    changed: int
    """Labels that replace one with another value."""
    confirmed: int
    """Labels that equal the one that there was."""
    labels: int
    """Rows written: the labels so far and those of the edits."""
    output: Path
    """The file that was written."""

    def __str__(self) -> str:
        lines = [f"{self.edits:,} products with an edit, {self.superseded:,} earlier edits not used"]
        lines += [
            f"  {tag}: " + ", ".join(f"{counts[outcome]:,} {outcome}" for outcome in OUTCOMES if counts.get(outcome))
            for tag, counts in self.outcomes.items()
        ]
        lines.append(
            f"{self.output}: {self.labels:,} labels, of which {self.added:,} new, {self.changed:,} changed and "
            f"{self.confirmed:,} confirmed by edits; no label from {self.ambiguous:,} attributes with several values "
            f"and {self.not_tags:,} statements about what is no tag"
        )
        return "\n".join(lines)


def learn_labels(
    settings: Settings,
    edits: Path,
    vocabulary: Mapping[str, Words],
    *,
    labels: Path | None,
    output: Path,
    now: datetime,
) -> EditsSummary:
    """Write the labels so far with those of merchants' edits, which replace all labels of the same product and tag.

    An edited caption labels its product with each value that it states, if it states one value of the attribute and the
    attribute is a tag: one of schema.TAGS, or one of `labels`.

    Args:
        settings: the deployment.
        edits: Parquet or CSV with EDIT_COLUMNS. The edit with the latest `at` counts; of equal ones, the last row.
        vocabulary: attribute -> value -> words.
        labels: the labels so far, as `produce tags` reads them; None for none.
        output: the Parquet file to write; one that exists is replaced.
        now: the current time, with a time zone; no edit may be later.

    Raises:
        UsageError: `output` is an input, or its name does not end in .parquet.
        NotFoundError: a file or the catalogue does not exist.
        InvalidInputError: a file cannot be read, lacks a column or has no rows; or a row of the edits lacks a value,
            has an unusable time, or is of a product that the catalogue does not have; or there is no label to write.
    """
    if output.suffix != ".parquet" or output in (edits, labels):
        raise UsageError(f"--output is {output}; expected a .parquet file that is no input")
    newest, superseded = _read_edits(settings, edits, now)
    rows = [] if labels is None else read_labels(labels).to_pylist()
    # Of several labels of one product and tag `produce tags` uses the first.
    value_of = {(row[PRODUCT_ID], row["tag"]): row["value"] for row in reversed(rows)}
    group_of = {row[PRODUCT_ID]: row.get("group") for row in reversed(rows)}
    tags = {*TAGS, *(row["tag"] for row in rows)}
    learned: dict[tuple[str, str], dict[str, str | None]] = {}
    outcomes: dict[str, Counter[str]] = {}
    counts: Counter[str] = Counter()
    for edit in newest.to_pylist():
        for tag, words in vocabulary.items():
            before, after = (find_values(edit[name], words) for name in ("caption", "edited_caption"))
            if outcome := _compare(before, after):
                outcomes.setdefault(tag, Counter())[outcome] += 1
            if not after:
                continue
            if tag not in tags:
                counts["not_tags"] += 1
            elif len(after) > 1:
                counts["ambiguous"] += 1
            else:
                product, value = edit[PRODUCT_ID], after.pop()
                is_new = (product, tag) not in value_of
                is_same = value_of.get((product, tag)) == value
                counts["added" if is_new else "confirmed" if is_same else "changed"] += 1
                group = group_of.get(product)
                learned[product, tag] = {PRODUCT_ID: product, "tag": tag, "value": value, "group": group}
    rows = [row for row in rows if (row[PRODUCT_ID], row["tag"]) not in learned] + list(learned.values())
    if not rows:
        raise InvalidInputError(
            f"{edits}: no label can be learned: {counts['ambiguous']:,} edited attributes have several values, "
            f"{counts['not_tags']:,} statements are about no tag; name the labels so far with --labels"
        )
    is_grouped = any(group is not None for group in group_of.values())
    table = pa.Table.from_pylist(rows, CHECKED_SCHEMA if is_grouped else LABELS)
    with replace_atomically(output) as unfinished:
        pq.write_table(table, unfinished)
    return EditsSummary(
        edits=len(newest),
        superseded=superseded,
        outcomes={tag: dict(found) for tag, found in outcomes.items()},
        labels=len(table),
        output=output,
        **{name: counts[name] for name in ("ambiguous", "not_tags", "added", "changed", "confirmed")},
    )


def _read_edits(settings: Settings, file: Path, now: datetime) -> tuple[pa.Table, int]:
    """Return the latest edit of each product, and the number of the others."""
    table = input_files.read_table(file, EDIT_COLUMNS)
    validation.require_columns(table, EDIT_COLUMNS, file)
    ids = text.normalize_ids(validation.parse_text(table, PRODUCT_ID, file))
    captions, edited = (text.normalize_texts(validation.parse_text(table, name, file)) for name in EDIT_COLUMNS[1:3])
    at, time_checks = validation.parse_timestamps(table, "at", file, now)
    known = set(delta.read(settings.table(schema.CATALOGUE_TABLE), [PRODUCT_ID])[PRODUCT_ID].to_pylist())
    checks = [
        RowCheck(PRODUCT_ID, "no product_id", validation.is_blank(ids)),
        RowCheck(PRODUCT_ID, "not a product of the catalogue", np.array([one not in known for one in ids.to_pylist()])),
        RowCheck("caption", "no caption", validation.is_blank(captions)),
        RowCheck("edited_caption", "no edited caption", validation.is_blank(edited)),
        *time_checks,
    ]
    passed, rejected = validation.apply_checks(table, validation.name_rows(ids), checks)
    if rejected:
        first = rejected[0]
        raise InvalidInputError(
            f"{file}: {len(rejected):,} of {len(table):,} edits cannot be used; {first.row_id}, column "
            f"`{first.column}`: {first.reason}; correct or remove them"
        )
    rows = pa.table({PRODUCT_ID: ids, "caption": captions, "edited_caption": edited})
    is_superseded = validation.is_superseded(ids, at.cast(pa.int64()).to_numpy(), passed)
    return rows.filter(pa.array(~is_superseded)), int(is_superseded.sum())


def _compare(before: set[str], after: set[str]) -> str | None:
    """Return one of OUTCOMES; None if neither states a value."""
    if not before and not after:
        return None
    if not before or not after:
        return "added" if after else "withdrawn"
    return "kept" if before == after else "changed"
