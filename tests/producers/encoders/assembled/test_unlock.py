"""The last layers of a tower, trained after the heads: which weights change, what is kept, and what is refused."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from feature_repo.errors import InvalidInputError
from producers.embeddings.output_store import open_outputs
from producers.encoders import load
from producers.encoders.assembled import heads, unlock
from producers.encoders.assembled.assemble import AssemblySummary, assemble
from producers.encoders.assembled.encoder import AssembledEncoder
from tests.producers.encoders import checkpoints
from tests.producers.encoders.assembled.test_assembled import draw

COUNT = 220
TITLES = [f"{'红色连衣裙' if number % 2 else '男童鞋'}{number}" for number in range(COUNT)]
IMAGES = [draw(number) for number in range(COUNT)]


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tower")
    checkpoints.clip(folder / "clip")
    return folder


def build(tower: Path, out: str, **layers: int) -> tuple[AssemblySummary, AssembledEncoder]:
    with open_outputs(tower / "outputs") as store:
        clip, progress = str(tower / "clip"), lambda stage, done, total: None
        summary = assemble(
            TITLES,
            IMAGES,
            tower / out,
            store,
            image_tower=clip,
            text_tower=clip,
            head="linear",
            dim=8,
            seed=0,
            progress=progress,
            **layers,
        )
    encoder = load(str(tower / out), device="cpu")
    assert isinstance(encoder, AssembledEncoder)
    return summary, encoder


@pytest.fixture(scope="module")
def locked(tower: Path) -> AssembledEncoder:
    return build(tower, "locked")[1]


def test_only_the_last_layers_change_and_the_fingerprint_with_them(
    tower: Path, locked: AssembledEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, value in (
        (heads, "MIN_STEPS", 2),  # heads that leave something to learn
        (heads, "EPOCHS", 0),
        (unlock, "HEAD_RATE", 1e-2),
        (unlock, "TOWER_RATE", 1e-3),
    ):
        monkeypatch.setattr(module, name, value)
    summary, encoder = build(tower, "image", image_layers=1)
    assert summary.unlocked is not None
    assert summary.unlocked.passes > 0
    assert summary.unlocked.after > summary.unlocked.before
    assert "last layers trained in" in str(summary)
    assert summary.image_tower.endswith(encoder.image_fingerprint)
    assert encoder.image_fingerprint != locked.image_fingerprint
    assert encoder.text_fingerprint == locked.text_fingerprint
    before, after = (dict(each.model.image_tower.named_parameters()) for each in (locked, encoder))
    changed = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    assert any("layers.1." in name for name in changed)
    assert not [name for name in changed if "layers.0." in name or "embeddings" in name]


@pytest.mark.parametrize("rate", [0.0, float("inf")])
def test_layers_that_do_not_help_are_left_as_they_are(
    tower: Path, locked: AssembledEncoder, monkeypatch: pytest.MonkeyPatch, rate: float
) -> None:
    for name in ("HEAD_RATE", "TOWER_RATE"):  # nothing is learned, or every weight becomes NaN
        monkeypatch.setattr(unlock, name, rate)
    summary, encoder = build(tower, "text", text_layers=2)
    assert "the last layers stay as they are" in str(summary)
    assert (encoder.image_fingerprint, encoder.text_fingerprint) == (
        locked.image_fingerprint,
        locked.text_fingerprint,
    )


def test_an_earlier_layer_learns_more_slowly(locked: AssembledEncoder) -> None:
    groups = unlock.group_parameters(locked.model, 2, 0)
    assert [group["lr"] for group in groups] == [unlock.HEAD_RATE, unlock.TOWER_RATE, unlock.TOWER_RATE * 0.7]
    layers = unlock.list_layers(locked.model.image_tower)
    assert len(layers) == 2
    after = dict(locked.model.image_tower.named_parameters())["model.post_layernorm.weight"]
    assert any(after is parameter for parameter in layers[-1])


def test_more_layers_than_there_are_and_too_few_titles_are_refused(tower: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"--unlock-last is 3, and the tower .* has 2 layers"):
        build(tower, "none", image_layers=3)
    data = SimpleNamespace(title_ids=np.arange(10))
    nothing: dict[str, Any] = {"image_layers": 1, "text_layers": 0, "encode_images": None, "encode_texts": None}
    with pytest.raises(InvalidInputError, match="200 different titles or more"):
        unlock.train_last_layers(None, data, **nothing, seed=0)  # type: ignore[arg-type]
