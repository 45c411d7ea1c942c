"""Kept outputs of towers: a new head makes every embedding row again without a tower call."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feature_repo.offline import delta
from producers.embeddings.output_store import FOLDER, open_outputs
from producers.embeddings.run import embed_catalogue
from producers.encoders import load
from producers.encoders.assembled import encoder as assembled
from producers.encoders.assembled.assemble import assemble
from tests.producers.catalogue.shop import ingest, open_deployment
from tests.producers.embeddings.test_embeddings import NOW
from tests.producers.encoders import checkpoints
from tests.producers.encoders.assembled.test_assembled import IMAGES, TITLES


def test_a_new_head_makes_every_row_again_without_a_tower_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_deployment(tmp_path)
    checkpoints.clip(tmp_path / "clip")
    products = []
    for number in range(12):
        (tmp_path / f"{number}.png").write_bytes(IMAGES[number])
        products.append({"product_id": f"p{number}", "title": TITLES[number], "image": str(tmp_path / f"{number}.png")})
    ingest(store, *products)
    calls = {"images": 0, "texts": 0}

    def count(name: str, method: str) -> None:
        own = getattr(assembled.AssembledEncoder, method)

        def counted(self: Any, *arguments: Any) -> Any:
            calls[name] += 1
            return own(self, *arguments)

        monkeypatch.setattr(assembled.AssembledEncoder, method, counted)

    count("images", "_pixels_to_outputs")
    count("texts", "_tokens_to_outputs")

    def build(name: str, head: str) -> str:
        with open_outputs(tmp_path / "elsewhere") as outputs:
            assemble(
                TITLES[:24],
                IMAGES[:24],
                tmp_path / name,
                outputs,
                image_tower=str(tmp_path / "clip"),
                text_tower=str(tmp_path / "clip"),
                head=head,
                dim=8,
                seed=0,
                progress=lambda stage, done, total: None,
            )
        return str(tmp_path / name)

    def embed(encoder: str) -> dict[str, dict[str, Any]]:
        embed_catalogue(store, encoder, now=NOW, progress=lambda *_: None)
        table = delta.read(store.table("product_embedding")).to_pylist()
        version = load(encoder).version
        return {row["product_id"]: row for row in table if row["encoder_version"] == version}

    first, second = build("first", "linear"), build("second", "mlp")
    assert len(embed(first)) == 12
    assert calls["images"]
    assert calls["texts"]
    model = load(second)
    expected = model.encode_texts(TITLES[:12])
    calls.update(images=0, texts=0)
    embed_catalogue(store, second, now=NOW, progress=lambda *_: None)
    assert calls == {"images": 0, "texts": 0}
    rows = embed(second)
    assert len(rows) == 12
    assert all(row["has_image"] for row in rows.values())
    actual = np.array([rows[f"p{number}"]["text_vector"] for number in range(12)])
    np.testing.assert_allclose(actual, expected, atol=1e-3)
    assert {file.name.split("-")[1] for file in (store.offline / FOLDER).glob("*.f16")} == {"i.f16", "t.f16"}
