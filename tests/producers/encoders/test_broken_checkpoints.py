"""A broken checkpoint raises a one-line error that names the fault and the folder."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ResNetConfig, ResNetModel

from feature_repo.errors import VitrineError
from producers.encoders import load
from tests.producers.encoders import checkpoints


def empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def no_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


def broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")


def tokenizer_of_another_model(folder: Path) -> None:
    larger = checkpoints.tokenizer()
    larger.add_tokens([f"word{i}" for i in range(100)])
    larger.save_pretrained(folder)


def no_processor(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def truncated_weights(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def half_the_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    remaining = {name: value for name, value in weights.items() if not name.startswith("text_model")}
    save_file(remaining, folder / "model.safetensors", metadata={"format": "pt"})


def weights_of_another_size(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["text_projection.weight"] = torch.zeros(7, 7)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("not json")


def no_model_type(folder: Path) -> None:
    (folder / "config.json").write_text("{}")


BREAKAGES: list[tuple[Callable[[Path], None], str]] = [
    (empty, "config.json"),
    (no_tokenizer, "tokenizer is missing"),
    (broken_tokenizer, "tokenizer"),
    (tokenizer_of_another_model, "do not belong together"),
    (no_processor, "preprocessor_config.json"),
    (no_weights, "safetensors"),
    (truncated_weights, "model cannot be read"),
    (half_the_weights, "text_model"),
    (weights_of_another_size, "text_projection"),
    (broken_config, "not JSON"),
    (no_model_type, "expected CLIP"),
]


@pytest.mark.parametrize(("breakage", "message"), BREAKAGES, ids=[each.__name__ for each, _ in BREAKAGES])
def test_a_broken_checkpoint_is_reported_in_one_line(
    breakage: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    checkpoints.clip(tmp_path / "clip")
    breakage(tmp_path / "clip")
    with pytest.raises(VitrineError) as error:
        load(str(tmp_path / "clip"))
    assert message in str(error.value)
    assert str(tmp_path / "clip") in str(error.value)
    assert "\n" not in str(error.value)


def test_pickled_weights_are_never_read(tmp_path: Path) -> None:
    checkpoints.clip(tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(VitrineError, match="pickled weights are not read"):
        load(str(tmp_path))


def test_an_unsupported_architecture_is_named_in_the_error(tmp_path: Path) -> None:
    ResNetModel(ResNetConfig(hidden_sizes=[8], depths=[1], embedding_size=8)).save_pretrained(tmp_path)
    with pytest.raises(VitrineError, match="'resnet'"):
        load(str(tmp_path))


def test_a_text_model_without_a_pooling_is_refused(tmp_path: Path) -> None:
    checkpoints.bert(tmp_path)
    with pytest.raises(VitrineError, match=r"'bert'.*modules\.json"):
        load(str(tmp_path))


def test_code_that_comes_with_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    checkpoints.clip(tmp_path)
    (tmp_path / "own.py").write_text("raise SystemExit('ran')")
    config = json.loads((tmp_path / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "own.Config", "AutoModel": "own.Model"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load(str(tmp_path)).dim == 12


NOWHERE = ["nobody/no-such-model", "/no/such/folder", "../nor this"]


def test_a_name_that_no_hub_answers_for_fails_within_seconds_in_one_line() -> None:
    started = time.monotonic()
    for name in NOWHERE:
        with pytest.raises(VitrineError, match=f"^{re.escape(name)}: .*$"):
            load(name)
    assert time.monotonic() - started < 15


@pytest.mark.slow
def test_a_name_of_the_hub_fails_offline_too_in_one_line() -> None:
    probe = (
        "from feature_repo.errors import VitrineError\n"
        "from producers.encoders import checkpoint\n"
        f"for name in {NOWHERE}:\n"
        "    try:\n"
        "        checkpoint.load(name)\n"
        "    except VitrineError as error:\n"
        "        print(error)\n"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, env=environment, check=True)
    assert [line.split(": ")[0] for line in done.stdout.splitlines()] == NOWHERE
