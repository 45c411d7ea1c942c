"""Seller, stock, sales and further images of products, which a table may lack."""

from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.offline import delta
from producers.catalogue import optional_columns
from producers.catalogue.ingest import ingest_products
from tests.producers.catalogue.shop import GOOD, NOW, ingest, read_catalogue, read_rejections

FULL = {"seller_id": "s1", "in_stock": True, "sales": 7, "images": ["images/2.jpg", "/abs/3.jpg"]}
LATER = {"updated_at": "2026-01-03T00:00:00Z"}


def test_keeps_what_is_given_and_makes_paths_absolute(store: Settings) -> None:
    ingest(store, FULL)
    row = read_catalogue(store)[0]
    assert {name: row[name] for name in ("seller_id", "in_stock", "sales")} == {
        "seller_id": "s1",
        "in_stock": True,
        "sales": 7,
    }
    assert row["images"] == [str(store.file.parent / "shop" / "images" / "2.jpg"), "/abs/3.jpg"]


def test_reads_them_from_a_csv_as_texts(store: Settings) -> None:
    file = store.file.parent / "products.csv"
    texts = GOOD | {"seller_id": " 12 ", "in_stock": "no", "sales": "3", "images": "a.jpg|b.jpg"}
    pyarrow.csv.write_csv(pa.Table.from_pylist([texts]), file)
    ingest_products(store, file, NOW)
    row = read_catalogue(store)[0]
    assert (row["seller_id"], row["in_stock"], row["sales"]) == ("12", False, 3)
    assert row["images"] == [str(store.file.parent / name) for name in ("a.jpg", "b.jpg")]


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("in_stock", "perhaps", optional_columns.INVALID_STOCK),
        ("sales", -1, optional_columns.INVALID_SALES),
        ("sales", 1.5, optional_columns.INVALID_SALES),
        ("images", ["https://shop.example/1.jpg"], optional_columns.INVALID_IMAGES),
        ("images", ["../secret.jpg"], optional_columns.INVALID_IMAGES),
    ],
)
def test_drops_a_value_that_cannot_be_read_and_keeps_the_row(
    store: Settings, column: str, value: object, reason: str
) -> None:
    ingest(store, {column: value})
    assert read_catalogue(store)[0][column] is None
    assert read_rejections(store) == [("p1", column, reason)]


def test_a_change_of_any_of_them_is_a_new_version_and_no_change_is_none(store: Settings) -> None:
    ingest(store, FULL)
    assert ingest(store, FULL | LATER).unchanged == 1
    for column, value in {"seller_id": "s2", "in_stock": False, "sales": 8, "images": ["images/2.jpg"]}.items():
        assert ingest(store, FULL | LATER | {column: value}).changed == 1, column


def test_a_catalogue_that_was_stored_without_them_gets_them_with_the_next_change(store: Settings) -> None:
    ingest(store, {}, {"product_id": "p2"})
    path = store.table(schema.CATALOGUE_TABLE)
    old = delta.read(path).drop_columns(schema.OPTIONAL_PRODUCTS.names)
    delta.overwrite(path, old)  # as version 0.2 wrote it
    assert ingest(store, {}, {"product_id": "p2"}).unchanged == 2, "a row without them has the fingerprint of old"
    assert ingest(store, FULL | LATER, {"product_id": "p2"}).changed == 1
    sellers = [(row["product_id"], row["seller_id"]) for row in read_catalogue(store)]
    assert sellers == [("p1", None), ("p1", "s1"), ("p2", None)]


def test_a_table_without_them_still_fits_a_catalogue_that_has_them(store: Settings, tmp_path: Path) -> None:
    ingest(store, FULL)
    assert ingest(store, LATER).changed == 1
    assert [row["sales"] for row in read_catalogue(store)] == [7, None]
