"""Reads and checks the label file. Labels that cannot be used are returned with the reason."""

from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa

from feature_repo.age_scale import AgeScale
from feature_repo.arrow import text
from feature_repo.errors import InvalidInputError
from feature_repo.offline import input_files, validation
from feature_repo.offline.quarantine import RejectedRow, count_by_reason
from feature_repo.schema import CHILD_GENDERS, LABELS, PRODUCT_ID, TAG_SEPARATOR
from feature_repo.table_format import DEFAULT_FORMAT, TableFormat

TagValues: TypeAlias = Mapping[str, tuple[str, ...]]
"""Tag -> its allowed values, in the order of the distributions. Any other tag may have any text as its value."""

_NORMALIZE = {
    PRODUCT_ID: text.normalize_ids,
    "tag": text.normalize_texts,
    "value": text.normalize_categories,
    "group": text.normalize_ids,
}

CHECKED_SCHEMA = pa.schema([*LABELS, ("group", pa.string())])
"""Columns of the valid labels."""


def list_tag_values(age_scale: AgeScale) -> TagValues:
    """Return the allowed values of the tags that have fixed ones, in a deployment with this scale of ages."""
    return {"child_age": age_scale.stages, "child_gender": CHILD_GENDERS}


def read_labels(
    file: Path,
    table_format: TableFormat = DEFAULT_FORMAT,
    on_refused: Callable[[Sequence[RejectedRow]], None] = input_files.warn_of_rows,
) -> pa.Table:
    """Return the rows of a label file, in its order, with the columns of schema.LABELS, and `group` if the file has it.

    The values are not checked and may be null. Numbers become text. Texts are normalized (feature_repo.arrow.text),
    `value` as a category path, so that labels that look equal are one class.

    Args:
        file: Parquet or CSV with product_id, tag and value, and optionally `group`; other columns are ignored.
        table_format: what the user says about the file.
        on_refused: called with the rows of a CSV that do not fit its header.

    Raises:
        VitrineError: the file cannot be read, has no rows, or lacks a column.
        InvalidInputError: a column cannot be turned into text, such as one of lists.
    """
    table = input_files.read_table(file, CHECKED_SCHEMA.names, table_format=table_format, on_refused=on_refused)
    validation.require_columns(table, LABELS.names, file)
    names = [name for name in CHECKED_SCHEMA.names if name in table.schema.names]
    table, invalid = validation.null_invalid_utf8(table, names)
    if invalid:
        raise InvalidInputError(
            f"{file}: column `{invalid[0].column}` holds bytes that are not UTF-8; write it as UTF-8"
        )
    try:
        labels = table.select(names).cast(pa.schema([CHECKED_SCHEMA.field(name) for name in names]))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise InvalidInputError(f"{file}: the columns {', '.join(names)} must be text ({error})") from error
    columns = [_NORMALIZE[name](labels[name]) for name in names]
    return pa.table(columns, names=names)


def check_labels(
    labels: pa.Table, product_ids: Container[str], tag_values: TagValues
) -> tuple[pa.Table, list[RejectedRow]]:
    """Split labels into valid and refused ones.

    Args:
        labels: as returned by `read_labels`. A product without a group is its own group.
        product_ids: the products that have vectors. Labels of other products are refused.
        tag_values: the allowed values of tags.

    Returns:
        The valid labels with CHECKED_SCHEMA, at most one for each product and tag, sorted by product and tag, without
        nulls; `group` is `group NAME`, or `product ID` for a product without a group. And the refused labels in the
        order of the file. A label that repeats or contradicts an earlier one of the same product and tag is refused,
        and so is one with another group than an earlier label of the product. A refused label without a product id is
        named `row N`, counted from 1.
    """
    refused: list[RejectedRow] = []
    values: dict[tuple[str, str], str] = {}
    groups: dict[str, str] = {}
    for number, row in enumerate(labels.to_pylist(), start=1):
        product, tag, value = row[PRODUCT_ID], row["tag"], row["value"]
        group = f"product {product}" if row.get("group") is None else f"group {row['group']}"
        fault = _find_fault(row, product_ids, tag_values)
        if fault is None and groups.get(product, group) != group:
            fault = "group", "differs from the group of an earlier label of the product"
        elif fault is None and (product, tag) in values:
            is_same = values[product, tag] == value
            fault = "value", "repeats an earlier label" if is_same else "contradicts an earlier label"
        if fault is None:
            values[product, tag] = value
            groups[product] = group
        else:
            column, reason = fault
            refused.append(RejectedRow(product or f"row {number}", column, reason, row[column]))
    rows = [
        {PRODUCT_ID: product, "tag": tag, "value": value, "group": groups[product]}
        for (product, tag), value in sorted(values.items())
    ]
    return pa.Table.from_pylist(rows, schema=CHECKED_SCHEMA), refused


def describe_refused(refused: Sequence[RejectedRow]) -> list[str]:
    """Return a text for each reason with the number of labels and an example, the most frequent first.

    Such as "12 labels: not a child_age: it must be one of baby, toddler (for example `24M+`)".
    """
    examples: dict[str, str | None] = {}
    for row in refused:
        examples.setdefault(row.reason, row.value)
    return [
        f"{count:,} label{'s' * (count > 1)}: {reason}"
        + ("" if examples[reason] is None else f" (for example `{examples[reason]:.40}`)")
        for reason, count in count_by_reason(refused).items()
    ]


def _find_fault(
    row: dict[str, str | None], product_ids: Container[str], tag_values: TagValues
) -> tuple[str, str] | None:
    """Return the column and the reason if a row is invalid by itself, else None."""
    product, tag, value = row[PRODUCT_ID], row["tag"], row["value"]
    if product not in product_ids:
        return PRODUCT_ID, "unknown product, or product without vectors"
    if tag is None or not tag.strip():
        return "tag", "no tag"
    if TAG_SEPARATOR in tag:
        return "tag", f"a tag must not hold `{TAG_SEPARATOR}`"
    if value is None or not value.strip():
        return "value", "no value"
    if tag in tag_values and value not in tag_values[tag]:
        return "value", f"not a {tag}: it must be one of {', '.join(tag_values[tag])}"
    return None
