"""Forgetting deletes the pictures that `produce images` keeps of the products alone, of every version of them."""

import dataclasses
from datetime import timedelta

import pytest
from PIL import Image

from feature_repo.config import Settings
from feature_repo.images import image_store
from feature_repo.images.picture_folders import BucketFolder, LmdbFolder, PictureFolder
from feature_repo.location import BucketPath
from producers import maintenance
from producers.catalogue.forget_packed import forget_packed
from producers.catalogue.ingest import ingest_products
from producers.catalogue.pack import IMAGES_FOLDER, pack_images
from producers.downloads import download_log
from producers.downloads.download_log import KnownUrl
from tests.producers.catalogue.shop import NOW, write_products

COLOURS = ("red", "green", "blue", "white")


def draw_pictures(store: Settings) -> dict[str, str]:
    """Write a picture of each colour beside the products table; return the colours by their keys."""
    folder = store.file.parent / "shop"
    folder.mkdir(exist_ok=True)
    for colour in COLOURS:
        Image.new("RGB", (9, 9), colour).save(folder / f"{colour}.png")
    contents = [(folder / f"{colour}.png").read_bytes() for colour in COLOURS]
    return dict(zip(image_store.write(store.file.parent / "keys", contents), COLOURS, strict=True))


def fill_shop(store: Settings, folder: PictureFolder | None) -> None:
    """Product a was red and is green, b is green too, c is blue, and a further picture of d is blue."""
    for day, colour in enumerate(("red", "green")):
        file = write_products(
            store,
            {"product_id": "a", "image": f"{colour}.png", "updated_at": f"2026-01-0{day + 2}T00:00:00Z"},
            {"product_id": "b", "image": "green.png"},
            {"product_id": "c", "image": "blue.png"},
            {"product_id": "d", "image": "white.png"},
        )
        packed = pack_images(file, store.file.parent / "packed", NOW, folder=folder)
        ingest_products(store, packed.table, NOW + timedelta(days=day))


@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_pictures_of_every_version_go_and_shared_ones_stay(
    store: Settings, request: pytest.FixtureRequest, place: str
) -> None:
    colours, folder = draw_pictures(store), None
    if place == "bucket":
        prefix: BucketPath = request.getfixturevalue("bucket")
        store = dataclasses.replace(store, pictures=prefix)
        folder = BucketFolder(prefix)
    fill_shop(store, folder)
    packed = folder or LmdbFolder(store.file.parent / "packed" / IMAGES_FOLDER)
    dry = maintenance.forget(store, products=["a"], users=[], dry_run=True)
    assert dry.pictures == 1
    assert packed.list_stored(colours) == set(colours)
    assert maintenance.forget(store, products=["a"], users=[]).pictures == 1
    assert {colours[key] for key in packed.list_stored(colours)} == {"green", "blue", "white"}
    assert maintenance.forget(store, products=["b", "c"], users=[]).pictures == 2
    assert {colours[key] for key in packed.list_stored(colours)} == {"white"}
    assert maintenance.forget(store, products=["a", "b", "c"], users=[]).pictures == 0


def test_a_further_picture_of_another_product_stays(store: Settings) -> None:
    colours = draw_pictures(store)
    (blue,) = (key for key, colour in colours.items() if colour == "blue")
    pictures = store.file.parent / "keys"
    image = f"{image_store.URL_SCHEME}{pictures}#{blue}"
    file = write_products(
        store,
        {"product_id": "a", "image": image, "images": None},
        {"product_id": "b", "image": None, "images": [image]},
    )
    ingest_products(store, file, NOW)
    assert forget_packed(store, ["a"]) == 0
    assert forget_packed(store, ["a", "b"]) == 1
    assert {colours[key] for key in image_store.list_stored(pictures, colours)} == {"red", "green", "white"}


def test_files_of_the_shop_and_images_under_other_keys_stay(store: Settings) -> None:
    draw_pictures(store)
    images = ["red.png", f"{image_store.URL_SCHEME}../keys#p1", f"{image_store.URL_SCHEME}../gone#{'0' * 32}"]
    rows = ({"product_id": str(number), "image": image} for number, image in enumerate(images))
    ingest_products(store, write_products(store, *rows), NOW)
    assert forget_packed(store, ["0", "1", "2", "nobody"]) == 0
    assert (store.file.parent / "shop" / "red.png").exists()
    assert not (store.file.parent / "gone").exists()


def test_what_is_known_of_the_url_of_a_deleted_picture_is_deleted(store: Settings) -> None:
    colours = {colour: key for key, colour in draw_pictures(store).items()}
    fill_shop(store, None)
    output = store.file.parent / "packed"
    urls = {f"https://shop.example/{colour}/of-a": key for colour, key in colours.items()}
    with download_log.open_log(output) as log:
        log.record([KnownUrl(url, key) for url, key in urls.items()], NOW)
    maintenance.forget(store, products=["a"], users=[])
    with download_log.open_log(output) as log:
        assert sorted(log.read(list(urls))) == sorted(url for url in urls if "red" not in url)
    assert b"shop.example/red" not in (output / download_log.FILE).read_bytes()


def test_a_picture_in_a_bucket_that_another_run_deleted_first_is_no_error(bucket: BucketPath) -> None:
    folder = BucketFolder(bucket)
    (key,) = folder.write([b"picture"])
    assert (folder.delete([key, "0" * 32]), folder.delete([key])) == (1, 0)
    folder._delete(key)
