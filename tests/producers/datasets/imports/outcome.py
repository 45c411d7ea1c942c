"""Read what an import wrote."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet

from producers.datasets.imports.registry import import_dataset
from tests.producers.datasets.imports.tiny import MAKERS

NOW = datetime(2026, 1, 10, tzinfo=UTC)


def imported(name: str, folder: Path) -> Path:
    MAKERS[name](folder / "from")
    import_dataset(name, folder / "from", folder / "out", NOW)
    return folder / "out"


def rows(out: Path, part: str) -> list[dict[str, Any]]:
    return pyarrow.parquet.read_table(out / f"{part}.parquet").to_pylist()


def products(out: Path) -> dict[str, dict[str, Any]]:
    return {row["product_id"]: row for row in rows(out, "products")}


def labels(out: Path) -> set[tuple[str, str, str]]:
    return {(row["product_id"], row["tag"], row["value"]) for row in rows(out, "labels")}


def refused(out: Path) -> list[tuple[str, str, str]]:
    return [(row["row_id"], row["reason"], row["value"]) for row in rows(out, "refused")]
