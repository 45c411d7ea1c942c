"""Training pictures in a bucket are those that lie on disk."""

import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from feature_repo.bucket import open_filesystem
from feature_repo.errors import NotFoundError
from feature_repo.images.geometry import Geometry
from feature_repo.location import BucketObject, BucketPath
from producers.cli import app
from producers.encoders.checkpoint_version import read_training_products
from producers.encoders.training.images import decode_images
from producers.encoders.training.process_group import ProcessGroup
from producers.learning.encoder import read_pairs

COUNT = 40


@pytest.fixture
def shop(tmp_path: Path, bucket: BucketPath) -> Path:
    """A shop whose pictures lie both beside its table and in the bucket."""
    folder = tmp_path / "shop"
    (folder / "images").mkdir(parents=True)
    for number in range(COUNT):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        with open_filesystem(bucket).open_output_stream(f"images/{number}.png") as file:
            file.write((folder / "images" / f"{number}.png").read_bytes())
    write_table(folder, [f"images/{number}.png" for number in range(COUNT)])
    return folder


def write_table(folder: Path, images: list[str]) -> None:
    rows = [
        {"product_id": f"p{n}", "title": f"title {n % 7} {n % 5}", "image": image} for n, image in enumerate(images)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "products.parquet")


def decode(folder: Path, pictures: BucketPath | None) -> np.ndarray:
    sources = read_pairs(folder, pictures)[1]
    geometry = Geometry(16, 16, resize_to=16, resample=Image.Resampling.BILINEAR)
    pixels, usable = decode_images(sources, geometry, folder / "pixels", ProcessGroup(1, 0))
    assert usable.all()
    return pixels


def test_paths_and_urls_below_the_prefix_are_objects_and_others_files(shop: Path, bucket: BucketPath) -> None:
    images = ["images/1.png", f"{bucket}/images/2.png", "/srv/a.png", "lmdb://packed#1", "https://shop.example/a.png"]
    write_table(shop, images)
    sources = read_pairs(shop, bucket)[1]
    assert sources[:2] == [BucketObject(bucket, f"images/{number}.png") for number in (1, 2)]
    assert sources[2:4] == [Path("/srv/a.png"), Path(f"lmdb:{shop}/packed#1")]
    assert isinstance(sources[4], Path), "no object outside of the prefix is read"
    assert read_pairs(shop)[1][0] == shop / "images/1.png"


def test_pictures_in_a_bucket_have_the_pixels_of_those_on_disk(shop: Path, bucket: BucketPath) -> None:
    assert np.array_equal(decode(shop, bucket), decode(shop, None))


def test_an_encoder_is_trained_on_pictures_in_a_bucket(shop: Path, bucket: BucketPath, tmp_path: Path) -> None:
    store = {"path": "offline", "pictures": bucket.url, "storage_options": dict(bucket.options)}
    file = tmp_path / "feature_store.yaml"
    file.write_text(yaml.safe_dump({"project": "shop", "offline_store": store}))
    for number in range(COUNT):
        (shop / "images" / f"{number}.png").unlink()
    arguments = f"encoder --data {shop} --output {tmp_path / 'encoder'} --pairs 64 --batch 32 --store {file}"
    done = CliRunner().invoke(app, shlex.split(arguments))
    assert done.exit_code == 0, done.output
    products = read_training_products(tmp_path / "encoder")
    assert products is not None
    assert len(products) == COUNT


def test_a_deployment_that_is_named_must_exist(shop: Path, tmp_path: Path) -> None:
    arguments = f"encoder --data {shop} --output {tmp_path / 'encoder'} --store {tmp_path / 'none.yaml'}"
    done = CliRunner().invoke(app, shlex.split(arguments))
    assert isinstance(done.exception, NotFoundError)
    assert not (tmp_path / "encoder").exists()
