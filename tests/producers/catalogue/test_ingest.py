"""What a day's products table adds, which images are read, and which products are gone."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import VitrineError
from feature_repo.images import decoding, image_store
from feature_repo.offline import delta, versions
from producers import cli
from producers.catalogue import image_hashes
from producers.catalogue import ingest as catalogue
from producers.catalogue.ingest import ingest_products
from producers.catalogue.repeated_ids import DUPLICATE_ID
from tests.producers.catalogue.shop import NOW, ingest, read_catalogue, write_products

DAY = timedelta(days=1)


@pytest.fixture
def read_images(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the images that are read, in order."""
    names: list[str] = []
    read_bytes = decoding.read_bytes

    def record(path: Path) -> bytes:
        names.append(path.name)
        return read_bytes(path)

    monkeypatch.setattr(image_hashes.decoding, "read_bytes", record)
    return names


def write_image(store: Settings, name: str, content: bytes, seconds: int = 1) -> None:
    """Write a file with the given modification time."""
    file = store.file.parent / "shop" / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    os.utime(file, (seconds, seconds))


def read_image_hashes(store: Settings) -> list[bytes | None]:
    return delta.read(store.table(schema.CATALOGUE_TABLE)).sort_by("created_timestamp")["image_hash"].to_pylist()


def read_gone(store: Settings) -> list[str]:
    return sorted(versions.read_gone_products(store.table(schema.ACTIVE_TABLE)).to_pylist())


def test_a_file_is_read_once_while_path_size_and_modification_time_are_unchanged(
    store: Settings, read_images: list[str]
) -> None:
    write_image(store, "a.jpg", b"red")
    assert ingest(store, {"image": "a.jpg"}).new == 1
    assert ingest(store, {"image": "a.jpg"}).unchanged == 1
    assert read_images == ["a.jpg"]


@pytest.mark.parametrize(("content", "seconds"), [(b"another", 1), (b"blu", 2)])
def test_a_changed_image_file_is_a_change_of_the_product(content: bytes, seconds: int, store: Settings) -> None:
    write_image(store, "a.jpg", b"red")
    ingest(store, {"image": "a.jpg"})
    write_image(store, "a.jpg", content, seconds)
    assert ingest(store, {"image": "a.jpg"}, now=NOW + DAY).changed == 1
    assert len(set(read_image_hashes(store))) == 2
    assert ingest(store, {"image": "a.jpg"}, now=NOW + 2 * DAY).unchanged == 1


def test_a_new_modification_time_alone_is_not_a_change(store: Settings, read_images: list[str]) -> None:
    write_image(store, "a.jpg", b"red")
    ingest(store, {"image": "a.jpg"})
    write_image(store, "a.jpg", b"red", seconds=9)
    assert ingest(store, {"image": "a.jpg"}).unchanged == 1
    assert read_images == ["a.jpg", "a.jpg"]


def test_a_changed_image_with_the_same_size_and_time_is_detected_only_by_rehash(store: Settings) -> None:
    write_image(store, "a.jpg", b"red")
    ingest(store, {"image": "a.jpg"})
    write_image(store, "a.jpg", b"blu")
    file = write_products(store, {"image": "a.jpg"})
    assert ingest_products(store, file, NOW + DAY).unchanged == 1
    assert ingest_products(store, file, NOW + DAY, rehash=True).changed == 1


def test_an_image_that_was_missing_and_exists_now_is_a_change(store: Settings) -> None:
    assert ingest(store, {"image": "a.jpg"}).new == 1
    assert ingest(store, {"image": "a.jpg"}, now=NOW + DAY).unchanged == 1
    write_image(store, "a.jpg", b"red")
    assert ingest(store, {"image": "a.jpg"}, now=NOW + 2 * DAY).changed == 1
    assert read_image_hashes(store)[0] is None


def test_the_same_bytes_have_one_hash_in_a_file_in_a_table_and_in_an_lmdb(store: Settings) -> None:
    write_image(store, "a.jpg", b"red")
    (key,) = image_store.write(store.file.parent / "shop" / "pictures", [b"red"])
    ingest(store, {"image": "a.jpg"})
    ingest(store, {"product_id": "p2", "image": b"red"}, now=NOW + DAY)
    ingest(store, {"product_id": "p3", "image": f"lmdb://pictures#{key}"}, now=NOW + 2 * DAY)
    assert len(read_image_hashes(store)) == 3
    assert len(set(read_image_hashes(store))) == 1


def test_an_image_in_an_lmdb_is_read_unless_its_key_is_its_hash(store: Settings, read_images: list[str]) -> None:
    folder = store.file.parent / "shop" / "pictures"
    (key,) = image_store.write(folder, [b"red"])
    ingest(store, {"image": f"lmdb://pictures#{key}"}, {"product_id": "p2", "image": f"lmdb://{folder}#p2"})
    assert read_images == ["pictures#p2"]
    assert [row["image"] for row in read_catalogue(store)] == [f"lmdb:{folder}#{key}", f"lmdb:{folder}#p2"]
    assert decoding.read_bytes(Path(read_catalogue(store)[0]["image"])) == b"red"
    with pytest.raises(decoding.UnusableImageError, match=decoding.MISSING):
        decoding.read_bytes(Path(read_catalogue(store)[1]["image"]))


def test_a_path_into_an_lmdb_may_not_leave_the_folder(store: Settings) -> None:
    ingest(store, {"image": "lmdb://../pictures#a"})
    assert [row["image"] for row in read_catalogue(store)] == [None]


