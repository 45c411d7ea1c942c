"""The offline tables say what an encoder was trained on and its licence, whichever way its vectors come in."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from feature_repo.config import Settings
from feature_repo.offline import encoder_licence, training_products
from producers.cli import app
from producers.embeddings.remote_jobs import commit_parts
from producers.embeddings.run import embed_catalogue
from producers.encoders import load, run
from producers.encoders.licence import write_licence
from producers.learning.encoder import write_training_files
from tests.producers.catalogue.shop import ingest, open_deployment

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Settings:
    store = open_deployment(tmp_path)
    ingest(
        store, {"product_id": "a", "title": "红色", "image": None}, {"product_id": "b", "title": "蓝", "image": None}
    )
    return store


@pytest.fixture
def trained(encoder: Path, tmp_path: Path) -> Path:
    """A checkpoint that was trained on a, and then further on c."""
    folders = [tmp_path / "once" / "tiny", tmp_path / "twice" / "tiny"]
    for folder in folders:
        shutil.copytree(encoder, folder)
    write_training_files(folders[0], pa.chunked_array([["a", "a"]]), None, None)
    write_training_files(folders[1], pa.chunked_array([["c"]]), None, None, checkpoint=str(folders[0]))
    write_licence(folders[1], "Apache-2.0")
    return folders[1]


def read(store: Settings, encoder: Path) -> list[str] | None:
    products = training_products.read(store, load(str(encoder)).version)
    return None if products is None else sorted(products.to_pylist())


def test_embeddings_records_the_products_of_the_checkpoint_and_of_the_one_it_started_from(
    store: Settings, trained: Path
) -> None:
    for _ in range(2):
        embed_catalogue(store, str(trained), now=NOW, progress=lambda *_: None)
    assert read(store, trained) == ["a", "c"]
    assert encoder_licence.read(store) == {load(str(trained)).version: "Apache-2.0"}


def test_of_a_checkpoint_from_elsewhere_it_is_not_known(store: Settings, encoder: Path) -> None:
    embed_catalogue(store, str(encoder), now=NOW, progress=lambda *_: None)
    assert read(store, encoder) is None
    assert encoder_licence.read(store) == {}


def test_vectors_that_another_machine_encoded_bring_the_products_along(
    store: Settings, trained: Path, tmp_path: Path
) -> None:
    todo, parts = tmp_path / "todo.parquet", tmp_path / "parts"
    assert CliRunner().invoke(app, ["hand-out", "--output", str(todo), "--store", str(store.file)]).exit_code == 0
    run.encode(str(trained), todo, parts, now=NOW, workers=1)
    commit_parts(store, parts, NOW)
    assert read(store, trained) == ["a", "c"]
    assert encoder_licence.read(store) == {load(str(trained)).version: "Apache-2.0"}
