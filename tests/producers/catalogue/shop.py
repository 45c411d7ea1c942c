"""A deployment, and products files whose rows are valid except for the values that a test overrides."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from feature_repo import config, schema
from feature_repo.config import Settings
from feature_repo.offline import delta, quarantine
from producers.catalogue.ingest import IngestSummary, ingest_products

HASH_COLUMNS = ["image_hash", "image_stat", "fingerprint"]
NOW = datetime(2026, 1, 10, tzinfo=UTC)
GOOD = {
    "product_id": "p1",
    "title": "女童连衣裙",
    "image": "images/p1.jpg",
    "category": "童装>裙",
    "brand": "Acme",
    "price": 59.0,
    "updated_at": "2026-01-02T00:00:00Z",
}


def open_deployment(folder: Path) -> Settings:
    """Create a deployment in a folder and return its settings."""
    (folder / "feature_store.yaml").write_text("project: test\noffline_store:\n  path: offline\n")
    return config.load(folder / "feature_store.yaml")


def write_products(store: Settings, *rows: dict[str, Any]) -> Path:
    """Write a products file; each row is GOOD with the given values replaced."""
    folder = store.file.parent / "shop"
    folder.mkdir(exist_ok=True)
    pyarrow.parquet.write_table(pa.Table.from_pylist([GOOD | row for row in rows]), folder / "products.parquet")
    return folder / "products.parquet"


def ingest(store: Settings, *rows: dict[str, Any], now: datetime = NOW) -> IngestSummary:
    return ingest_products(store, write_products(store, *rows), now)


def read_catalogue(store: Settings) -> list[dict[str, Any]]:
    """Return the rows of the catalogue without the hash columns, sorted by product and time."""
    rows = delta.read(store.table(schema.CATALOGUE_TABLE)).drop_columns(HASH_COLUMNS).to_pylist()
    return sorted(rows, key=lambda row: (row["product_id"], row["event_timestamp"], row["created_timestamp"]))


def read_rejections(store: Settings) -> list[tuple[str, str, str]]:
    return [(row["row_id"], row["column"], row["reason"]) for row in quarantine.read(store).to_pylist()]
