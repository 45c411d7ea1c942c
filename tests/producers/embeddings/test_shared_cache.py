"""Machines that write the same bucket: what one has encoded the other does not encode, and forgetting reaches both."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import yaml

from feature_repo import config, schema
from feature_repo.config import Settings
from feature_repo.location import BucketPath
from feature_repo.offline import delta
from producers import maintenance
from producers.embeddings import vector_cache
from producers.embeddings.vector_cache import TITLE, open_cache
from tests.producers.catalogue.shop import ingest, open_deployment
from tests.producers.embeddings.test_embeddings import embed, rows
from tests.producers.embeddings.test_forget_contents import title_hash

TITLES = {"a": "红色连衣裙", "b": "蓝色婴儿帽"}
LATER = datetime(2026, 1, 11, tzinfo=UTC)


def open_machine(folder: Path, tables: BucketPath) -> Settings:
    """Create a deployment of one machine on tables that others write too."""
    folder.mkdir()
    file = open_deployment(folder).file
    store = {"path": tables.url, "storage_options": dict(tables.options), "local_path": "local"}
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"offline_store": store}))
    return config.load(file)


@pytest.fixture
def machines(tmp_path: Path, bucket: BucketPath, encoder: Path) -> tuple[Settings, Settings]:
    """Two machines; the first has encoded two titles."""
    first, second = (open_machine(tmp_path / name, bucket) for name in ("first", "second"))
    ingest(first, *({"product_id": name, "title": title, "image": None} for name, title in TITLES.items()))
    assert embed(first, encoder).titles == 2
    return first, second


def has_titles(store: Settings, encoder_version: str) -> list[bool]:
    with open_cache(store.local / vector_cache.FOLDER, encoder_version, 0) as cache:
        return cache.has(TITLE, [title_hash(title) for title in TITLES.values()]).tolist()


def read_version(store: Settings) -> str:
    return str(delta.read(store.table(schema.EMBEDDING_TABLE))["encoder_version"][0])


def test_a_content_that_another_machine_encoded_is_not_encoded_again(
    machines: tuple[Settings, Settings], encoder: Path
) -> None:
    first, second = machines
    ingest(second, {"product_id": "c", "title": TITLES["a"], "image": None}, {"product_id": "d", "image": None})
    summary = embed(second, encoder)
    assert (summary.encoded, summary.titles, summary.reused) == (2, 1, 1)
    stored = rows(first)
    np.testing.assert_array_equal(stored["c"]["text_vector"], stored["a"]["text_vector"])
    ingest(first, {"product_id": "e", "image": None}, now=LATER)
    assert embed(first, encoder).titles == 0, "the title of d is in a row of the second machine"


def test_a_lost_cache_is_filled_from_the_rows(machines: tuple[Settings, Settings], encoder: Path) -> None:
    first, _ = machines
    shutil.rmtree(first.local / vector_cache.FOLDER)
    ingest(first, {"product_id": "c", "title": TITLES["b"], "image": None}, now=LATER)
    assert embed(first, encoder).titles == 0
    assert has_titles(first, read_version(first)) == [True, True]


def test_forgetting_reaches_the_cache_of_every_machine(machines: tuple[Settings, Settings], encoder: Path) -> None:
    first, second = machines
    version = read_version(first)
    embed(second, encoder)
    assert has_titles(second, version) == [True, True]
    maintenance.forget(first, products=["a"], users=[])
    assert has_titles(first, version) == [False, True]
    embed(second, encoder)
    assert has_titles(second, version) == [False, True]
