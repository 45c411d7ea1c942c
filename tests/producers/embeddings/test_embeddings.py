import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from feature_repo import run_log
from feature_repo.config import Settings
from feature_repo.fusion import fuse
from feature_repo.images.decoding import DAMAGED, MISSING, NOT_AN_IMAGE
from feature_repo.offline import delta, quarantine
from producers.embeddings.run import EmbeddingSummary, embed_catalogue
from producers.encoders import load
from producers.encoders.pipeline import NOTHING_USABLE
from tests.producers.catalogue.shop import ingest, open_deployment
from tests.producers.encoders import checkpoints

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Settings:
    return open_deployment(tmp_path)


def draw_image(file: Path, colour: str) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (48, 40), colour).save(file)
    return str(file)


def embed(store: Settings, encoder: Path) -> EmbeddingSummary:
    return embed_catalogue(store, str(encoder), now=NOW, progress=lambda *_: None)


def rows(store: Settings) -> dict[str, dict]:
    return {row["product_id"]: row for row in delta.read(store.table("product_embedding")).to_pylist()}


def test_a_run_without_new_products_ends_before_torch_is_imported(store: Settings, encoder: Path) -> None:
    ingest(store, {"product_id": "a", "title": "红色连衣裙", "image": None})
    first = embed(store, encoder)
    probe = (
        "import sys; from producers import cli\n"
        f"sys.argv = ['produce', 'embeddings', '--encoder', {str(encoder)!r}, '--store', {str(store.file)!r}]\n"
        "try: cli.main()\n"
        "finally: print('loaded:', {'torch', 'transformers'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[0] == f"{first.encoder_version}: 0 products encoded, 1 up to date"
    assert done.stdout.splitlines()[-1] == "loaded: set()"
    before, last = run_log.read_runs(store, step="embeddings")
    assert last.inputs == before.inputs


def test_a_row_has_the_encoders_vectors_of_the_image_and_the_title(store: Settings, encoder: Path) -> None:
    file = draw_image(store.file.parent / "a.png", "red")
    ingest(store, {"product_id": "a", "title": "红色连衣裙", "image": file})
    embed(store, encoder)
    model, row = load(str(encoder)), rows(store)["a"]
    np.testing.assert_allclose(row["text_vector"], model.encode_texts(["红色连衣裙"])[0], atol=1e-5)
    np.testing.assert_allclose(
        row["image_vector"], model.encode_images([Image.open(file).convert("RGB")])[0], atol=1e-2
    )
    assert row["encoder_version"] == model.version
    assert row["event_timestamp"] < row["created_timestamp"] == NOW
    for name in ("image_vector", "text_vector", "fused_vector", "similar_vector"):
        assert np.linalg.norm(row[name]) == pytest.approx(1, abs=1e-5)


def test_a_product_without_one_modality_has_a_row_with_the_other(store: Settings, encoder: Path) -> None:
    file = draw_image(store.file.parent / "a.png", "blue")
    ingest(
        store,
        {"product_id": "words", "title": "男童鞋", "image": None},
        {"product_id": "looks", "title": None, "image": file},
    )
    embed(store, encoder)
    words, looks = rows(store)["words"], rows(store)["looks"]
    assert (words["has_image"], words["has_text"], words["image_vector"]) == (False, True, None)
    assert (looks["has_image"], looks["has_text"], looks["text_vector"]) == (True, False, None)
    np.testing.assert_allclose(words["fused_vector"], words["text_vector"], atol=1e-6)
    np.testing.assert_allclose(looks["similar_vector"], looks["image_vector"], atol=1e-6)


def test_unusable_images_are_quarantined_with_their_reason_and_counted(store: Settings, encoder: Path) -> None:
    folder = store.file.parent
    (folder / "words.jpg").write_text("not an image")
    whole = Path(draw_image(folder / "whole.png", "green")).read_bytes()
    (folder / "half.png").write_bytes(whole[: len(whole) // 2])
    Image.new("P", (9, 9)).save(folder / "palette.png")
    odd = (folder / "palette.png").read_bytes().replace(b"PLTE", b"pLTE")  # AssertionError in Pillow
    (folder / "odd.png").write_bytes(odd)
    files = [
        ("gone", str(folder / "gone.jpg")),
        ("words", str(folder / "words.jpg")),
        ("half", str(folder / "half.png")),
        ("odd", str(folder / "odd.png")),
    ]
    ingest(store, *({"product_id": name, "title": "女婴儿", "image": file} for name, file in files),
          {"product_id": "nothing", "title": None, "image": str(folder / "gone.jpg")})  # fmt: skip
    done = embed(store, encoder)
    assert done.unusable == {MISSING: 2, NOT_AN_IMAGE: 1, DAMAGED: 2, NOTHING_USABLE: 1}
    assert set(rows(store)) == {"gone", "words", "half", "odd"}
    assert not any(row["has_image"] for row in rows(store).values())
    refused = {(r["row_id"], r["reason"]) for r in quarantine.read(store).to_pylist() if r["step"] == "embeddings"}
    assert {
        ("gone", MISSING),
        ("words", NOT_AN_IMAGE),
        ("half", DAMAGED),
        ("odd", DAMAGED),
        ("nothing", NOTHING_USABLE),
    } <= refused


def test_nothing_is_encoded_twice_and_a_changed_title_is_encoded_once(store: Settings, encoder: Path) -> None:
    first = {"product_id": "a", "title": "红色连衣裙", "image": None, "updated_at": datetime(2026, 1, 1, tzinfo=UTC)}
    ingest(store, first)
    assert (embed(store, encoder).encoded, embed(store, encoder).encoded) == (1, 0)
    ingest(store, first | {"title": "蓝色连衣裙", "updated_at": datetime(2026, 1, 5, tzinfo=UTC)})
    done = embed(store, encoder)
    assert (done.encoded, done.existing) == (1, 1)
    assert delta.read(store.table("product_embedding")).num_rows == 2


def test_another_encoder_version_gets_rows_of_its_own(store: Settings, encoder: Path, tmp_path: Path) -> None:
    ingest(store, {"product_id": "a", "title": "红色连衣裙", "image": None})
    embed(store, encoder)
    checkpoints.chinese_clip(tmp_path / "other")
    assert embed(store, tmp_path / "other").encoded == 1
    versions = delta.read(store.table("product_embedding"), ["encoder_version"]).column(0).to_pylist()
    assert len(set(versions)) == 2


unit = st.floats(-1, 1, width=32)


@given(arrays.arrays(np.float32, (4, 3), elements=unit), arrays.arrays(np.float32, (4, 3), elements=unit))
def test_fused_rows_are_unit_rows_of_the_weighted_sum(image: np.ndarray, text: np.ndarray) -> None:
    fused = fuse(image, text, (0.7, 0.3))
    for row, a, b in zip(fused, image, text, strict=True):
        total = np.float32(0.7) * a + np.float32(0.3) * b
        if np.linalg.norm(total) < 1e-4:
            continue  # rounding dominates the direction of so short a sum
        np.testing.assert_allclose(row, total / np.linalg.norm(total), atol=1e-3)
