"""Only images and titles that an encoder has not encoded before go through it."""

import multiprocessing
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from feature_repo import run_log
from feature_repo.config import Settings
from feature_repo.errors import EncoderMismatchError, VitrineError
from feature_repo.images.decoding import MISSING, NOT_AN_IMAGE
from feature_repo.offline import delta, quarantine, retention
from producers.cli import app
from producers.embeddings import plan, vector_cache
from producers.embeddings import run as embeddings
from producers.embeddings.estimate import estimate_embeddings
from producers.embeddings.run import EmbeddingSummary, embed_catalogue
from producers.encoders import load
from producers.encoders.pipeline import NO_VECTOR, NOTHING_USABLE, EncodedChunk, build_embedding_rows
from tests.producers.catalogue.shop import ingest, open_deployment
from tests.producers.embeddings.test_embeddings import draw_image
from tests.producers.encoders import checkpoints

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
LATER = {"updated_at": datetime(2026, 1, 5, tzinfo=UTC)}


@pytest.fixture
def store(tmp_path: Path) -> Settings:
    return open_deployment(tmp_path)


def ingest_one_image_in_two_files(store: Settings) -> tuple[str, str]:
    """Add the products a and b, which name two files with the same content; return the paths of the files."""
    red = draw_image(store.file.parent / "red.png", "red")
    copy = str(shutil.copy(red, store.file.parent / "copy.png"))
    ingest(store, {"product_id": "a", "image": red}, {"product_id": "b", "image": copy})
    return red, copy


def embed(store: Settings, encoder: Path, day: int = 0, **options: Any) -> EmbeddingSummary:
    return embed_catalogue(store, str(encoder), now=NOW + day * DAY, progress=lambda *_: None, **options)


def row(store: Settings, product: str, version: str | None = None) -> dict[str, Any]:
    """Return the row of a product, of one encoder version if it is given, that was created last."""
    rows = delta.read(store.table("product_embedding")).sort_by("created_timestamp").to_pylist()
    rows = [each for each in rows if each["product_id"] == product and version in (None, each["encoder_version"])]
    return rows[-1]


def counts(done: EmbeddingSummary) -> tuple[int, int, int, int]:
    return done.encoded, done.images, done.titles, done.reused


def test_an_image_and_a_title_are_encoded_once_for_all_products_that_share_them(store: Settings, encoder: Path) -> None:
    red = draw_image(store.file.parent / "red.png", "red")
    copy = str(shutil.copy(red, store.file.parent / "copy.png"))
    ingest(
        store,
        {"product_id": "a", "title": "红裙", "image": red},
        {"product_id": "b", "title": "红裙", "image": copy},
        {"product_id": "c", "title": "蓝裙", "image": red},
    )
    assert counts(embed(store, encoder)) == (3, 1, 2, 3)
    ingest(store, {"product_id": "d", "title": "蓝裙", "image": copy})
    assert counts(embed(store, encoder, 1)) == (1, 0, 0, 2)
    assert row(store, "d")["image_vector"] == row(store, "a")["image_vector"]
    assert row(store, "d")["text_vector"] == row(store, "c")["text_vector"]
    assert row(store, "d")["fused_vector"] == row(store, "c")["fused_vector"]


def test_a_new_title_does_not_encode_the_image_again_and_a_new_price_encodes_nothing(
    store: Settings, encoder: Path
) -> None:
    first = {"title": "红裙", "image": draw_image(store.file.parent / "red.png", "red")}
    ingest(store, first)
    embed(store, encoder)
    before = row(store, "p1")
    ingest(store, first | {"title": "新红裙"} | LATER)
    assert counts(embed(store, encoder, 1)) == (1, 0, 1, 1)
    assert row(store, "p1")["image_vector"] == before["image_vector"]
    assert row(store, "p1")["text_vector"] != before["text_vector"]
    ingest(store, first | {"title": "新红裙", "price": 1.0, "updated_at": datetime(2026, 1, 6, tzinfo=UTC)})
    assert counts(embed(store, encoder, 2)) == (1, 0, 0, 2)


