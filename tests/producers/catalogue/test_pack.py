"""`produce images`: a shop's pictures in one LMDB, and the table that refers to them."""

from pathlib import Path

import lmdb
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from feature_repo.config import Settings
from feature_repo.errors import VitrineError
from feature_repo.images import MISSING, open_image
from producers import cli
from producers.catalogue.ingest import ingest_products
from producers.catalogue.pack import IMAGES_FOLDER, PRODUCTS_FILE, pack_images
from tests.producers.catalogue.shop import NOW, known, taken, written


def test_every_picture_lies_in_the_lmdb_once_and_the_catalogue_finds_it_there(store: Settings) -> None:
    for name, colour in (("a.png", "red"), ("b.png", "red"), ("c.png", "blue")):
        (store.file.parent / "shop").mkdir(exist_ok=True)
        Image.new("RGB", (9, 9), colour).save(store.file.parent / "shop" / name)
    file = written(
        store,
        *({"product_id": name, "image": f"{name}.png", "colour": "x"} for name in "abc"),
        {"product_id": "d", "image": "gone.png"},
        {"product_id": "e", "image": None},
        {"product_id": None, "image": "a.png"},
    )
    out = store.file.parent / "packed"
    for _ in range(2):
        packed = pack_images(file, out, NOW)
        assert (packed.products, packed.images, packed.unreadable) == (6, 4, {MISSING: 1})
        with lmdb.open(str(out / IMAGES_FOLDER), readonly=True) as environment:
            assert environment.stat()["entries"] == 2
    assert pq.read_table(out / PRODUCTS_FILE).drop_columns("image").equals(pq.read_table(file).drop_columns("image"))
    assert ingest_products(store, out / PRODUCTS_FILE, NOW).new == 5
    images = {row["product_id"]: row["image"] for row in known(store)}
    assert images["a"] == images["b"] != images["c"]
    assert images["d"] == str(store.file.parent / "shop" / "gone.png")
    assert images["e"] is None
    assert open_image(Path(images["c"])).getpixel((0, 0)) == (0, 0, 255)
    assert taken(store, {"product_id": "a", "image": b"bytes"}).changed == 1


def test_pictures_that_no_file_of_the_shop_holds_are_counted_and_stay_as_they_were(store: Settings) -> None:
    odd = ["../../a.png", "https://shop.example/a.jpg", "https://shop.example/b.jpg"]
    products = [{"product_id": str(number), "image": image} for number, image in enumerate(odd)]
    file = written(store, *products, {"product_id": "bytes", "image": None})
    packed = pack_images(file, store.file.parent / "x", NOW)
    leads_out = "image path leads out of the table's folder by `..`"
    assert packed.unreadable == {"image is a URL, no file": 2, leads_out: 1}
    assert pq.read_table(packed.table)["image"].to_pylist() == [*odd, None]
    assert len(ingest_products(store, packed.table, NOW).repairs) == 3


def test_pictures_in_the_table_are_packed_as_files_are(store: Settings) -> None:
    packed = pack_images(
        written(store, {"image": b"red"}, {"product_id": "b", "image": b"red"}), store.file.parent / "x", NOW
    )
    assert packed.images == 2
    again = pack_images(packed.table, store.file.parent / "y", NOW)
    assert again.images == 2
    assert pq.read_table(again.table).equals(pq.read_table(packed.table))


def test_a_table_is_not_written_over_while_it_is_read(store: Settings) -> None:
    file = written(store, {"image": b"red"})
    with pytest.raises(VitrineError, match="name another --out"):
        pack_images(file, file.parent, NOW)


def test_the_command_says_what_it_wrote(store: Settings) -> None:
    arguments = ["images", "--products", str(written(store, {"image": b"red"})), "--out", str(store.file.parent / "x")]
    result = CliRunner().invoke(cli.app, [*arguments, "--to", "lmdb"])
    assert result.exit_code == 0
    assert "1 products, 1 of them with a picture in the LMDB" in result.output
