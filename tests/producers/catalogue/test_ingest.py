"""What a day's table of products adds, of which pictures are read, and which products are gone."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from feature_repo import image_store, images, schema
from feature_repo.config import Settings
from feature_repo.errors import VitrineError
from feature_repo.offline import delta, versions
from producers.catalogue import image_hashes
from producers.catalogue import ingest as catalogue
from producers.catalogue.ingest import ingest_products
from tests.producers.catalogue.shop import NOW, known, taken, written

DAY = timedelta(days=1)


@pytest.fixture
def opened_pictures(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the pictures that are read, as they are read."""
    found: list[str] = []
    reading = images.read_bytes

    def watched(path: Path) -> bytes:
        found.append(path.name)
        return reading(path)

    monkeypatch.setattr(image_hashes.images, "read_bytes", watched)
    return found


def picture(store: Settings, name: str, content: bytes, seconds: int = 1) -> None:
    """A file whose time of change is said."""
    file = store.file.parent / "shop" / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    os.utime(file, (seconds, seconds))


def hashes(store: Settings) -> list[bytes | None]:
    return delta.read(store.table(schema.CATALOGUE_TABLE)).sort_by("created_timestamp")["image_hash"].to_pylist()


def gone(store: Settings) -> list[str]:
    return sorted(versions.read_gone_products(store.table(schema.ACTIVE_TABLE)).to_pylist())


def test_a_file_is_read_once_and_not_again_while_path_size_and_time_stay(
    store: Settings, opened_pictures: list[str]
) -> None:
    picture(store, "a.jpg", b"red")
    assert taken(store, {"image": "a.jpg"}).new == 1
    assert taken(store, {"image": "a.jpg"}).unchanged == 1
    assert opened_pictures == ["a.jpg"]


@pytest.mark.parametrize(("content", "seconds"), [(b"another", 1), (b"blu", 2)])
def test_a_picture_that_changed_in_its_file_is_a_change_of_the_product(
    content: bytes, seconds: int, store: Settings
) -> None:
    picture(store, "a.jpg", b"red")
    taken(store, {"image": "a.jpg"})
    picture(store, "a.jpg", content, seconds)
    assert taken(store, {"image": "a.jpg"}, now=NOW + DAY).changed == 1
    assert len(set(hashes(store))) == 2
    assert taken(store, {"image": "a.jpg"}, now=NOW + 2 * DAY).unchanged == 1


def test_a_file_that_was_touched_and_not_changed_changes_nothing(store: Settings, opened_pictures: list[str]) -> None:
    picture(store, "a.jpg", b"red")
    taken(store, {"image": "a.jpg"})
    picture(store, "a.jpg", b"red", seconds=9)
    assert taken(store, {"image": "a.jpg"}).unchanged == 1
    assert opened_pictures == ["a.jpg", "a.jpg"]


def test_another_picture_of_the_same_size_and_time_is_seen_only_when_all_are_hashed_again(store: Settings) -> None:
    picture(store, "a.jpg", b"red")
    taken(store, {"image": "a.jpg"})
    picture(store, "a.jpg", b"blu")
    file = written(store, {"image": "a.jpg"})
    assert ingest_products(store, file, NOW + DAY).unchanged == 1
    assert ingest_products(store, file, NOW + DAY, rehash=True).changed == 1


def test_a_picture_that_was_missing_and_is_there_now_is_a_change(store: Settings) -> None:
    assert taken(store, {"image": "a.jpg"}).new == 1
    assert taken(store, {"image": "a.jpg"}, now=NOW + DAY).unchanged == 1
    picture(store, "a.jpg", b"red")
    assert taken(store, {"image": "a.jpg"}, now=NOW + 2 * DAY).changed == 1
    assert hashes(store)[0] is None


def test_the_same_bytes_have_one_hash_in_a_file_in_the_table_and_in_an_lmdb(store: Settings) -> None:
    picture(store, "a.jpg", b"red")
    (key,) = image_store.write(store.file.parent / "shop" / "pictures", [b"red"])
    taken(store, {"image": "a.jpg"})
    taken(store, {"product_id": "p2", "image": b"red"}, now=NOW + DAY)
    taken(store, {"product_id": "p3", "image": f"lmdb://pictures#{key}"}, now=NOW + 2 * DAY)
    assert len(hashes(store)) == 3
    assert len(set(hashes(store))) == 1


