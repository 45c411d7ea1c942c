"""The tables of an import, and how they are written: the folder of a shop with the tables that the set has.

    products.parquet     schema.PRODUCTS, and `seller_id` and `description` where there are any; `image` is an absolute
                         path into the set, or bytes
    labels.parquet       schema.LABELS, `group`, and `split` where the set has its own
    impressions.parquet  schema.IMPRESSIONS and context
    users.parquet        user_id, child_birthday, child_gender
    pairs.parquet        left, right (product ids), same (0 or 1), split
    queries.parquet      query_id, query, product_id, relevant (1), split; `consume search-report` reads it
    captions.parquet     product_id, caption, split
    refused.parquet      schema.QUARANTINE: refused rows and repaired values, with the reason

Images are not copied; paths point into the set's own folder. The checks of `produce catalogue` are not repeated here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from feature_repo import schema
from feature_repo.offline.quarantine import RejectedRow, count_by_reason, to_table

LABELS = schema.LABELS.append(pa.field("group", pa.string()))
USERS = pa.schema([(schema.USER_ID, pa.string()), ("child_birthday", pa.date32()), ("child_gender", pa.string())])
PAIRS = pa.schema([("left", pa.string()), ("right", pa.string()), ("same", pa.int8()), ("split", pa.string())])
QUERIES = pa.schema(
    [
        ("query_id", pa.int64()),
        ("query", pa.string()),
        ("product_id", pa.string()),
        ("relevant", pa.int8()),
        ("split", pa.string()),
    ]
)
CAPTIONS = pa.schema([("product_id", pa.string()), ("caption", pa.string()), ("split", pa.string())])
REFUSED = "refused"
TABLES = ("products", "labels", "impressions", "users", "pairs", "queries", "captions")


@dataclass(frozen=True)
class ImportedTables:
    """A data set, converted to the tables of a shop and held in memory."""

    tables: dict[str, pa.Table]
    """Tables by their name in TABLES; tables that the set does not have are left out."""
    refused: Sequence[RejectedRow] = ()
    """Refused rows and repaired values of all of the set's files."""
    remarks: Sequence[str] = ()
    """Notes for users of the set, one line each."""


@dataclass(frozen=True)
class ImportSummary:
    """What an import wrote."""

    output: Path
    """The folder of the tables."""
    rows: dict[str, int]
    """Number of rows by name of the table, in the order of `ImportedTables.tables`; REFUSED is the last, and there even
    if it is 0."""
    reasons: dict[str, int]
    """Number of refused rows and repaired values by reason, the most frequent first."""
    remarks: Sequence[str] = field(default=())
    """Notes for users of the set, one line each."""

    def __str__(self) -> str:
        """Return one line of counts, and one more for each reason and each remark."""
        counted = [f"{rows:,} {name}" for name, rows in self.rows.items()]
        lines = [f"{self.output}: " + ", ".join(counted) + " or repaired"]
        lines += [f"  {rows:,}: {reason}" for reason, rows in self.reasons.items()]
        return "\n".join(lines + [f"  {remark}" for remark in self.remarks])


def write(imported: ImportedTables, name: str, output: Path, now: datetime) -> ImportSummary:
    """Write an import to a folder. Tables of an earlier import are replaced or removed; other files there stay.

    `refused.parquet` is always written, even without rows. The files are replaced one after the other, so a killed
    run leaves some old and some new ones.

    Args:
        imported: the tables.
        name: the data set's name, which `refused.parquet` has in the column `step` as `import NAME`.
        output: the folder, which is created if missing, with its parents.
        now: the created timestamp of refused rows, with a time zone.

    Returns:
        The folder, the number of rows of each table, the reasons of refusals and the remarks.
    """
    output.mkdir(parents=True, exist_ok=True)
    tables = {**imported.tables, REFUSED: to_table(f"import {name}", imported.refused, now)}
    for table_name in (*TABLES, REFUSED):
        file = output / f"{table_name}.parquet"
        file.unlink(missing_ok=True)
        if table_name in tables:
            pyarrow.parquet.write_table(tables[table_name], file)
    rows = {table_name: table.num_rows for table_name, table in tables.items()}
    return ImportSummary(output, rows, count_by_reason(imported.refused), imported.remarks)


def build_products(rows: Sequence[dict[str, Any]], *, described: bool = False) -> pa.Table:
    """Return rows as a table of schema.PRODUCTS and of the columns of schema.OPTIONAL_PRODUCTS that a row has.

    Rows keep their order.

    Args:
        rows: for each product the values by column name. A missing key becomes null; any other key is ignored.
        described: whether the table has a further last column `description`.
    """
    fields = [
        *schema.PRODUCTS,
        *(field for field in schema.OPTIONAL_PRODUCTS if any(field.name in row for row in rows)),
    ]
    fields += [pa.field("description", pa.string())] * described
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def build_labels(rows: Sequence[tuple[str, str, str | None, str]]) -> pa.Table:
    """Return labels as a table of LABELS, in their order.

    Args:
        rows: product id, tag (one of schema.TAGS), value and group of each label. A row whose value is None is left
            out. Products of one group must not be separated when the set is split.
    """
    stated = [dict(zip(LABELS.names, row, strict=True)) for row in rows if row[2] is not None]
    return pa.Table.from_pylist(stated, schema=LABELS)


def start_of_year(year: int) -> datetime:
    """Return midnight of 1 January of a year in UTC, for sets that have no times but their year of publication."""
    return datetime(year, 1, 1, tzinfo=UTC)


def find_age_stage(low: float, high: float) -> str | None:
    """Return the child age stage (one of CHILD_AGES) that contains all ages in [low, high), both in months.

    None if no single stage contains them all, as beyond the last stage, and if `low` is not less than `high`.
    """
    for stage, start, end in zip(schema.CHILD_AGES, schema.CHILD_AGE_MONTHS, schema.CHILD_AGE_MONTHS[1:], strict=False):
        if start <= low < high <= end:
            return stage
    return None