def test_products_missing_from_the_table_are_gone_until_they_return(store: Settings) -> None:
    rows = [{"product_id": name} for name in ("a", "b", "c")]
    ingest(store, *rows)
    assert ingest(store, rows[0], now=NOW + DAY).gone == 2
    assert ingest(store, rows[0], now=NOW + 2 * DAY).gone == 0
    assert read_gone(store) == ["b", "c"]
    summary = ingest(store, *rows[:2], now=NOW + 3 * DAY)
    assert (summary.gone, summary.returned, summary.unchanged) == (0, 1, 2)
    assert read_gone(store) == ["c"]
    tables = store.table(schema.CATALOGUE_TABLE), store.table(schema.ACTIVE_TABLE)
    at = [sorted(versions.read_active_products(*tables, NOW + day * DAY).to_pylist()) for day in range(4)]
    assert at == [["a", "b", "c"], ["a"], ["a"], ["a", "b"]]


def test_a_product_whose_row_is_refused_is_not_gone(store: Settings) -> None:
    ingest(store, {"product_id": "a"}, {"product_id": "b"})
    assert ingest(store, {"product_id": "a"}, {"product_id": "b", "updated_at": "soon"}, now=NOW + DAY).gone == 0


def test_a_product_whose_line_does_not_fit_the_header_of_a_csv_is_not_gone(store: Settings) -> None:
    ingest(store, *({"product_id": name} for name in ("a", " b", "c", "d")))
    lines = [
        "title,product_id,image,category,brand,price,updated_at",
        "dress,a,,,,1,2026-01-02T00:00:00Z",
        'dress, red," b ",,,,1,2026-01-02T00:00:00Z',
        'dress,"c,,,,1,2026-01-02T00:00:00Z',
    ]
    file = store.file.parent / "products.csv"
    file.write_text("\n".join(lines) + "\n")
    summary = ingest_products(store, file, NOW + DAY)
    assert (summary.changed, len(summary.refused), summary.gone) == (1, 2, 1)
    assert read_gone(store) == ["d"]


def test_with_partial_no_product_is_gone(store: Settings) -> None:
    ingest(store, {"product_id": "a"}, {"product_id": "b"})
    assert ingest_products(store, write_products(store, {"product_id": "a"}), NOW + DAY, partial=True).gone == 0
    assert read_gone(store) == []


def test_a_table_without_half_of_the_products_is_refused_unless_shrinking_is_allowed(store: Settings) -> None:
    rows = [{"product_id": str(number)} for number in range(100)]
    ingest(store, *rows)
    file = write_products(store, *rows[:49], {"product_id": "new"})
    with pytest.raises(VitrineError, match=r"51 of 100 active products are not in it; .*--partial .*--allow-shrink"):
        ingest_products(store, file, NOW + DAY)
    assert (read_gone(store), len(read_catalogue(store))) == ([], 100)
    assert ingest_products(store, file, NOW + DAY, allow_shrink=True).gone == 51
    assert ingest(store, *rows[:25], {"product_id": "new"}, now=NOW + 2 * DAY).gone == 24


def test_a_small_table_without_half_of_the_products_is_refused_and_a_tiny_one_warns(store: Settings) -> None:
    rows = [{"product_id": str(number)} for number in range(18)]
    ingest(store, *rows)
    with pytest.raises(VitrineError, match=r"10 of 18 active products are not in it"):
        ingest(store, *rows[:8], now=NOW + DAY)
    assert "warning" not in str(ingest(store, *rows[:9], now=NOW + DAY))
    summary = ingest(store, *rows[:4], now=NOW + 2 * DAY)
    assert summary.gone == 5
    assert "  warning: 5 of 9 active products are gone; if this table is only a part" in str(summary)


def test_a_table_read_in_many_blocks_gives_the_same_result(store: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"product_id": f"p{row % 5}", "price": float(row)} for row in range(17)] + [{"product_id": None}]
    monkeypatch.setattr(catalogue, "BLOCK_ROWS", 3)
    summary = ingest(store, *rows)
    assert (summary.new, len(summary.refused)) == (5, 13)
    assert sorted(row["price"] for row in read_catalogue(store)) == [12.0, 13.0, 14.0, 15.0, 16.0]
    assert [refusal.row_id for refusal in summary.refused if refusal.reason != DUPLICATE_ID] == ["row 18"]
    assert ingest(store, *rows, now=NOW + DAY).unchanged == 5


def read_table_versions(store: Settings) -> dict[str, int | None]:
    return {path.name: delta.latest_version(path) for path in sorted(store.offline.iterdir())}


def test_a_dry_run_writes_nothing_and_reports_what_the_run_then_does(store: Settings) -> None:
    ingest(store, {}, {"product_id": "gone"}, {"product_id": "same"})
    file = write_products(
        store,
        {"price": 1.0},
        {"product_id": "same"},
        {"product_id": "new", "price": -1.0},
        {"product_id": None},
    )
    before = read_table_versions(store)
    expected = ingest_products(store, file, NOW + DAY, dry_run=True)
    assert read_table_versions(store) == before
    assert (expected.new, expected.changed, expected.unchanged, expected.gone) == (1, 1, 1, 1)
    assert ingest_products(store, file, NOW + DAY) == expected
    assert len(read_catalogue(store)) == 5


def test_the_dry_run_of_the_command_prints_the_rows_to_write_and_logs_no_run(store: Settings) -> None:
    file = write_products(store, {}, *({"product_id": name} for name in "bcde"), {"product_id": None})
    arguments = ["catalogue", "--products", str(file), "--store", str(store.file), "--dry-run"]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    assert "the run would add 5 rows to product_catalogue and 0 to product_active" in result.stdout
    assert "read 6 products: 5 new, 0 changed, 0 unchanged, 1 refused" in result.stdout
    assert sorted(path.name for path in store.file.parent.iterdir()) == ["feature_store.yaml", "shop"]
