"""Impressions files whose rows are valid except for the values that a test overrides."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from feature_repo.offline.impressions import CheckedImpressions, read_impressions

NOW = datetime(2026, 1, 10, tzinfo=UTC)
GOOD = {
    "impression_id": "i1",
    "user_id": "u1",
    "product_id": "p1",
    "event_timestamp": "2026-01-02T03:04:05Z",
    "clicked": 1,
}


def write_impressions(folder: Path, *rows: dict[str, object], name: str = "impressions.parquet") -> Path:
    """Write an impressions file; each row is GOOD with the given values replaced."""
    everything = dict.fromkeys(key for row in rows for key in row)
    table = pa.Table.from_pylist([everything | GOOD | row for row in rows])
    file = folder / name
    pyarrow.parquet.write_table(table, file) if name.endswith("parquet") else pyarrow.csv.write_csv(table, file)
    return file


def read(folder: Path, *rows: dict[str, object]) -> CheckedImpressions:
    """Read a file of the rows, after a valid one."""
    return read_impressions(write_impressions(folder, GOOD, *rows), now=NOW)


def reasons(found: CheckedImpressions) -> list[tuple[str, str, str]]:
    return [(row.row_id, row.column, row.reason) for row in found.refused]
