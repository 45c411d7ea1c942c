"""Products whose pictures are in a bucket get the rows of products whose pictures are files."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pyarrow.fs import FileSelector

from consumers.search.contact_sheet import read_pictures
from feature_repo import config, schema
from feature_repo.bucket import open_filesystem
from feature_repo.config import Settings
from feature_repo.content_hash import content_hash
from feature_repo.errors import UnavailableError
from feature_repo.images.decoding import DAMAGED, MISSING
from feature_repo.images.picture_folders import CONTENTS
from feature_repo.images.thumbnails import shrink_picture
from feature_repo.location import BucketPath
from feature_repo.offline import delta
from producers.catalogue.ingest import ingest_products
from producers.catalogue.validate import IMAGE_IS_URL
from producers.embeddings.remote_jobs import export_todo
from producers.groups.pictures import describe_pictures
from producers.index.texture import open_grey
from tests.deployments import run_main
from tests.producers.catalogue.shop import GOOD, ingest, open_deployment, read_rejections
from tests.producers.embeddings.test_embeddings import NOW, draw_image, embed, rows
from tests.servers import free_port

COLOURS = ("red", "green", "blue", "white")


def open_with_pictures(folder: Path, pictures: BucketPath) -> Settings:
    """Create a deployment with tables on disk and pictures in a bucket."""
    file = open_deployment(folder).file
    content = yaml.safe_load(file.read_text())
    content["offline_store"] |= {"pictures": pictures.url, "storage_options": dict(pictures.options)}
    file.write_text(yaml.safe_dump(content))
    return config.load(file)


def upload(pictures: BucketPath, file: Path, key: str) -> None:
    with open_filesystem(pictures).open_output_stream(key) as stream:
        stream.write(file.read_bytes())


@pytest.fixture
def shops(tmp_path: Path, bucket: BucketPath) -> tuple[Settings, Settings]:
    """Two deployments with the same pictures: as files, and in a bucket."""
    on_disk = open_deployment(tmp_path)
    (tmp_path / "bucket").mkdir()
    in_bucket = open_with_pictures(tmp_path / "bucket", bucket)
    for colour in COLOURS:
        upload(bucket, Path(draw_image(tmp_path / "shop" / "images" / f"{colour}.png", colour)), f"images/{colour}.png")
    return on_disk, in_bucket


def test_the_rows_are_those_of_files(shops: tuple[Settings, Settings], bucket: BucketPath, encoder: Path) -> None:
    for store in shops:
        relative = [{"product_id": colour, "image": f"images/{colour}.png"} for colour in COLOURS[1:]]
        first = f"{bucket.url}/images/red.png" if store is shops[1] else "images/red.png"
        ingest(store, {"product_id": "red", "image": first}, *relative)
        assert embed(store, encoder).images == len(COLOURS)
        assert read_rejections(store) == []
    on_disk, in_bucket = (rows(store) for store in shops)
    for colour in COLOURS:
        assert in_bucket[colour]["image_hash"] == on_disk[colour]["image_hash"] is not None
        np.testing.assert_allclose(in_bucket[colour]["image_vector"], on_disk[colour]["image_vector"], atol=1e-5)


def test_a_missing_a_damaged_and_a_foreign_picture_have_their_reasons(
    shops: tuple[Settings, Settings], bucket: BucketPath, encoder: Path, tmp_path: Path
) -> None:
    _, store = shops
    (tmp_path / "half.png").write_bytes((tmp_path / "shop/images/red.png").read_bytes()[:80])
    upload(bucket, tmp_path / "half.png", "half.png")
    ingest(
        store,
        {"product_id": "a", "image": "none.png"},
        {"product_id": "b", "image": "half.png"},
        {"product_id": "c", "image": f"{bucket.parent.url}/else/red.png"},
    )
    embed(store, encoder)
    assert sorted(read_rejections(store)) == [
        ("a", "image", MISSING),
        ("b", "image", DAMAGED),
        ("c", "image", IMAGE_IS_URL),
    ]
    assert {row["has_image"] for row in rows(store).values()} == {False}, "each keeps the vector of its title"


def test_a_picture_that_was_replaced_is_encoded_again_and_another_is_not_read(
    shops: tuple[Settings, Settings], bucket: BucketPath, encoder: Path
) -> None:
    _, store = shops
    products = [{"product_id": colour, "image": f"images/{colour}.png"} for colour in COLOURS]
    ingest(store, *products)
    embed(store, encoder)
    source = open_filesystem(bucket)
    with source.open_output_stream("images/red.png") as stream:
        stream.write(source.open_input_file("images/white.png").read() + b"\0")  # another size
    assert ingest(store, *products).changed == 1
    summary = embed(store, encoder)
    assert (summary.images, summary.encoded) == (1, 1)


def test_every_step_reads_pictures_in_the_bucket(
    shops: tuple[Settings, Settings], encoder: Path, tmp_path: Path
) -> None:
    results = []
    for store in shops:
        ingest(store, *({"product_id": colour, "image": f"images/{colour}.png"} for colour in COLOURS))
        products = delta.read(store.table(schema.CATALOGUE_TABLE)).sort_by(schema.PRODUCT_ID)
        sources = read_pictures(store, products)
        results.append(
            (
                describe_pictures(store, products, sources, NOW).to_pylist(),
                [shrink_picture(source, 16) for source in sources if source is not None],
                np.stack([open_grey(source) for source in sources]).tolist(),
                export_bytes(store, tmp_path / f"{len(results)}.parquet"),
            )
        )
    assert results[0] == results[1]
    assert len(results[0][1]) == len(COLOURS)


def export_bytes(store: Settings, file: Path) -> list[bytes]:
    export_todo(store, file, encoder_version=None)
    return pq.read_table(file).sort_by(schema.PRODUCT_ID)["image_bytes"].to_pylist()


def test_a_bucket_that_does_not_answer_ends_the_run_and_quarantines_nothing(tmp_path: Path) -> None:
    options = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "x"}
    address = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}
    store = open_with_pictures(tmp_path, BucketPath("s3://shop/p", options | address))
    with pytest.raises(UnavailableError, match="s3://shop/p does not answer"):
        ingest(store, {"product_id": "a", "image": "a.png"})
    assert not delta.exists(store.table(schema.CATALOGUE_TABLE))


def test_pictures_are_packed_into_the_bucket_once_and_trusted_by_name(
    shops: tuple[Settings, Settings], bucket: BucketPath, encoder: Path, tmp_path: Path
) -> None:
    _, store = shops
    source = tmp_path / "shop" / "images"
    (source / "again.png").write_bytes((source / "red.png").read_bytes())
    products = tmp_path / "shop" / "products.parquet"
    names = [*COLOURS, "again", "none"]
    pq.write_table(
        pa.Table.from_pylist([GOOD | {"product_id": n, "image": f"images/{n}.png"} for n in names]), products
    )
    for _ in range(2):
        command = ["images", "--products", str(products), "--output", str(tmp_path / "packed"), "--to", "bucket"]
        assert run_main("produce", *command, "--store", str(store.file)).returncode == 0
        packed = open_filesystem(bucket).get_file_info(FileSelector(CONTENTS))
        assert len(packed) == len(COLOURS)
    ingest_products(store, tmp_path / "packed" / "products.parquet", NOW)
    for info in packed[1:]:
        open_filesystem(bucket).delete_file(f"{CONTENTS}/{info.base_name}")
    summary = embed(store, encoder)
    assert (summary.encoded, summary.images) == (6, 1)
    assert {row["image_hash"].hex() for row in rows(store).values() if row["image_hash"]} == {
        info.base_name for info in packed
    }
    hashes = {n: content_hash((source / f"{n}.png").read_bytes()).hex() for n in names if n != "none"}
    missing = {n for n in names if hashes.get(n) != packed[0].base_name}
    assert sorted(read_rejections(store)) == [(n, "image", MISSING) for n in sorted(missing)]
