"""Which rows `produce catalogue` ingests, repairs and refuses."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import VitrineError
from feature_repo.offline import delta, quarantine, validation
from producers import cli
from producers.catalogue import validate
from producers.catalogue.ingest import ingest_products
from producers.catalogue.repeated_ids import DUPLICATE_ID
from tests.producers.catalogue.shop import (
    GOOD,
    NOW,
    ingest,
    open_deployment,
    read_catalogue,
    read_rejections,
    write_products,
)


def test_stores_a_product_unchanged_with_event_and_created_timestamp(store: Settings) -> None:
    ingest(store, {})
    assert read_catalogue(store) == [
        {
            **{name: GOOD[name] for name in ("product_id", "title", "category", "brand", "price")},
            "image": str(store.file.parent / "shop" / "images" / "p1.jpg"),
            "image_bytes": None,
            **dict.fromkeys(schema.OPTIONAL_PRODUCTS.names),
            "event_timestamp": datetime(2026, 1, 2, tzinfo=UTC),
            "created_timestamp": NOW,
        }
    ]
    assert delta.read(store.table(schema.CATALOGUE_TABLE)).schema.names == schema.CATALOGUE.names


def test_keeps_the_newest_row_of_a_product_id_in_any_order(store: Settings) -> None:
    summary = ingest(
        store,
        {"title": "new", "updated_at": "2026-01-05T00:00:00Z"},
        {"title": "old", "updated_at": "2026-01-03T00:00:00Z"},
        {"title": "too new", "updated_at": "2027-01-01T00:00:00Z"},
    )
    assert [row["title"] for row in read_catalogue(store)] == ["new"]
    assert sorted(row.reason for row in summary.refused) == sorted([DUPLICATE_ID, validation.FUTURE])


def test_of_two_rows_with_one_timestamp_the_later_row_is_used(store: Settings) -> None:
    ingest(store, {"title": "first"}, {"title": "second"})
    assert [row["title"] for row in read_catalogue(store)] == ["second"]


@pytest.mark.parametrize("value", [None, "", " \t"])
def test_refuses_a_null_or_blank_product_id(value: str | None, store: Settings) -> None:
    ingest(store, {}, {"product_id": value})
    assert read_rejections(store) == [("row 2", "product_id", validate.MISSING_ID)]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, validation.NO_TIMESTAMP),
        ("2026-01-02T03:04:05", validation.NAIVE),
        ("last week", validation.UNPARSABLE),
        ("2026-13-02T03:04:05Z", validation.UNPARSABLE),
        ("2026-01-11T00:00:00Z", validation.FUTURE),
    ],
)
def test_refuses_a_missing_naive_unparsable_or_future_timestamp(
    value: str | None, reason: str, store: Settings
) -> None:
    ingest(store, {}, {"product_id": "p2", "updated_at": value})
    assert read_rejections(store) == [("p2", "updated_at", reason)]


@pytest.mark.parametrize("title", [None, "", "   "])
def test_accepts_a_product_without_title_if_it_has_an_image(title: str | None, store: Settings) -> None:
    ingest(store, {"title": title})
    assert [row["title"] for row in read_catalogue(store)] == [None]
    assert read_rejections(store) == []


@pytest.mark.parametrize("image", [None, "", "../secret.jpg", "https://shop.example/p2.jpg"])
def test_refuses_a_product_with_neither_title_nor_image(image: str | None, store: Settings) -> None:
    ingest(store, {}, {"product_id": "p2", "title": None, "image": image})
    assert read_rejections(store) == [("p2", "image", validate.NO_CONTENT)]


def test_cuts_a_title_of_a_hundred_thousand_characters_and_reports_it(store: Settings) -> None:
    assert ingest(store, {"title": "童" * 100_000}).new == 1
    assert [row["title"] for row in read_catalogue(store)] == ["童" * validate.MAX_TITLE_CHARACTERS]
    assert read_rejections(store) == [("p1", "title", validate.TITLE_TOO_LONG)]
    assert ingest(store, {"title": "童" * 100_000}).unchanged == 1


@pytest.mark.parametrize("title", ["👶🏽👨‍👩‍👧 新款", "Baby платье ベビー 아기 طفل", "vs é ❤\u200d🔥"])
def test_keeps_emoji_and_mixed_scripts_as_they_are(title: str, store: Settings) -> None:
    ingest(store, {"title": title})
    assert [row["title"] for row in read_catalogue(store)] == [title]
    assert read_rejections(store) == []


@pytest.mark.parametrize("price", [float("nan"), -1.0, float("inf"), float("-inf")])
def test_sets_an_invalid_price_to_null_and_reports_it(price: float, store: Settings) -> None:
    ingest(store, {"price": price}, {"product_id": "p2", "price": 0.0})
    assert [row["price"] for row in read_catalogue(store)] == [None, 0.0]
    assert read_rejections(store) == [("p1", "price", validate.INVALID_PRICE)]
    assert quarantine.read(store)["value"].to_pylist() == [str(price)]


def test_repairs_only_the_rows_of_a_csv_whose_prices_are_not_numbers(store: Settings) -> None:
    table = pa.Table.from_pylist(
        [
            GOOD | {"product_id": str(row), "price": price}
            for row, price in enumerate(["9.5", "9.50 each", None, " 1e2 "])
        ]
    )
    pyarrow.csv.write_csv(table, store.file.parent / "products.csv")
    ingest_products(store, store.file.parent / "products.csv", NOW)
    assert [row["price"] for row in read_catalogue(store)] == [9.5, None, None, 100.0]
    assert read_rejections(store) == [("1", "price", validate.INVALID_PRICE)]


def test_makes_relative_image_paths_absolute_and_keeps_absolute_ones(store: Settings) -> None:
    ingest(store, {"image": "./a.jpg"}, {"product_id": "p2", "image": "/pictures/b.jpg"})
    assert [row["image"] for row in read_catalogue(store)] == [
        str(store.file.parent / "shop" / "a.jpg"),
        "/pictures/b.jpg",
    ]


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("../other/a.jpg", validate.PATH_LEAVES_FOLDER),
        ("images/../../a.jpg", validate.PATH_LEAVES_FOLDER),
        ("/a/../b.jpg", validate.PATH_LEAVES_FOLDER),
        ("https://shop.example/a.jpg", validate.IMAGE_IS_URL),
        ("//cdn.shop.example/a.jpg", validate.IMAGE_IS_URL),
        (r"images\g5.jpg", validate.PATH_HAS_BACKSLASH),
        (r"..\..\g5.jpg", validate.PATH_HAS_BACKSLASH),
        ("s3://bucket/../a.jpg", validate.IMAGE_IS_URL),
    ],
)
def test_accepts_no_image_from_outside_the_folder_or_from_a_url(image: str, reason: str, store: Settings) -> None:
    summary = ingest(store, {"image": image}, {"product_id": "p2", "image": "a..b/..c.jpg"})
    is_url = "1 products have the URL of an image: `produce images --download` downloads it" in str(summary)
    assert is_url is ("://" in image)
    assert [row["image"] for row in read_catalogue(store)] == [None, str(store.file.parent / "shop" / "a..b/..c.jpg")]
    assert read_rejections(store) == [("p1", "image", reason)]


def test_accepts_images_as_bytes_and_detects_that_they_changed(store: Settings) -> None:
    ingest(store, {"image": b"picture"}, {"product_id": "p2", "image": None})
    assert [(row["image"], row["image_bytes"]) for row in read_catalogue(store)] == [(None, b"picture"), (None, None)]
    summary = ingest(store, {"image": b"another"}, {"product_id": "p2", "image": None})
    assert (summary.changed, summary.unchanged) == (1, 1)


def test_every_row_is_counted_once(store: Settings) -> None:
    rows = [{}, {}, {"product_id": None, "updated_at": "x"}, {"product_id": "p3", "price": -1.0, "colour": "red"}]
    summary = ingest(store, *rows)
    assert summary.read == summary.new + summary.changed + summary.unchanged + len(summary.refused) == 4
    assert (len(summary.refused), len(summary.repairs)) == (2, 1)
    assert str(summary).splitlines() == [
        "read 4 products: 2 new, 0 changed, 0 unchanged, 2 refused",
        f"  refused 1: {validate.MISSING_ID}, such as row 3",
        f"  refused 1: {DUPLICATE_ID}, such as 'p1' of p1",
        f"  dropped 1: {validate.INVALID_PRICE}, such as '-1.0' of p3",
    ]


def test_reports_the_columns_it_ignored(store: Settings) -> None:
    assert ingest(store, {"colour": "red"}).ignored == ("colour",)


@pytest.mark.parametrize("column", schema.PRODUCTS.names)
def test_a_missing_column_raises_one_line_that_names_it(column: str, store: Settings) -> None:
    file = write_products(store, {})
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(file).drop_columns(column), file)
    with pytest.raises(VitrineError, match=rf"products.parquet: no column {column}; expected .* it has .*") as caught:
        ingest_products(store, file, NOW)
    assert "\n" not in str(caught.value)


def test_an_empty_table_raises_one_line(store: Settings) -> None:
    pyarrow.parquet.write_table(schema.PRODUCTS.empty_table(), store.file.parent / "none.parquet")
    with pytest.raises(VitrineError, match=r"none.parquet: the table is empty"):
        ingest_products(store, store.file.parent / "none.parquet", NOW)


def test_a_table_without_a_valid_row_raises_one_line_and_its_rows_are_quarantined(store: Settings) -> None:
    with pytest.raises(VitrineError, match=r"none of its 2 rows is usable: 2 x product id is null or blank"):
        ingest(store, {"product_id": None}, {"product_id": None})
    assert [row for row, _, _ in read_rejections(store)] == ["row 1", "row 2"]
    assert not delta.exists(store.table(schema.CATALOGUE_TABLE))


@pytest.mark.parametrize(
    ("column", "values", "wanted"),
    [
        ("updated_at", pa.array([0], pa.timestamp("us")), "without a time zone"),
        ("updated_at", pa.array([True]), "expected timestamps"),
        ("updated_at", pa.array([2**62], pa.timestamp("ms", tz="UTC")), "out of range"),
        ("price", pa.array([[1.0]]), "expected numbers"),
        ("product_id", pa.array([1.5]), "expected text"),
        ("title", pa.array([True]), "expected text"),
        ("image", pa.array([1.5]), "expected text"),
    ],
)
def test_a_column_of_a_wrong_type_raises_one_line(column: str, values: pa.Array, wanted: str, store: Settings) -> None:
    file = write_products(store, {})
    table = pyarrow.parquet.read_table(file).drop_columns(column).append_column(column, values)
    pyarrow.parquet.write_table(table, file)
    with pytest.raises(VitrineError, match=rf"products.parquet: column `{column}` .*{wanted}"):
        ingest_products(store, file, NOW)


@pytest.mark.parametrize("form", ["parquet", "csv"])
@pytest.mark.parametrize("column", ["title", "product_id", "updated_at", "price"])
def test_a_row_that_is_not_utf8_is_refused_alone(form: str, column: str, store: Settings) -> None:
    file = write_products(store, {"product_id": "a"}, {"product_id": "b"}, {"product_id": "c"})
    table = pyarrow.parquet.read_table(file)
    values = table[column].cast(pa.string()).cast(pa.binary()).to_pylist()
    values[1] = "连衣裙".encode("gbk")
    table = table.drop_columns(column).append_column(column, pa.array(values).view(pa.string()))
    if form == "csv":
        names = table.column_names
        rows = zip(*(table[name].cast(pa.string()).cast(pa.binary()).to_pylist() for name in names), strict=True)
        lines = [",".join(names).encode(), *(b",".join(value or b"" for value in row) for row in rows)]
        file = file.with_suffix(".csv")
        file.write_bytes(b"\n".join(lines).replace(b" 00:00:00.000000Z", b"T00:00:00Z"))
    else:
        pyarrow.parquet.write_table(table, file)
    assert {row["product_id"] for row in read_catalogue_after(store, file)} == {"a", "c"}
    assert read_rejections(store) == [
        ("b" if column != "product_id" else "line 3" if form == "csv" else "row 2", column, "not UTF-8")
    ]


def read_catalogue_after(store: Settings, file: Path) -> list[dict]:
    ingest_products(store, file, NOW)
    return read_catalogue(store)


def test_the_command_prints_the_summary(store: Settings) -> None:
    arguments = [
        "catalogue",
        "--products",
        str(write_products(store, *({"product_id": f"p{number}"} for number in range(4)), {"product_id": None})),
        "--store",
        str(store.file),
    ]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0
    assert "read 5 products: 4 new, 0 changed, 0 unchanged, 1 refused" in result.output


def test_a_csv_gives_the_same_rows_as_parquet(tmp_path: Path) -> None:
    rows = [
        {},
        {"product_id": "twice", "title": "first"},
        {"product_id": "twice", "title": "second"},
        {"product_id": None},
        {"product_id": "untitled", "title": None},
        {"product_id": "nothing", "title": None, "image": None},
        {"product_id": "long", "title": "童" * 100_000},
        {"product_id": "👶🏽", "title": '👨‍👩‍👧 "платье",\n新款 طفل'},
        {"product_id": "nan", "price": float("nan")},
        {"product_id": "negative", "price": -1.0},
        {"product_id": "naive", "updated_at": "2026-01-02T00:00:00"},
        {"product_id": "future", "updated_at": "2027-01-01T00:00:00Z"},
        {"product_id": "unparsable", "updated_at": "soon"},
        {"product_id": "undated", "updated_at": None},
        {"product_id": "url", "image": "https://shop.example/a.jpg"},
    ]
    found = {}
    for form in ("parquet", "csv"):
        (tmp_path / form).mkdir()
        store = open_deployment(tmp_path / form)
        file = write_products(store, *rows)
        if form == "csv":
            pyarrow.csv.write_csv(pyarrow.parquet.read_table(file), file.with_suffix(".csv"))
        ingest_products(store, file.with_suffix(f".{form}"), NOW)
        catalogue_rows = [row | {"image": row["image"] and Path(row["image"]).name} for row in read_catalogue(store)]
        found[form] = catalogue_rows, read_rejections(store)
    assert found["csv"][0] == found["parquet"][0]
    assert found["csv"][1] == [("line 5" if name == "row 4" else name, *why) for name, *why in found["parquet"][1]]
    assert len(found["csv"][0]) == 8
