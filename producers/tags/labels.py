"""Labels that people gave, checked: what cannot be used is refused with its reason."""

from collections.abc import Container
from pathlib import Path

import pyarrow as pa

from feature_repo.errors import VitrineError
from feature_repo.offline import input_files, validation
from feature_repo.offline.quarantine import RejectedRow
from feature_repo.schema import CHILD_AGES, CHILD_GENDERS, LABELS, PRODUCT_ID, TAGS

TAG_VALUES = {"child_age": CHILD_AGES, "child_gender": CHILD_GENDERS}
"""The values that a tag may have; a category may be any text."""

CHECKED_SCHEMA = pa.schema([*LABELS, ("group", pa.string())])


def read_labels(file: Path) -> pa.Table:
    """The label file as it is: schema.LABELS, and `group` if it has one.

    Raises:
        VitrineError: it is no table in Parquet or CSV, is empty, or lacks one of the columns or has another type in it.
    """
    table = input_files.read_table(file, CHECKED_SCHEMA.names)
    validation.require_columns(table, LABELS.names, file)
    names = [name for name in CHECKED_SCHEMA.names if name in table.schema.names]
    try:
        return table.select(names).cast(pa.schema([CHECKED_SCHEMA.field(name) for name in names]))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise VitrineError(f"{file}: the columns {', '.join(names)} must be text ({error})") from error


def check_labels(labels: pa.Table, known: Container[str]) -> tuple[pa.Table, list[RejectedRow]]:
    """The usable labels, at most one for a product and tag, and the refused rows.

    Args:
        labels: as `read` gives them. A product without a group is a group of its own.
        known: the products that have vectors.

    Returns:
        CHECKED, sorted by product and tag, no nulls; and what was refused, in the order of the file. Where a product
        has two values of one tag, or two groups, the first stands and the others are refused.
    """
    refused: list[RejectedRow] = []
    values: dict[tuple[str, str], str] = {}
    groups: dict[str, str] = {}
    for number, row in enumerate(labels.to_pylist(), start=1):
        product, tag, value = row[PRODUCT_ID], row["tag"], row["value"]
        group = f"product {product}" if row.get("group") is None else f"group {row['group']}"
        fault = _fault(row, known)
        if fault is None and groups.get(product, group) != group:
            fault = "group", "another group than in an earlier label"
        elif fault is None and (product, tag) in values:
            same = values[product, tag] == value
            fault = "value", "repeats an earlier label" if same else "contradicts an earlier label"
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


def _fault(row: dict[str, str | None], known: Container[str]) -> tuple[str, str] | None:
    """Column and reason of what is wrong with a row by itself."""
    product, tag, value = row[PRODUCT_ID], row["tag"], row["value"]
    if product not in known:
        return PRODUCT_ID, "unknown product, or one without vectors"
    if tag not in TAGS:
        return "tag", f"unknown tag: it must be one of {', '.join(TAGS)}"
    if value is None or not value.strip():
        return "value", "no value"
    if tag in TAG_VALUES and value not in TAG_VALUES[tag]:
        return "value", f"not a {tag}: it must be one of {', '.join(TAG_VALUES[tag])}"
    return None