def test_a_picture_in_an_lmdb_under_its_hash_is_not_read_and_under_another_key_it_is(
    store: Settings, opened_pictures: list[str]
) -> None:
    folder = store.file.parent / "shop" / "pictures"
    (key,) = image_store.write(folder, [b"red"])
    taken(store, {"image": f"lmdb://pictures#{key}"}, {"product_id": "p2", "image": f"lmdb://{folder}#p2"})
    assert opened_pictures == ["pictures#p2"]
    assert [row["image"] for row in known(store)] == [f"lmdb:{folder}#{key}", f"lmdb:{folder}#p2"]
    assert images.read_bytes(Path(known(store)[0]["image"])) == b"red"
    with pytest.raises(images.UnusableImageError, match=images.MISSING):
        images.read_bytes(Path(known(store)[1]["image"]))


def test_a_path_into_an_lmdb_may_not_leave_the_folder(store: Settings) -> None:
    taken(store, {"image": "lmdb://../pictures#a"})
    assert [row["image"] for row in known(store)] == [None]


def test_products_that_are_no_longer_in_the_table_are_gone_until_they_are_in_it_again(store: Settings) -> None:
    rows = [{"product_id": name} for name in ("a", "b", "c")]
    taken(store, *rows)
    assert taken(store, rows[0], now=NOW + DAY).gone == 2
    assert taken(store, rows[0], now=NOW + 2 * DAY).gone == 0
    assert gone(store) == ["b", "c"]
    came = taken(store, *rows[:2], now=NOW + 3 * DAY)
    assert (came.gone, came.returned, came.unchanged) == (0, 1, 2)
    assert gone(store) == ["c"]
    tables = store.table(schema.CATALOGUE_TABLE), store.table(schema.ACTIVE_TABLE)
    at = [sorted(versions.read_active_products(*tables, NOW + day * DAY).to_pylist()) for day in range(4)]
    assert at == [["a", "b", "c"], ["a"], ["a"], ["a", "b"]]


def test_a_product_whose_row_is_refused_is_not_gone(store: Settings) -> None:
    taken(store, {"product_id": "a"}, {"product_id": "b"})
    assert taken(store, {"product_id": "a"}, {"product_id": "b", "updated_at": "soon"}, now=NOW + DAY).gone == 0


def test_nothing_is_gone_for_not_being_in_a_part_of_the_catalogue(store: Settings) -> None:
    taken(store, {"product_id": "a"}, {"product_id": "b"})
    assert ingest_products(store, written(store, {"product_id": "a"}), NOW + DAY, partial=True).gone == 0
    assert gone(store) == []


def test_that_more_than_half_of_the_products_are_gone_is_not_believed_unless_it_is_said(store: Settings) -> None:
    rows = [{"product_id": str(number)} for number in range(100)]
    taken(store, *rows)
    file = written(store, *rows[:49], {"product_id": "new"})
    with pytest.raises(VitrineError, match=r"51 of 100 active products are not in it; .*--partial, .*--allow-shrink"):
        ingest_products(store, file, NOW + DAY)
    assert (gone(store), len(known(store))) == ([], 100)
    assert ingest_products(store, file, NOW + DAY, allow_shrink=True).gone == 51
    assert taken(store, *rows[:25], {"product_id": "new"}, now=NOW + 2 * DAY).gone == 24


def test_a_table_read_in_many_blocks_gives_what_it_gives_in_one(
    store: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"product_id": f"p{row % 5}", "price": float(row)} for row in range(17)] + [{"product_id": None}]
    monkeypatch.setattr(catalogue, "BLOCK_ROWS", 3)
    came = taken(store, *rows)
    assert (came.new, len(came.refused)) == (5, 13)
    assert sorted(row["price"] for row in known(store)) == [12.0, 13.0, 14.0, 15.0, 16.0]
    assert [refusal.row_id for refusal in came.refused if refusal.reason != catalogue.DUPLICATE_ID] == ["row 18"]
    assert taken(store, *rows, now=NOW + DAY).unchanged == 5
