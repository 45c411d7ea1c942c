"""`produce images`: the images of a products table in one LMDB, and the table that refers to them."""

from pathlib import Path

import lmdb
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from feature_repo.config import Settings
from feature_repo.errors import VitrineError
from feature_repo.images.decoding import MISSING, open_image
from producers import cli
from producers.catalogue.ingest import ingest_products
from producers.catalogue.pack import IMAGES_FOLDER, PRODUCTS_FILE, pack_images
from tests.producers.catalogue.shop import NOW, ingest, read_catalogue, write_products


def test_each_content_is_stored_once_and_the_catalogue_finds_it(store: Settings) -> None:
    for name, colour in (("a.png", "red"), ("b.png", "red"), ("c.png", "blue")):
        (store.file.parent / "shop").mkdir(exist_ok=True)
        Image.new("RGB", (9, 9), colour).save(store.file.parent / "shop" / name)
    file = write_products(
        store,
        *({"product_id": name, "image": f"{name}.png", "colour": "x"} for name in "abc"),
        {"product_id": "d", "image": "gone.png"},
        {"product_id": "e", "image": None},
        {"product_id": None, "image": "a.png"},
    )
    output = store.file.parent / "packed"
    for _ in range(2):
        packed = pack_images(file, output, NOW)
        assert (packed.products, packed.images, packed.unreadable) == (6, 4, {MISSING: 1})
        with lmdb.open(str(output / IMAGES_FOLDER), readonly=True) as environment:
            assert environment.stat()["entries"] == 2
    assert pq.read_table(output / PRODUCTS_FILE).drop_columns("image").equals(pq.read_table(file).drop_columns("image"))
    assert ingest_products(store, output / PRODUCTS_FILE, NOW).new == 5
    images = {row["product_id"]: row["image"] for row in read_catalogue(store)}
    assert images["a"] == images["b"] != images["c"]
    assert images["d"] == str(store.file.parent / "shop" / "gone.png")
    assert images["e"] is None
    assert open_image(Path(images["c"])).getpixel((0, 0)) == (0, 0, 255)
    assert ingest(store, {"product_id": "a", "image": b"bytes"}).changed == 1


def test_unusable_image_values_are_counted_and_kept(store: Settings) -> None:
    odd = ["../../a.png", "https://shop.example/a.jpg", "https://shop.example/b.jpg"]
    products = [{"product_id": str(number), "image": image} for number, image in enumerate(odd)]
    file = write_products(store, *products, {"product_id": "bytes", "image": None})
    packed = pack_images(file, store.file.parent / "x", NOW)
    leaves_folder = "image path leaves the table's folder by `..`"
    assert packed.unreadable == {"image is a URL, not a file": 2, leaves_folder: 1}
    assert pq.read_table(packed.table)["image"].to_pylist() == [*odd, None]
    assert len(ingest_products(store, packed.table, NOW).repairs) == 3


def test_further_images_that_cannot_be_used_are_left_out_and_counted(store: Settings) -> None:
    file = write_products(store, {"image": None, "images": "a.png|https://shop.example/b.jpg"}, {"product_id": "b"})
    packed = pack_images(file, store.file.parent / "x", NOW)
    assert packed.unreadable["a further image is a URL, leaves the table's folder by `..` or has a backslash"] == 1
    assert pq.read_table(packed.table)["images"].to_pylist()[0] == [str(store.file.parent / "shop" / "a.png")]


def test_images_as_bytes_are_packed_like_files(store: Settings) -> None:
    packed = pack_images(
        write_products(store, {"image": b"red"}, {"product_id": "b", "image": b"red"}), store.file.parent / "x", NOW
    )
    assert packed.images == 2
    again = pack_images(packed.table, store.file.parent / "y", NOW)
    assert again.images == 2
    assert pq.read_table(again.table).equals(pq.read_table(packed.table))


def test_a_table_is_not_overwritten_while_it_is_read(store: Settings) -> None:
    file = write_products(store, {"image": b"red"})
    with pytest.raises(VitrineError, match="give another --output"):
        pack_images(file, file.parent, NOW)


def test_the_command_prints_what_it_wrote(store: Settings) -> None:
    arguments = [
        "images",
        "--products",
        str(write_products(store, {"image": b"red"})),
        "--output",
        str(store.file.parent / "x"),
    ]
    result = CliRunner().invoke(cli.app, [*arguments, "--to", "lmdb"])
    assert result.exit_code == 0
    assert "1 products, 1 of them with an image in the LMDB" in result.output
