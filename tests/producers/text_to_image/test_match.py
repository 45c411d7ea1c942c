import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from feature_repo.errors import ConflictError, InvalidInputError, NotFoundError
from producers.text_to_image.checkpoint import hash_frozen_parts, open_pipeline
from producers.text_to_image.match import compare_attention, record_cross_attention
from producers.text_to_image.match_training import (
    ParallelPairs,
    make_matching_batch,
    match_checkpoint,
    read_parallel_pairs,
)
from producers.text_to_image.pairs import make_latent_pairs, read_pairs
from producers.text_to_image.sentences import enable_gradients, encode_sentences, tokenize_sentences
from producers.text_to_image.swap import swap_text_encoder
from producers.text_to_image.training_loop import TrainingSettings
from tests.producers.encoders import checkpoints
from tests.producers.text_to_image.tiny_pipeline import SIZES, save_tiny_pipeline

SETTINGS = TrainingSettings(steps=60, batch=4, learning_rate=1e-2, ema_decay=0.5)
PAIRS = [("红色连衣裙", "a red dress"), ("蓝色男童鞋", "blue shoes"), ("红鞋", "red shoes"), ("蓝裙", "a blue dress")]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures with sentences in both languages."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    lines = []
    for number, (text, original) in enumerate(PAIRS):
        Image.fromarray(rng.integers(0, 256, size=(16, 16, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        lines.append(json.dumps({"file_name": f"{number}.png", "text": text, "original_text": original}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


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


@pytest.mark.parametrize("width", [16, 32])
def test_every_weight_that_is_trained_gets_a_gradient(folders: tuple[Path, Path], tmp_path: Path, width: int) -> None:
    model = save_tiny_pipeline(tmp_path / "model", sizes=replace(SIZES, text_width=width))
    swap_text_encoder(model, str(folders[0].parent / "encoder"), tmp_path / "swapped")
    original, swapped = open_pipeline(model), open_pipeline(tmp_path / "swapped")
    latents, timesteps = draw_latents(original, 1, seed=0)
    enable_gradients(swapped.text_encoder)
    calls = record_cross_attention(original.unet, latents, timesteps, encode_sentences(original, ["a hat"]))
    compare_attention(calls, encode_sentences(swapped, ["红色"])).backward()
    weights = dict(swapped.text_encoder.named_parameters())
    assert {name for name in weights if weights[name].grad is None} == {name for name in weights if "pooler" in name}
    assert all(weight.grad is not None for weight in weights.values() if weight.requires_grad)


def test_recording_leaves_no_hook_behind(pipelines: tuple[Any, Any]) -> None:
    original, _ = pipelines
    latents, timesteps = draw_latents(original, 1, seed=0)
    states = encode_sentences(original, ["a hat"])
    calls = record_cross_attention(original.unet, latents, timesteps, states)
    count = len(calls)
    original.unet(latents, timesteps, encoder_hidden_states=states)
    assert len(calls) == count


def test_matching_teaches_the_text_encoder_and_leaves_the_rest_bit_for_bit(
    folders: tuple[Path, Path], data: Path, tmp_path: Path
) -> None:
    original, swapped = folders
    first = match_checkpoint(swapped, original, data, tmp_path / "first", replace(SETTINGS, steps=1))
    summary = match_checkpoint(swapped, original, data, tmp_path / "out", SETTINGS)
    assert summary.training.loss < first.training.loss / 3
    trained = open_pipeline(tmp_path / "out")
    assert hash_frozen_parts(trained) == hash_frozen_parts(open_pipeline(original))
    assert not (tmp_path / "out.training").exists()
    before, after = open_pipeline(swapped).text_encoder.state_dict(), trained.text_encoder.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "pooler" not in name and "position_ids" not in name}


def test_a_run_that_is_broken_off_ends_with_the_weights_of_an_undisturbed_one(
    folders: tuple[Path, Path], data: Path, tmp_path: Path
) -> None:
    original, swapped = folders
    settings = replace(SETTINGS, steps=12, save_every=5)

    def break_off(stage: str, done: int, total: int) -> None:
        if stage == "match the original" and done == 8:
            raise KeyboardInterrupt

    match_checkpoint(swapped, original, data, tmp_path / "undisturbed", settings)
    with pytest.raises(KeyboardInterrupt):
        match_checkpoint(swapped, original, data, tmp_path / "resumed", settings, progress=break_off)
    summary = match_checkpoint(swapped, original, data, tmp_path / "resumed", settings)
    assert summary.training.resumed_at == 5
    weights = [tmp_path / name / "text_encoder/model.safetensors" for name in ("undisturbed", "resumed")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_state_of_other_settings_is_refused(folders: tuple[Path, Path], data: Path, tmp_path: Path) -> None:
    def break_off(stage: str, done: int, total: int) -> None:
        if stage == "match the original" and done == 2:
            raise KeyboardInterrupt

    original, swapped = folders
    settings = replace(SETTINGS, steps=4, save_every=1)
    with pytest.raises(KeyboardInterrupt):
        match_checkpoint(swapped, original, data, tmp_path / "out", settings, progress=break_off)
    with pytest.raises(ConflictError, match="other data or settings"):
        match_checkpoint(swapped, original, data, tmp_path / "out", replace(settings, learning_rate=1e-5))


def test_empty_sentences_are_matched_too_in_both_languages(folders: tuple[Path, Path], data: Path) -> None:
    original, swapped = (open_pipeline(folder) for folder in folders)
    pictures, originals = read_parallel_pairs(data)
    moments = np.zeros((len(pictures.paths), 8, 8, 8), np.float16)
    pairs = ParallelPairs(
        make_latent_pairs(swapped, pictures, moments),
        tokenize_sentences(original.tokenizer, list(originals.values())),
        tokenize_sentences(original.tokenizer, [""]),
    )
    rows = np.arange(len(pictures.paths)).repeat(100)
    alphas, generator = original.scheduler.alphas_cumprod, torch.Generator().manual_seed(0)
    batch = make_matching_batch(pairs, rows, generator, alphas=alphas, device=torch.device("cpu"))
    old_empty = (batch.original_ids == pairs.original_empty.input_ids).all(dim=1)
    new_empty = (batch.input_ids == pairs.new.empty.input_ids).all(dim=1)
    assert torch.equal(old_empty, new_empty)
    assert 0.05 < float(new_empty.float().mean()) < 0.2
    kept = torch.from_numpy(rows)[~new_empty]
    assert torch.equal(batch.original_ids[~new_empty], pairs.original.input_ids[kept])
    assert torch.equal(batch.input_ids[~new_empty], pairs.new.tokens.input_ids[kept])


def test_refuses_an_original_with_another_unet(folders: tuple[Path, Path], data: Path, tmp_path: Path) -> None:
    other = save_tiny_pipeline(tmp_path / "other", seed=1, sizes=replace(SIZES, text_width=32))
    with pytest.raises(InvalidInputError, match=r"its UNet .* is not that of the model"):
        match_checkpoint(folders[1], other, data, tmp_path / "out", SETTINGS)


def test_refuses_data_without_sentences_in_both_languages(
    folders: tuple[Path, Path], data: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match='expected "text" and "english" in each'):
        match_checkpoint(folders[1], folders[0], data, tmp_path / "out", SETTINGS, original_key="english")
    with pytest.raises(NotFoundError, match=r"metadata\.jsonl"):
        match_checkpoint(folders[1], folders[0], tmp_path, tmp_path / "out", SETTINGS)
    for original in (" ", 7):
        line = {"file_name": "0.png", "text": "x", "original_text": original}
        (tmp_path / "metadata.jsonl").write_text(json.dumps(line))
        with pytest.raises(InvalidInputError, match="is no text, or blank"):
            match_checkpoint(folders[1], folders[0], tmp_path, tmp_path / "out", SETTINGS)


def test_lines_that_lack_a_sentence_are_counted(
    folders: tuple[Path, Path], data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for other in ({"text": "x"}, {"original_text": "y"}, {"text": "x", "original_text": "y"}):
        with (tmp_path / "metadata.jsonl").open("a") as file:
            file.write(json.dumps({"file_name": f"{len(other)}-{next(iter(other))}.png", **other}) + "\n")
    assert len(read_parallel_pairs(tmp_path)[0].paths) == 1
    assert "2 of 3 pictures lack one of the sentences" in caplog.text
    assert len(read_pairs(tmp_path).paths) == 2
    assert "1 of 3 pictures have no sentence" in caplog.text


def test_says_which_sentences_are_cut(folders: tuple[Path, Path], data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    file = tmp_path / "data/metadata.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[1]["text"], lines[2]["original_text"] = "红" * 30, "red shoes " * 30
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = match_checkpoint(folders[1], folders[0], tmp_path / "data", tmp_path / "out", replace(SETTINGS, steps=1))
    assert len(summary.cut) == 2
    assert "1 of 4 sentences" in summary.cut[0]
    assert "红红红" in summary.cut[0]
    assert "red shoes" in summary.cut[1]
    assert str(summary).splitlines()[1:] == [f"  {line}" for line in summary.cut]


def test_counts_pictures_that_cannot_be_used(folders: tuple[Path, Path], data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data/1.png").write_bytes(b"no picture")
    summary = match_checkpoint(folders[1], folders[0], tmp_path / "data", tmp_path / "out", replace(SETTINGS, steps=2))
    assert summary.pictures == 3
    assert "1 pictures left out" in str(summary)


def test_without_usable_pictures_only_what_was_there_before_is_left(
    folders: tuple[Path, Path], data: Path, tmp_path: Path
) -> None:
    shutil.copytree(data, tmp_path / "data")
    for picture in (tmp_path / "data").glob("*.png"):
        picture.write_bytes(b"no picture")
    state = tmp_path / "out.training"
    for left in ([], ["training.pt"]):
        if left:
            state.mkdir()
            (state / "training.pt").write_bytes(b"of another training")
        with pytest.raises(InvalidInputError, match="none of the 4 pictures can be used"):
            match_checkpoint(folders[1], folders[0], tmp_path / "data", tmp_path / "out", SETTINGS)
        assert [file.name for file in state.glob("*")] == left
