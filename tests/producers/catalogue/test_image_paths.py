"""Paths of images as a table has them, made absolute."""

from pathlib import Path

import pyarrow as pa

from feature_repo.location import BucketPath
from producers.catalogue.image_paths import resolve_paths

PICTURES = BucketPath("az://box/pictures", {"AZURE_STORAGE_ACCOUNT_NAME": "acc1"})


def test_an_object_below_the_prefix_is_found_in_every_spelling_of_its_url() -> None:
    spellings = (
        "a b.jpg",
        "az://box/pictures/a b.jpg",
        "ABFSS://box/pictures/a b.jpg",
        "abfss://box@acc1.dfs.core.windows.net/pictures/a b.jpg",
        "abfss://acc1.blob.core.windows.net/box/pictures/a b.jpg",
    )
    resolved = resolve_paths(pa.chunked_array([[*spellings, None, "/srv/a.jpg"]]), Path("/srv/products.csv"), PICTURES)
    assert resolved.absolute.to_pylist() == ["az://box/pictures/a b.jpg"] * len(spellings) + [None, "/srv/a.jpg"]
    assert not resolved.is_url.any()


def test_a_url_of_another_account_container_or_host_is_outside_of_the_prefix() -> None:
    outside = (
        "abfss://box@other.dfs.core.windows.net/pictures/a.jpg",
        "abfss://box2/pictures/a.jpg",
        "abfss://box@acc1.example/pictures/a.jpg",
        "s3://box/pictures/a.jpg",
    )
    resolved = resolve_paths(pa.chunked_array([outside]), Path("/srv/products.csv"), PICTURES)
    assert resolved.is_url.all()
    assert resolved.absolute.null_count == len(outside)