def test_a_run_without_new_rows_neither_plans_nor_encodes(
    store: Settings, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(store, {"image": draw_image(store.file.parent / "red.png", "red")})
    embed(store, encoder)
    monkeypatch.setattr(embeddings, "plan_encoding", lambda *_, **__: pytest.fail("a run without new rows planned"))
    done = embed(store, encoder, 1)
    assert (counts(done), done.existing) == ((0, 0, 0, 0), 1)


def test_only_rows_that_were_added_since_the_last_run_are_read(store: Settings, encoder: Path) -> None:
    rows = [{"product_id": str(number), "image": None} for number in range(20)]
    ingest(store, *rows)
    version = embed(store, encoder).encoder_version
    ingest(store, *rows, {"product_id": "new", "image": None})
    state = plan.read_changes(store, version)
    assert state is not None
    assert state.new.to_table(columns=["product_id"])["product_id"].to_pylist() == ["new"]
    assert embed(store, encoder, 1).existing == 20


def test_a_correction_gets_a_row_and_so_does_its_reversal(store: Settings, encoder: Path) -> None:
    for day, title in enumerate(["红裙", "蓝裙", "红裙"]):
        ingest(store, {"title": title, "image": None}, now=NOW - (3 - day) * DAY)
        assert counts(embed(store, encoder, day)) == (1, 0, int(day < 2), int(day == 2))
    rows = delta.read(store.table("product_embedding")).sort_by("created_timestamp").to_pylist()
    assert len({each["event_timestamp"] for each in rows}) == 1
    assert rows[0]["text_vector"] == rows[2]["text_vector"] != rows[1]["text_vector"]


def test_of_several_corrections_between_two_runs_only_the_last_is_encoded(store: Settings, encoder: Path) -> None:
    for day, title in enumerate(["红裙", "蓝裙"]):
        ingest(store, {"title": title, "image": None}, now=NOW - (3 - day) * DAY)
    assert counts(embed(store, encoder)) == (1, 0, 1, 0)
    ingest(store, {"product_id": "p2", "title": "蓝裙", "image": None})
    assert counts(embed(store, encoder, 1)) == (1, 0, 0, 1)


def test_each_product_with_the_same_unusable_image_is_quarantined_with_the_reason(
    store: Settings, encoder: Path
) -> None:
    (store.file.parent / "words.jpg").write_text("not an image")
    broken = str(store.file.parent / "words.jpg")
    ingest(store, *({"product_id": name, "title": f"裙 {name}", "image": broken} for name in "abc"))
    done = embed(store, encoder)
    assert done.unusable == {NOT_AN_IMAGE: 3}
    assert (done.encoded, done.images) == (3, 0)
    quarantined = {(each["row_id"], each["reason"]) for each in quarantine.read(store).to_pylist()}
    assert quarantined == {(name, NOT_AN_IMAGE) for name in "abc"}


def test_a_product_without_any_vector_is_tried_again_only_when_it_changes(store: Settings, encoder: Path) -> None:
    file = store.file.parent / "late.png"
    ingest(store, {"title": None, "image": str(file)})
    assert embed(store, encoder).unusable == {MISSING: 1, NOTHING_USABLE: 1}
    assert embed(store, encoder, 1).unusable == {}
    draw_image(file, "red")
    ingest(store, {"title": None, "image": str(file)}, now=NOW - DAY)
    assert counts(embed(store, encoder, 2)) == (1, 1, 0, 0)


def test_a_product_without_any_vector_is_counted_once_in_several_passes(store: Settings, encoder: Path) -> None:
    ingest(store, {"product_id": "a", "title": None, "image": "gone.jpg"}, {"product_id": "b", "image": None})
    done = embed(store, encoder, first=[pc.field("product_id") == "a"])
    assert done.unusable == {MISSING: 1, NOTHING_USABLE: 1}
    assert (done.encoded, done.existing) == (1, 0)


def test_an_image_that_changed_after_it_was_hashed_is_not_cached_under_the_old_hash(
    store: Settings, encoder: Path
) -> None:
    red, copy = ingest_one_image_in_two_files(store)
    draw_image(Path(red), "blue")
    assert embed(store, encoder).images == 2
    assert row(store, "a")["image_hash"] == row(store, "b")["image_hash"]
    assert row(store, "a")["image_vector"] != row(store, "b")["image_vector"]
    ingest(store, {"product_id": "a", "image": red}, {"product_id": "b", "image": copy}, now=NOW - DAY)
    done = embed(store, encoder, 1)
    assert (done.encoded, done.images) == (1, 1)


def test_an_image_is_encoded_from_another_file_if_the_first_one_with_its_content_is_deleted(
    store: Settings, encoder: Path
) -> None:
    red, _ = ingest_one_image_in_two_files(store)
    Path(red).unlink()
    done = embed(store, encoder)
    assert (done.encoded, done.images, done.unusable) == (2, 1, {MISSING: 1})
    assert row(store, "a")["image_vector"] is None
    assert row(store, "b")["image_vector"] is not None


def test_an_image_of_many_products_that_changed_after_it_was_hashed_takes_one_more_pass(
    store: Settings, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    red = draw_image(store.file.parent / "red.png", "red")
    ingest(store, *({"product_id": name, "image": red} for name in "abcd"))
    draw_image(Path(red), "blue")
    plans = []
    plan_encoding = embeddings.plan_encoding
    monkeypatch.setattr(
        embeddings, "plan_encoding", lambda *given, **options: plans.append(1) or plan_encoding(*given, **options)
    )
    assert embed(store, encoder).encoded == 4
    assert len(plans) == 2
    for name in "bcd":
        assert row(store, name)["image_vector"] == pytest.approx(row(store, "a")["image_vector"], abs=1e-5)


def test_vectors_that_are_not_finite_are_quarantined_and_never_stored(
    store: Settings, encoder: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(encoder, broken)
    weights = load_file(broken / "model.safetensors")
    weights["text_projection.weight"] = torch.full_like(weights["text_projection.weight"], torch.nan)
    weights["visual_projection.weight"] = torch.zeros_like(weights["visual_projection.weight"])
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    red = draw_image(store.file.parent / "red.png", "red")
    ingest(
        store, {"product_id": "a", "title": "红裙", "image": red}, {"product_id": "b", "title": "蓝裙", "image": None}
    )
    done = embed(store, broken)
    assert done.unusable == {NO_VECTOR: 3, NOTHING_USABLE: 2}
    assert delta.read(store.table("product_embedding")).num_rows == 0
    with vector_cache.open_cache(store.offline / vector_cache.FOLDER, done.encoder_version, 8) as cache:
        assert not cache._environment.use(lambda environment: environment.stat()["entries"])


def test_cached_vectors_are_returned_bit_for_bit_and_the_file_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_cache, "INITIAL_MAP_SIZE", 1 << 16)
    vectors = np.random.default_rng(0).normal(size=(2_000, 64)).astype(np.float32)
    hashes = [row.to_bytes(16, "big") for row in range(len(vectors))]
    with vector_cache.open_cache(tmp_path, "a@1", 64) as cache:
        cache.put(vector_cache.IMAGE, hashes, vectors)
    with vector_cache.open_cache(tmp_path, "a@1", 64) as cache:
        np.testing.assert_array_equal(
            cache.get(vector_cache.IMAGE, [hashes[7], None, hashes[3]])[[0, 2]], vectors[[7, 3]]
        )
        assert np.isnan(cache.get(vector_cache.TITLE, hashes[:1])).all()
        assert cache.has(vector_cache.IMAGE, [hashes[7], None, b"x" * 16]).tolist() == [True, False, False]
    with vector_cache.open_cache(tmp_path, "b@1", 64) as cache:
        assert not cache.has(vector_cache.IMAGE, hashes[:1]).any()


def test_an_encoder_that_changed_under_its_name_is_refused_until_accepted(
    store: Settings, encoder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(encoder, folder)
    ingest(store, {"image": None})
    before = embed(store, folder).encoder_version
    (folder / "vocab.txt").write_text("another")
    with pytest.raises(VitrineError, match=rf"encoder `mine` has changed: {before} .*--accept-changed"):
        embed(store, folder)
    after = embed(store, folder, accept_changed=True)
    assert after.encoded == 1
    assert embed(store, folder).encoded == 0
    assert [run.ending for run in run_log.read_runs(store)] == ["done", "failed", "done", "done"]


def test_a_checkpoint_that_no_longer_has_the_expected_version_is_refused_before_anything_is_encoded(
    store: Settings, encoder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(encoder, folder)
    ingest(store, {"image": None})
    version = load(str(folder)).version
    command = ["embeddings", "--encoder", str(folder), "--encoder-version", version, "--store", str(store.file)]
    (folder / "vocab.txt").write_text("another")
    refused = CliRunner().invoke(app, command)
    assert isinstance(refused.exception, EncoderMismatchError)
    assert f"expected {version}" in str(refused.exception)
    assert not store.table("product_embedding").exists()
    (folder / "vocab.txt").unlink()
    assert CliRunner().invoke(app, command).exit_code == 0


def test_rows_of_an_earlier_encoder_are_kept_and_only_what_came_meanwhile_is_written(
    store: Settings, encoder: Path, tmp_path: Path
) -> None:
    checkpoints.chinese_clip(tmp_path / "other")
    ingest(store, *({"product_id": name, "title": name, "image": None} for name in ("a", "b")))
    version = embed(store, encoder).encoder_version
    before = row(store, "a")["text_vector"]
    embed(store, tmp_path / "other", 1)
    done = embed(store, encoder, 2)
    assert (done.encoded, done.existing, done.production_version) == (0, 2, version)
    assert row(store, "a", version)["text_vector"] == before

    embed(store, tmp_path / "other", 4)
    for name in ("product_embedding", "product_catalogue"):  # remove the files of earlier versions
        retention.compact(store.table(name))
        retention.vacuum(store.table(name), grace=timedelta(0))
    ingest(store, {"product_id": "c", "title": "c", "image": None})
    assert counts(embed(store, encoder, 5)) == (1, 0, 1, 0)
    assert {row(store, name, version)["encoder_version"] for name in ("a", "b", "c")} == {version}
    assert embed(store, encoder, 6).encoded == 0


def test_the_run_log_has_inputs_model_counts_and_quarantine(store: Settings, encoder: Path) -> None:
    ingest(store, {"product_id": "a", "image": "gone.jpg"}, {"product_id": "b", "image": None})
    version = embed(store, encoder).encoder_version
    (run,) = run_log.read_runs(store)
    assert (run.step, run.model, run.inputs) == ("embeddings", version, {"product_catalogue": 1})
    assert run.counts == {"rows": 2, "pictures": 0, "titles": 1, "reused": 1}
    assert run.quarantined == {MISSING: 1}


def test_a_row_without_content_hashes_is_not_encoded_again(store: Settings, encoder: Path) -> None:
    ingest(store, {"image": None})
    model = load(str(encoder))
    catalogue = delta.read(store.table("product_catalogue"), ["product_id", "event_timestamp"])
    vectors = np.eye(1, 12, dtype=np.float32)
    rows = build_embedding_rows(EncodedChunk(catalogue, vectors, vectors), model, NOW).rows
    delta.append(store.table("product_embedding"), rows)
    assert (embed(store, encoder).encoded, embed(store, encoder).existing) == (0, 1)


def test_a_dry_run_writes_nothing_and_reports_what_the_run_then_does(store: Settings, encoder: Path) -> None:
    red = draw_image(store.file.parent / "red.png", "red")
    blue = draw_image(store.file.parent / "blue.png", "blue")
    ingest(
        store, {"product_id": "a", "title": "红裙", "image": red}, {"product_id": "b", "title": "红裙", "image": blue}
    )
    for day, products in enumerate([{}, {"product_id": "c", "title": "蓝裙", "image": red}]):
        if products:
            ingest(store, products, now=NOW - DAY)
        before = sorted(path for path in store.file.parent.rglob("*"))
        expected = estimate_embeddings(store, str(encoder))
        assert sorted(path for path in store.file.parent.rglob("*")) == before
        done = embed(store, encoder, day)
        assert (expected.rows, expected.existing) == (done.encoded, done.existing)
        assert (expected.images, expected.titles) == (done.images, done.titles)
    assert estimate_embeddings(store, str(encoder)).rows == 0


def _fill_cache(
    folder: Path, hashes: list[bytes], vectors: np.ndarray, begin: "multiprocessing.synchronize.Event"
) -> None:
    begin.wait(10)
    with vector_cache.open_cache(folder, "a@1", 64) as cache:
        cache.put(vector_cache.IMAGE, hashes, vectors)


def test_a_cache_that_another_process_grows_is_read_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_cache, "INITIAL_MAP_SIZE", 1 << 16)
    vectors = np.random.default_rng(0).normal(size=(2_000, 64)).astype(np.float32)
    hashes = [row.to_bytes(16, "big") for row in range(len(vectors))]
    context = multiprocessing.get_context("fork")
    begin = context.Event()
    process = context.Process(target=_fill_cache, args=(tmp_path, hashes, vectors, begin))
    process.start()
    with vector_cache.open_cache(tmp_path, "a@1", 64) as cache:
        cache.put(vector_cache.IMAGE, hashes[:1], vectors[:1])
        begin.set()
        process.join()
        assert cache.has(vector_cache.IMAGE, hashes).all()
        np.testing.assert_array_equal(cache.get(vector_cache.IMAGE, hashes), vectors)
