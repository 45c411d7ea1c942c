"""`produce picture train` and `produce picture pretrain` on tiny models and real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from feature_repo.errors import ConflictError, InvalidInputError, UnavailableError
from producers.text_to_image.autoencoder import standardize_latents
from producers.text_to_image.checkpoint import hash_frozen_parts, hash_tensors, open_pipeline
from producers.text_to_image.pairs import decode_pictures, encode_latents, scale_pixels
from producers.text_to_image.pretrain import PretrainingRecipe, pretrain
from producers.text_to_image.train import train_text_encoder
from producers.text_to_image.training_loop import TrainingSettings
from tests.producers.text_to_image.pictures import write_pictures
from tests.producers.text_to_image.tiny_pipeline import SIZES, save_tiny_pipeline
from tests.small_disk import no_file_longer_than

SETTINGS = TrainingSettings(steps=4, batch=4, learning_rate=1e-2, save_every=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "pictures")


def hash_text_encoder(folder: Path) -> str:
    return hash_tensors(open_pipeline(folder).text_encoder.state_dict())


def test_only_the_text_encoder_changes(model: Path, data: Path, tmp_path: Path) -> None:
    summary = train_text_encoder(model, data, tmp_path / "out", SETTINGS)
    assert (summary.sentences, summary.pictures, summary.training.skipped) == (12, 12, 0)
    before, after = open_pipeline(model), open_pipeline(tmp_path / "out")
    assert hash_frozen_parts(after) == hash_frozen_parts(before)
    assert hash_text_encoder(tmp_path / "out") != hash_text_encoder(model)
    for part in ("unet", "vae"):
        file = f"{part}/diffusion_pytorch_model.safetensors"
        assert (tmp_path / "out" / file).read_bytes() == (model / file).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "pictures"]


def test_training_lowers_the_denoising_loss(model: Path, data: Path, tmp_path: Path) -> None:
    losses = [
        train_text_encoder(
            model, data, tmp_path / str(rate), TrainingSettings(20, batch=12, learning_rate=rate)
        ).training.loss
        for rate in (1e-8, 1e-2)
    ]
    assert losses[1] < losses[0]


def test_unusable_pictures_are_counted_and_cut_sentences_said(model: Path, data: Path, tmp_path: Path) -> None:
    (data / "3.png").write_bytes(b"no picture")
    (data / "4.png").unlink()
    lines = (data / "metadata.jsonl").read_text().splitlines()
    lines[0] = json.dumps({"file_name": "0.png", "text": ["a pink hat", "a pink romper"]})
    lines[5] = json.dumps({"file_name": "5.png", "text": "navy " * 20})
    (data / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    summary = train_text_encoder(model, data, tmp_path / "out", SETTINGS)
    assert (summary.sentences, summary.pictures) == (11, 10)
    assert summary.refused.total() == 2
    assert "1 of 11 sentences are longer" in str(summary)
    assert "the first is `navy navy" in str(summary)
    assert "1 pictures left out: image file is missing" in str(summary)


def test_a_picture_that_is_a_bomb_is_left_out(model: Path, data: Path, tmp_path: Path) -> None:
    Image.new("1", (9000, 9000)).save(data / "0.png")  # 81 million pixels in a few kilobytes
    summary = train_text_encoder(model, data, tmp_path / "out", SETTINGS)
    assert summary.refused == {"image is too large": 1}


def test_data_without_usable_pictures_and_outputs_with_content_are_refused(
    model: Path, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConflictError, match="exists already"):
        train_text_encoder(model, data, model, SETTINGS)
    for picture in data.glob("*.png"):
        picture.unlink()
    with pytest.raises(InvalidInputError, match="none of the 12 pictures can be used"):
        train_text_encoder(model, data, tmp_path / "out", SETTINGS)
    assert not (tmp_path / "out.training").exists()
    (data / "metadata.jsonl").write_text('{"file_name": "0.png"}\n')
    with pytest.raises(InvalidInputError, match="no picture has a sentence"):
        train_text_encoder(model, data, tmp_path / "out", SETTINGS)


@pytest.mark.parametrize("save_every", [1, 100], ids=["state", "checkpoint"])
def test_a_full_disk_is_one_line_and_the_run_continues_afterwards(
    model: Path, data: Path, tmp_path: Path, save_every: int
) -> None:
    settings = replace(SETTINGS, save_every=save_every)
    with no_file_longer_than(30_000), pytest.raises(UnavailableError, match=r"written .*free disk space") as e:
        train_text_encoder(model, data, tmp_path / "out", settings)
    assert "\n" not in str(e.value)
    assert not (tmp_path / "out").exists()
    assert train_text_encoder(model, data, tmp_path / "out", settings).pictures == 12


def test_latents_whose_note_is_damaged_are_computed_again(model: Path, data: Path, tmp_path: Path) -> None:
    state = tmp_path / "out.training"
    state.mkdir()
    (state / "latents.json").write_bytes(b'{"identity": "\xff')
    (state / "latents.npy").write_bytes(b"")
    assert train_text_encoder(model, data, tmp_path / "out", SETTINGS).pictures == 12


def test_a_short_further_training_ends_without_a_saved_state(model: Path, data: Path, tmp_path: Path) -> None:
    one = TrainingSettings(steps=1, batch=4)
    assert pretrain(data, tmp_path / "out", PretrainingRecipe(SIZES, one, one, one), start=model).pictures == 12
    assert (tmp_path / "out" / "model_index.json").is_file()


def run_command(
    model: Path, data: Path, output: Path, *launcher: str, options: Sequence[str] = ()
) -> subprocess.Popen[str]:
    given = ["--model", model, "--data", data, "--output", output, "--steps", "40", "--batch", "4"]
    given += ["--precision", "float32", "--save-every", "3", "--learning-rate", "0.01"]
    command = [*(launcher or (sys.executable,)), "-m", "producers", "picture", "train", *map(str, given), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow  # three processes that import torch and diffusers
def test_a_killed_training_continues_and_ends_with_the_same_weights(model: Path, data: Path, tmp_path: Path) -> None:
    undisturbed = run_command(model, data, tmp_path / "undisturbed")
    assert undisturbed.wait(300) == 0
    process = run_command(model, data, tmp_path / "killed")
    deadline = time.monotonic() + 300
    while not (tmp_path / "killed.training" / "training.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed").exists()
    again = run_command(model, data, tmp_path / "killed")
    said, _ = again.communicate(timeout=300)
    assert again.returncode == 0, said
    assert "(0 of an interrupted run" not in said
    assert hash_text_encoder(tmp_path / "killed") == hash_text_encoder(tmp_path / "undisturbed")


@pytest.mark.slow
def test_two_processes_train_what_one_trains_in_two_parts(model: Path, data: Path, tmp_path: Path) -> None:
    alone = run_command(model, data, tmp_path / "alone", options=["--steps", "3", "--accumulate", "2"])
    assert alone.wait(300) == 0
    # What `accelerate launch --multi_gpu` starts; without GPUs it starts a single process.
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    both = run_command(model, data, tmp_path / "both", *launcher, options=["--steps", "3"])
    said, _ = both.communicate(timeout=300)
    assert both.returncode == 0, said
    one, two = (open_pipeline(tmp_path / name).text_encoder.state_dict() for name in ("alone", "both"))
    # The noise of a micro-batch follows from its number, so one process with two parts computes the same steps.
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-3, atol=1e-4)


def test_standardized_latents_have_unit_variance_and_the_decoded_pictures_stay(model: Path, data: Path) -> None:
    vae = open_pipeline(model).vae
    _, pixels, _ = next(iter(decode_pictures(sorted(data.glob("*.png")), 16)))
    with torch.no_grad():
        before = vae.decode(vae.encode(scale_pixels(pixels)).latent_dist.mean).sample
        standardize_latents(vae, pixels)
        after = vae.decode(vae.encode(scale_pixels(pixels)).latent_dist.mean).sample
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)
    mean, log_variance = np.split(encode_latents(vae, pixels).astype(np.float64), 2, axis=1)
    assert np.abs(mean.mean(axis=(0, 2, 3))).max() < 0.02
    variance = mean.var(axis=(0, 2, 3)) + np.exp(log_variance).mean(axis=(0, 2, 3))
    np.testing.assert_allclose(variance, 1, atol=0.02)


def test_a_model_from_random_weights_is_saved_and_continues_after_an_interruption(data: Path, tmp_path: Path) -> None:
    settings = TrainingSettings(steps=5, batch=4, save_every=2)
    recipe = PretrainingRecipe(SIZES, settings, settings, settings)

    class Interrupted(Exception):
        pass

    def stop_in(wanted: str, step: int) -> Callable[[str, int, int], None]:
        def progress(stage: str, done: int, total: int) -> None:
            if (stage, done) == (wanted, step):
                raise Interrupted

        return progress

    assert pretrain(data, tmp_path / "undisturbed", recipe).pictures == 12
    for stage in ("train VAE", "train text encoder", "train UNet and text encoder"):
        with pytest.raises(Interrupted):
            pretrain(data, tmp_path / "resumed", recipe, progress=stop_in(stage, 3))
    with pytest.raises(ConflictError, match=r"resumed\.training: saved by a training with other data or settings"):
        pretrain(data, tmp_path / "resumed", replace(recipe, denoising=replace(settings, learning_rate=1e-4)))
    summary = pretrain(data, tmp_path / "resumed", recipe)
    assert summary.denoising.resumed_at == 2
    pipelines = [open_pipeline(tmp_path / name) for name in ("undisturbed", "resumed")]
    assert hash_frozen_parts(pipelines[0]) == hash_frozen_parts(pipelines[1])
    assert hash_text_encoder(tmp_path / "undisturbed") == hash_text_encoder(tmp_path / "resumed")
    assert not (tmp_path / "resumed.training").exists()
    further = pretrain(data, tmp_path / "further", recipe, start=tmp_path / "resumed")
    assert further.denoising.resumed_at == 0
    hashes = [hash_frozen_parts(open_pipeline(tmp_path / name)) for name in ("resumed", "further")]
    assert hashes[0]["vae"] == hashes[1]["vae"]
    assert hashes[0]["unet"] != hashes[1]["unet"]


def test_a_training_from_random_weights_says_which_sentences_are_cut(data: Path, tmp_path: Path) -> None:
    settings = TrainingSettings(steps=1, batch=4)
    summary = pretrain(data, tmp_path / "out", PretrainingRecipe(replace(SIZES, text_length=3), *[settings] * 3))
    assert summary.cut is not None
    assert "the 3 tokens that the text encoder reads" in str(summary)
