"""A store, and files of products that are good but for what a test says."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from feature_repo import config, schema
from feature_repo.config import Settings
from feature_repo.offline import delta, quarantine
from producers.catalogue.ingest import IngestSummary, ingest_products

DIGESTS = ["image_hash", "image_stat", "fingerprint"]
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


def opened(folder: Path) -> Settings:
    """A deployment of its own in a folder."""
    (folder / "feature_store.yaml").write_text("project: test\noffline_store:\n  path: offline\n")
    return config.load(folder / "feature_store.yaml")


def written(store: Settings, *rows: dict[str, Any]) -> Path:
    """A file of rows, each GOOD but for what it says."""
    folder = store.file.parent / "shop"
    folder.mkdir(exist_ok=True)
    pyarrow.parquet.write_table(pa.Table.from_pylist([GOOD | row for row in rows]), folder / "products.parquet")
    return folder / "products.parquet"


def taken(store: Settings, *rows: dict[str, Any], now: datetime = NOW) -> IngestSummary:
    return ingest_products(store, written(store, *rows), now)


def known(store: Settings) -> list[dict[str, Any]]:
    """The catalogue as a shop sees it, without digests, in the order of product and time."""
    rows = delta.read(store.table(schema.CATALOGUE_TABLE)).drop_columns(DIGESTS).to_pylist()
    return sorted(rows, key=lambda row: (row["product_id"], row["event_timestamp"], row["created_timestamp"]))


def refused(store: Settings) -> list[tuple[str, str, str]]:
    return [(row["row_id"], row["column"], row["reason"]) for row in quarantine.read(store).to_pylist()]
