"""Reads and checks the label file. Labels that cannot be used are returned with the reason."""

from collections.abc import Callable, Container, Sequence
from pathlib import Path

import pyarrow as pa

from feature_repo.arrow import text
from feature_repo.errors import InvalidInputError
from feature_repo.offline import input_files, validation
from feature_repo.offline.quarantine import RejectedRow
from feature_repo.schema import CHILD_AGES, CHILD_GENDERS, LABELS, PRODUCT_ID, TAGS
from feature_repo.table_format import DEFAULT_FORMAT, TableFormat

TAG_VALUES = {"child_age": CHILD_AGES, "child_gender": CHILD_GENDERS}
"""The allowed values of each tag. A category may be any text."""

_NORMALIZE = {
    PRODUCT_ID: text.normalize_ids,
    "tag": text.normalize_texts,
    "value": text.normalize_categories,
    "group": text.normalize_ids,
}

CHECKED_SCHEMA = pa.schema([*LABELS, ("group", pa.string())])
"""Columns of the valid labels."""


def read_labels(
    file: Path,
    table_format: TableFormat = DEFAULT_FORMAT,
    on_refused: Callable[[Sequence[RejectedRow]], None] = input_files.warn_of_rows,
) -> pa.Table:
    """Return the rows of a label file, in its order, with the columns of schema.LABELS, and `group` if the file has it.

    The values are not checked and may be null. Numbers become text. Texts are normalised (feature_repo.arrow.text),
    `value` as a category path, so that labels that look equal are one class.

    Args:
        file: Parquet or CSV with product_id, tag and value, and optionally `group`; other columns are ignored.
        table_format: What the user says about the file.
        on_refused: Called with the rows of a CSV that do not fit its header.

    Raises:
        VitrineError: The file cannot be read, has no rows, or lacks a column.
        InvalidInputError: A column cannot be turned into text, such as one of lists.
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


def check_labels(labels: pa.Table, product_ids: Container[str]) -> tuple[pa.Table, list[RejectedRow]]:
    """Split labels into valid and refused ones.

    Args:
        labels: As returned by `read_labels`. A product without a group is its own group.
        product_ids: The products that have vectors. Labels of other products are refused.

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
        fault = _find_fault(row, product_ids)
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


def _find_fault(row: dict[str, str | None], product_ids: Container[str]) -> tuple[str, str] | None:
    """Return the column and the reason if a row is invalid by itself, else None."""
    product, tag, value = row[PRODUCT_ID], row["tag"], row["value"]
    if product not in product_ids:
        return PRODUCT_ID, "unknown product, or product without vectors"
    if tag not in TAGS:
        return "tag", f"unknown tag: it must be one of {', '.join(TAGS)}"
    if value is None or not value.strip():
        return "value", "no value"
    if tag in TAG_VALUES and value not in TAG_VALUES[tag]:
        return "value", f"not a {tag}: it must be one of {', '.join(TAG_VALUES[tag])}"
    return None
