"""An adapter is an encoder of its own, fitted on products that two encoders have encoded."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from feature_repo.arrow.take import to_matrix
from feature_repo.config import Settings
from feature_repo.errors import ConflictError, CorruptDataError, EncoderMismatchError, InvalidInputError, NotFoundError
from feature_repo.offline import delta, production
from producers import cli
from producers.embeddings.run import embed_catalogue
from producers.encoders import checkpoint_version, load
from producers.encoders.adapted.encoder import AdaptedEncoder
from producers.encoders.adapted.vector_map import MapKind
from producers.learning import adapter
from producers.learning.export import export_encoder
from tests.producers.catalogue.shop import ingest, open_deployment
from tests.producers.embeddings.test_embeddings import draw_image
from tests.producers.embeddings.test_reuse import NOW

PRODUCTS = 60
WORDS = ("红", "蓝", "裙", "鞋", "帽", "衣", "新", "春")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> Settings:
    """A store with vectors of `first`, in production, and of `second`, the same weights with noise."""
    folder = tmp_path_factory.mktemp("adapter")
    store = open_deployment(folder)
    colours = [f"#{shade * 4:02x}{255 - shade * 4:02x}{shade:02x}" for shade in range(PRODUCTS)]
    images = [draw_image(folder / f"{colour[1:]}.png", colour) for colour in colours]
    titles = ["".join(WORDS[number >> bit & 7] for bit in (0, 1, 3)) + str(number) for number in range(PRODUCTS)]
    ingest(store, *({"product_id": f"p{i}", "title": titles[i], "image": images[i]} for i in range(PRODUCTS)))
    rng = np.random.default_rng(0)
    for name in ("first", "second"):
        shutil.copytree(encoder, folder / name)
    weights = load_file(folder / "second" / "model.safetensors")
    noisy = {
        key: np.asarray(each + rng.normal(size=each.shape) * 0.02, each.dtype) if each.ndim else each
        for key, each in weights.items()
    }
    save_file(noisy, folder / "second" / "model.safetensors", metadata={"format": "pt"})
    for name in ("first", "second"):
        embed_catalogue(store, str(folder / name), now=NOW, progress=lambda *_: None)
    return store


def train(store: Settings, source: str, target: str, output: Path, *options: str) -> str:
    folder = store.file.parent
    other = target if "@" in target else str(folder / target)
    line = ["adapter", "--from", str(folder / source), "--to", other, "--output", str(output), *options]
    result = CliRunner().invoke(cli.app, [*line, "--store", str(store.file)])
    if result.exception:
        raise result.exception
    return result.output


def test_an_adapted_encoder_has_its_own_version_and_needs_no_call_of_its_source(made: Settings, tmp_path: Path) -> None:
    store, output = made, made.file.parent / "second-from-first"
    printed = train(store, "first", "second", output)
    assert "ridge map from first@" in printed
    assert "fused: recall@10 kept" in printed
    adapted = load(str(output))
    assert isinstance(adapted, AdaptedEncoder)
    assert adapted.version.startswith("second-from-first@")
    with pytest.raises(InvalidInputError, match="is an adapter, which has no towers of its own"):
        export_encoder(str(output), tmp_path / "export", format="onnx", data=None, seed=0)
    done = embed_catalogue(store, str(output), now=NOW, progress=lambda *_: None)
    assert (done.encoded, done.images, done.titles) == (PRODUCTS, 0, 0)
    assert done.production_version != done.encoder_version  # readers do not get it
    rows = delta.read(store.table("product_embedding")).filter(pc.field("encoder_version") == adapted.version)
    titles = {row["product_id"]: row["title"] for row in delta.read(store.table("product_catalogue")).to_pylist()}
    expected = adapted.encode_texts([titles[product] for product in rows["product_id"].to_pylist()])
    np.testing.assert_allclose(to_matrix(rows["text_vector"]), expected, atol=1e-5)
    assert production.read_version(store.offline) == load(str(store.file.parent / "first")).version


def test_the_loss_is_that_of_products_that_the_maps_were_not_fitted_on(made: Settings, tmp_path: Path) -> None:
    first, second = (checkpoint_version.read_version(str(made.file.parent / name)) for name in ("first", "second"))
    summary = adapter.train_adapter(
        made,
        encoder=str(made.file.parent / "first"),
        source_version=first,
        target_version=second,
        kind=MapKind.PROCRUSTES,
        output=tmp_path / "rotated",
        name="rotated",
        seed=1,
    )
    assert summary.fitted == PRODUCTS - 12
    assert {loss.vectors: loss.products for loss in summary.losses} == {"image": 12, "text": 12, "fused": 12}
    pairs = adapter.read_pairs(made, first, second, seed=0)
    same = adapter.fit_adapter(
        adapter.PairedVectors(pairs.source, pairs.source), first, second, MapKind.PROCRUSTES, seed=0
    )
    losses = {loss.vectors: loss for loss in adapter.measure_losses(same, pairs)}
    assert losses["image"].source_recall < 1
    to_itself = adapter.measure_losses(same, adapter.PairedVectors(pairs.source, pairs.source))
    assert {loss.recall[0] for loss in to_itself if loss.vectors != "fused"} == {1.0}
    assert checkpoint_version.read_version(str(tmp_path / "rotated")).startswith("rotated@")


def test_an_adapter_needs_fused_vectors_of_the_same_contents(made: Settings) -> None:
    first, second = (checkpoint_version.read_version(str(made.file.parent / name)) for name in ("first", "second"))
    pairs = adapter.read_pairs(made, first, second, seed=0)
    nowhere = np.full_like(pairs.target["fused"], np.nan)  # every image was taken again
    changed = adapter.PairedVectors(pairs.source, {**pairs.target, "fused": nowhere})
    with pytest.raises(InvalidInputError, match="0 products to fit on have vectors of the same image and title by"):
        adapter.fit_adapter(changed, first, second, MapKind.RIDGE, seed=0)


def test_a_changed_source_or_a_damaged_file_is_refused(made: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "adapted"
    train(made, "first", "second", folder)
    (folder / "source").write_text(str(made.file.parent / "second"))
    with pytest.raises(EncoderMismatchError, match=r"was fitted on first@.* is second@"):
        load(str(folder))
    (folder / "source").unlink()
    with pytest.raises(CorruptDataError, match="missing; write the directory or hub name of first@"):
        load(str(folder))
    (folder / "maps.safetensors").write_bytes(b"x")
    with pytest.raises(CorruptDataError, match=r"cannot be read.*run `produce adapter` again"):
        load(str(folder))


def test_an_adapter_needs_two_encoders_and_enough_products_of_both(
    made: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "MIN_PRODUCTS_PER_DIMENSION", 100)
    with pytest.raises(InvalidInputError, match=r"48 products to fit on have vectors .*; expected [\d,]+ at least"):
        train(made, "first", "second", tmp_path / "adapted")
    with pytest.raises(InvalidInputError, match="both source and target"):
        train(made, "first", "first", tmp_path / "adapted")
    with pytest.raises(NotFoundError, match="no vectors of third@3"):
        train(made, "first", "third@3", tmp_path / "adapted")
    with pytest.raises(InvalidInputError, match="no name of an encoder"):
        train(made, "first", "second", tmp_path / "adapted", "--name", "a name")
    assert not (tmp_path / "adapted").exists()
    with pytest.raises(ConflictError, match="exists already"):
        train(made, "first", "second", tmp_path)
