"""Image towers of other families than CLIP's: opened with their own geometry and pooling, and joined to any width."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModel,
    BitImageProcessorPil,
    ConvNextConfig,
    ConvNextImageProcessorPil,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)

from feature_repo.errors import EncoderMismatchError
from producers.embeddings.output_store import open_outputs
from producers.encoders import load
from producers.encoders.assembled import towers
from producers.encoders.assembled.assemble import AssemblySummary, assemble
from producers.encoders.assembled.encoder import AssembledEncoder
from tests.producers.encoders import checkpoints
from tests.producers.encoders.assembled.test_assembled import IMAGES, TITLES

SIZE = {"height": 32, "width": 32}
CONVOLUTIONS = {"hidden_sizes": [8, 24], "depths": [1, 1]}


def vit(folder: Path) -> None:
    _save(folder, ViTModel(ViTConfig(**checkpoints.VISION)), ViTImageProcessorPil(size=SIZE))


def vit_without_pooler(folder: Path) -> None:
    model = ViTModel(ViTConfig(**checkpoints.VISION), add_pooling_layer=False)
    _save(folder, model, ViTImageProcessorPil(size=SIZE))


def dinov2(folder: Path) -> None:
    processor = BitImageProcessorPil(size={"shortest_edge": 36}, crop_size=SIZE)
    _save(folder, Dinov2Model(Dinov2Config(**checkpoints.VISION)), processor)


def convnext(folder: Path) -> None:
    processor = ConvNextImageProcessorPil(size={"shortest_edge": 32}, crop_pct=0.875)
    _save(folder, ConvNextModel(ConvNextConfig(**CONVOLUTIONS, num_stages=2)), processor)


def resnet(folder: Path) -> None:
    config = ResNetConfig(**CONVOLUTIONS, embedding_size=8, layer_type="basic")
    _save(folder, ResNetModel(config), ConvNextImageProcessorPil(size={"shortest_edge": 32}, crop_pct=0.875))


FAMILIES: dict[str, tuple[Callable[[Path], None], int, str]] = {
    "vit": (vit, 16, "pooler"),
    "vit_without_pooler": (vit_without_pooler, 16, "first"),
    "dinov2": (dinov2, 16, "pooler"),
    "convnext": (convnext, 24, "pooler"),
    "resnet": (resnet, 24, "pooler"),
}
"""Writer, width and pooling of each family."""


def _save(folder: Path, model: Any, processor: Any) -> None:
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_vision_model_gives_the_outputs_that_its_own_processor_and_model_give(family: str, tmp_path: Path) -> None:
    write, width, pooling = FAMILIES[family]
    write(tmp_path)
    opened = towers.open_image_tower(str(tmp_path))
    assert (opened.description["width"], opened.tower.pooling) == (width, pooling)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8))
    own = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")(images=image, return_tensors="pt")
    ours = opened.processor(images=image, return_tensors="pt")
    np.testing.assert_allclose(ours["pixel_values"], own["pixel_values"], atol=1e-6)
    with torch.no_grad():
        expected = AutoModel.from_pretrained(tmp_path).eval()(**own)
        actual = opened.tower(ours["pixel_values"])
    wanted = expected.pooler_output.flatten(1) if pooling == "pooler" else expected.last_hidden_state[:, 0]
    np.testing.assert_allclose(actual, wanted, atol=1e-5)


def build(folder: Path, out: str) -> AssemblySummary:
    with open_outputs(folder / "outputs") as store:
        return assemble(
            TITLES,
            IMAGES,
            folder / out,
            store,
            image_tower=str(folder / "resnet"),
            text_tower=str(folder / "clip"),
            head="linear",
            dim=12,
            seed=0,
            progress=lambda stage, done, total: None,
        )


def test_towers_of_different_widths_are_projected_and_one_that_changed_under_its_name_is_refused(
    tmp_path: Path,
) -> None:
    resnet(tmp_path / "resnet")
    checkpoints.clip(tmp_path / "clip")
    build(tmp_path, "out")
    encoder = load(str(tmp_path / "out"), device="cpu")
    assert isinstance(encoder, AssembledEncoder)
    assert (encoder.image_width, encoder.text_width, encoder.dim) == (24, 16, 12)
    assert np.isfinite(encoder.encode_texts(TITLES[:2])).all()
    ResNetModel(ResNetConfig(**CONVOLUTIONS, embedding_size=8, layer_type="basic")).save_pretrained(tmp_path / "resnet")
    with pytest.raises(EncoderMismatchError, match=r"tower `.*resnet` has changed") as refused:
        build(tmp_path, "again")
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "again").exists()
