"""What a data set gave, and how it is written: the folder of a shop, with as much of it as the set has.

    products.parquet     schema.PRODUCTS and `description` where there is one; `image` is an absolute path into the set
    labels.parquet       schema.LABELS, `group`, and `split` where the set has its own
    impressions.parquet  schema.IMPRESSIONS and context
    users.parquet        user_id, child_birthday, child_gender
    pairs.parquet        left, right (product ids), same (0 or 1), split
    refused.parquet      schema.QUARANTINE: what was left out or mended, with its reason

Pictures are not copied: the set stays where it lies. What the catalogue checks of every shop is not checked here.
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
REFUSED = "refused"
TABLES = ("products", "labels", "impressions", "users", "pairs")


@dataclass(frozen=True)
class ImportedTables:
    """What a data set gave."""

    parts: dict[str, pa.Table]
    """Tables by their name in PARTS; a part that the set does not have is left out."""
    refused: Sequence[RejectedRow] = ()
    remarks: Sequence[str] = ()
    """What a user of the set should know, a line each."""


@dataclass(frozen=True)
class ImportSummary:
    """What was written where; the part REFUSED comes last."""

    out: Path
    rows: dict[str, int]
    reasons: dict[str, int]
    remarks: Sequence[str] = field(default=())

    def __str__(self) -> str:
        """One line, and one more for each reason and remark."""
        counted = [f"{rows:,} {part}" for part, rows in self.rows.items()]
        lines = [f"{self.out}: " + ", ".join(counted) + " or mended"]
        lines += [f"  {rows:,}: {reason}" for reason, rows in self.reasons.items()]
        return "\n".join(lines + [f"  {remark}" for remark in self.remarks])


def write(found: ImportedTables, name: str, out: Path, now: datetime) -> ImportSummary:
    """Write the parts into the folder `out`, which is made; parts of an earlier import are replaced or removed."""
    out.mkdir(parents=True, exist_ok=True)
    tables = {**found.parts, REFUSED: to_table(f"import {name}", found.refused, now)}
    for part in (*TABLES, REFUSED):
        file = out / f"{part}.parquet"
        file.unlink(missing_ok=True)
        if part in tables:
            pyarrow.parquet.write_table(tables[part], file)
    rows = {part: table.num_rows for part, table in tables.items()}
    return ImportSummary(out, rows, count_by_reason(found.refused), found.remarks)


def build_products(rows: Sequence[dict[str, Any]], *, described: bool = False) -> pa.Table:
    """Rows as schema.PRODUCTS, with a column `description` if there are any; what a row does not have is null."""
    wanted = schema.PRODUCTS.append(pa.field("description", pa.string())) if described else schema.PRODUCTS
    return pa.Table.from_pylist(rows, schema=wanted)


def build_labels(rows: Sequence[tuple[str, str, str | None, str]]) -> pa.Table:
    """(product_id, tag, value, group) as LABELS, without those whose value is None."""
    stated = [dict(zip(LABELS.names, row, strict=True)) for row in rows if row[2] is not None]
    return pa.Table.from_pylist(stated, schema=LABELS)


def start_of_year(year: int) -> datetime:
    """The first instant of a year, in UTC: for sets that state no time but that of their publication."""
    return datetime(year, 1, 1, tzinfo=UTC)
