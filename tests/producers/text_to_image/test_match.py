import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from feature_repo.errors import InvalidInputError, NotFoundError
from producers.text_to_image.checkpoint import hash_frozen_parts, open_pipeline
from producers.text_to_image.match import (
    ParallelSentence,
    compare_attention,
    compute_match_loss,
    read_parallel_sentences,
    record_cross_attention,
    require_same_unet,
)
from producers.text_to_image.sentences import encode_sentences
from producers.text_to_image.swap import swap_text_encoder
from tests.producers.encoders import checkpoints
from tests.producers.text_to_image.tiny_pipeline import SIZES, save_tiny_pipeline

PAIRS = [
    ParallelSentence("红色连衣裙", "a red dress"),
    ParallelSentence("蓝色男童鞋", "blue shoes"),
    ParallelSentence("", ""),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model, and the same with a Chinese text encoder and a projection."""
    root = tmp_path_factory.mktemp("match")
    (root / "encoder").mkdir()
    checkpoints.chinese_clip(root / "encoder")
    save_tiny_pipeline(root / "original", sizes=replace(SIZES, text_width=32))
    swap_text_encoder(root / "original", str(root / "encoder"), root / "swapped")
    return root / "original", root / "swapped"


@pytest.fixture
def pipelines(folders: tuple[Path, Path]) -> tuple[Any, Any]:
    return open_pipeline(folders[0]), open_pipeline(folders[1])


def draw_latents(pipeline: Any, n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    side = pipeline.unet.config.sample_size
    latents = torch.randn(n, pipeline.unet.config.in_channels, side, side, generator=generator)
    return latents, torch.randint(0, 1000, (n,), generator=generator)


def test_the_same_states_cost_nothing_in_any_order_of_the_tokens(pipelines: tuple[Any, Any]) -> None:
    original, _ = pipelines
    latents, timesteps = draw_latents(original, 2, seed=0)
    with torch.no_grad():
        states = encode_sentences(original, ["a red dress", "a blue hat"])
        calls = record_cross_attention(original.unet, latents, timesteps, states)
        order = torch.randperm(states.shape[1])
        assert float(compare_attention(calls, states)) == 0
        assert float(compare_attention(calls, states[:, order])) < 1e-9
        assert float(compare_attention(calls, states.flip(0))) > 1e-6


def test_every_cross_attention_layer_is_compared_and_no_self_attention(pipelines: tuple[Any, Any]) -> None:
    original, _ = pipelines
    latents, timesteps = draw_latents(original, 1, seed=0)
    with torch.no_grad():
        calls = record_cross_attention(original.unet, latents, timesteps, encode_sentences(original, ["a hat"]))
    expected = [module for name, module in original.unet.named_modules() if name.endswith("attn2")]
    assert len(expected) > 1
    assert {id(call.layer) for call in calls} == {id(module) for module in expected}


def test_recording_leaves_no_hook_behind(pipelines: tuple[Any, Any]) -> None:
    original, _ = pipelines
    latents, timesteps = draw_latents(original, 1, seed=0)
    states = encode_sentences(original, ["a hat"])
    calls = record_cross_attention(original.unet, latents, timesteps, states)
    count = len(calls)
    original.unet(latents, timesteps, encoder_hidden_states=states)
    assert len(calls) == count


def test_matching_teaches_the_text_encoder_and_leaves_the_rest_bit_for_bit(pipelines: tuple[Any, Any]) -> None:
    original, swapped = pipelines
    require_same_unet(original, swapped, "original")
    frozen, teacher = hash_frozen_parts(swapped), hash_frozen_parts(original)
    swapped.text_encoder.requires_grad_(True)
    optimizer = torch.optim.AdamW(swapped.text_encoder.parameters(), 3e-3)
    losses = []
    for step in range(40):
        loss = compute_match_loss(original, swapped, PAIRS, *draw_latents(original, len(PAIRS), seed=step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 5
    assert hash_frozen_parts(swapped) == frozen
    assert hash_frozen_parts(original) == teacher
    others = [*swapped.unet.parameters(), *original.unet.parameters(), *original.text_encoder.parameters()]
    assert all(parameter.grad is None for parameter in others)


def test_refuses_an_original_with_another_unet(pipelines: tuple[Any, Any], tmp_path: Path) -> None:
    other = open_pipeline(save_tiny_pipeline(tmp_path / "other", seed=1))
    with pytest.raises(InvalidInputError, match=r"its UNet .* is not that of the model"):
        require_same_unet(other, pipelines[1], "other")


def test_reads_pairs_with_and_without_a_picture(tmp_path: Path) -> None:
    lines = [{"text": "红", "original_text": "red"}, {"text": "蓝", "original_text": "blue", "file_name": "1.jpg"}]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    assert read_parallel_sentences(file) == [ParallelSentence("红", "red"), ParallelSentence("蓝", "blue", "1.jpg")]


def test_refuses_malformed_pairs_with_their_numbers(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    with pytest.raises(NotFoundError, match="no such file"):
        read_parallel_sentences(file)
    good = json.dumps({"text": "红", "original_text": "red"})
    lines = [good, json.dumps({"text": "红"}), "{", json.dumps({"text": "红", "original_text": " "})]
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(InvalidInputError) as raised:
        read_parallel_sentences(file)
    assert all(f"line {number}:" in str(raised.value) for number in (2, 3, 4))
    file.write_text("")
    with pytest.raises(InvalidInputError, match="the file is empty"):
        read_parallel_sentences(file)
