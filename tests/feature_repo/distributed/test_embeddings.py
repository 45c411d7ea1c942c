"""Encoding on Ray writes the same tables as encoding on one machine, row by row."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from feature_repo.arrow.take import to_matrix
from feature_repo.config import Settings
from feature_repo.errors import VitrineError
from feature_repo.images.decoding import MISSING, NOT_AN_IMAGE
from feature_repo.offline import delta, quarantine
from producers.embeddings import run as embeddings
from producers.embeddings.run import EmbeddingSummary, embed_catalogue
from producers.encoders import load, on_ray, pipeline
from tests.producers.catalogue.shop import ingest, open_deployment
from tests.producers.encoders import checkpoints

NOW = datetime(2026, 6, 1, tzinfo=UTC)
COLOURS = ["red", "green", "blue", "white", "black"]


def write_images(folder: Path) -> list[str | None]:
    """Write images; return the paths of 5 usable ones, one that is not an image, one that does not exist, and None."""
    folder.mkdir()
    for number, colour in enumerate(COLOURS):
        Image.new("RGB", (40 + number, 48), colour).save(folder / f"{number}.png")
    (folder / "words.png").write_text("not an image")
    return [*(str(folder / f"{n}.png") for n in range(5)), str(folder / "words.png"), str(folder / "gone.png"), None]


def products(images: list[str | None], rows: int) -> list[dict[str, Any]]:
    """Return products: some share a title, some have none, some have neither title nor image."""
    titles = [None, "红色连衣裙", "男童鞋", *(f"女婴儿{n}" for n in range(8))]
    return [
        {"product_id": f"p{n:03}", "title": titles[n % len(titles)], "image": images[n % len(images)]}
        for n in range(rows)
    ]


def read_tables(store: Settings) -> tuple[pa.Table, pa.Table]:
    """Return the rows and the quarantine, in the order in which they were committed."""
    path = store.table("product_embedding")
    return delta.read(path), quarantine.read(store)


def test_the_tables_equal_those_of_one_machine_row_by_row(
    tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "ROWS_PER_COMMIT", 40)  # three chunks
    monkeypatch.setattr(on_ray, "ROWS_PER_PART", 7)  # several parts each
    images = write_images(tmp_path / "images")
    results: dict[str | None, tuple[EmbeddingSummary, pa.Table, pa.Table]] = {}
    for ray in (None, "local"):
        if ray is not None:
            monkeypatch.setattr(embeddings, "encode_chunks", None)  # used only on one machine
        (tmp_path / str(ray)).mkdir()
        store = open_deployment(tmp_path / str(ray))
        ingest(store, *products(images, 100))
        done = embed_catalogue(store, str(encoder), now=NOW, progress=lambda *_: None, ray=ray)
        results[ray] = (done, *read_tables(store))
        again = embed_catalogue(store, str(encoder), now=NOW, progress=lambda *_: None, ray=ray)
        assert (again.encoded, again.existing) == (0, 99)  # one product has neither title nor image
    (one, rows, refused), (many, rows_of_ray, refused_of_ray) = results.values()
    vectors = [name for name in rows.column_names if name.endswith("_vector")]
    assert rows_of_ray.drop_columns(vectors) == rows.drop_columns(vectors)
    dim = load(str(encoder)).dim
    for name in vectors:
        np.testing.assert_allclose(to_matrix(rows_of_ray[name], dim), to_matrix(rows[name], dim), atol=1e-6)
    assert refused_of_ray == refused
    assert replace(many, seconds=one.seconds) == one
    assert {MISSING, NOT_AN_IMAGE, pipeline.NOTHING_USABLE} <= set(one.unusable)
    assert many.encoded > 80
    assert many.reused > 20


def chunk(numbers: range) -> pa.Table:
    stream = BytesIO()
    Image.new("RGB", (40, 48), "red").save(stream, "PNG")
    rows = [
        {
            "product_id": f"p{n}",
            "title": f"鞋{n}",
            "image": None,
            "image_bytes": stream.getvalue(),
            "event_timestamp": NOW,
        }
        for n in numbers
    ]
    names = ["product_id", "title", "image", "image_bytes", "event_timestamp"]
    return pa.Table.from_pylist(rows, pa.schema([pipeline.schema.CATALOGUE.field(name) for name in names]))


@pytest.mark.slow
def test_chunks_of_any_size_are_returned_in_order(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "ROWS_PER_PART", 3)
    chunks = [chunk(range(60)), chunk(range(0)), chunk(range(60, 61)), chunk(range(70, 100))]
    model = load(str(encoder))
    encoded = list(on_ray.encode_chunks(iter(chunks), model, str(encoder)))
    assert [each.catalogue for each in encoded] == [each.drop_columns(["image_bytes"]) for each in chunks]
    for each in encoded:
        assert np.isfinite(each.image).all()
        np.testing.assert_allclose(each.text, model.encode_texts(each.catalogue["title"].to_pylist()), atol=1e-6)


@pytest.mark.slow
def test_another_encoder_on_a_machine_of_the_cluster_is_refused_in_one_line(tmp_path: Path, encoder: Path) -> None:
    folder = tmp_path / "small"
    shutil.copytree(encoder, folder)
    here = load(str(folder))
    shutil.rmtree(folder)
    checkpoints.chinese_clip(folder)
    with pytest.raises(VitrineError, match=r"is small@.* on a machine of the cluster and small@") as refusal:
        list(on_ray.encode_chunks(iter([chunk(range(2))]), here, str(folder)))
    assert "\n" not in str(refusal.value)
