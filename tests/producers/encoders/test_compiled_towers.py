"""Towers as a GPU runs them, as far as a CPU can show it: compiled, and with batches padded to one shape."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from producers.encoders import load
from producers.encoders.clip_family import CompiledTower, pad_batch
from tests.producers.encoders import checkpoints


def test_a_compiled_encoder_gives_the_same_vectors(tmp_path: Path) -> None:
    checkpoints.clip(tmp_path)
    encoder: Any = load(str(tmp_path), device="cpu")
    titles = ["红色连衣裙", "男童鞋", "蓝", "红色连衣裙女婴儿鞋"]
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    text, image = encoder.encode_texts(titles), encoder.encode_pixels(pixels)
    encoder.text_tower = CompiledTower(encoder.text_tower, backend="eager")
    encoder.image_tower = CompiledTower(encoder.image_tower, backend="eager")
    np.testing.assert_array_equal(encoder.encode_texts(titles), text)
    np.testing.assert_array_equal(encoder.encode_pixels(pixels), image)
    assert encoder.text_tower.is_compiled
    assert encoder.image_tower.is_compiled


def test_a_tower_that_cannot_be_compiled_runs_uncompiled_and_that_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def backend(graph: Any, inputs: Any) -> Any:
        raise OSError("no C compiler")

    tower = CompiledTower(lambda rows: rows * 2, backend=backend)
    with caplog.at_level(logging.WARNING, "producers.encoders.clip_family"):
        for _ in range(3):
            assert tower(torch.ones(2)).tolist() == [2, 2]
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "the model cannot be compiled and runs uncompiled"
    ]
    assert not tower.is_compiled


def test_an_error_of_the_model_itself_is_not_hidden() -> None:
    def broken(rows: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="multiplied"):
        CompiledTower(broken, backend="eager")(torch.ones(2))


def test_running_out_of_memory_reaches_the_caller_who_halves_the_batch() -> None:
    def too_large(rows: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    tower = CompiledTower(too_large, backend="eager")
    with pytest.raises(torch.OutOfMemoryError):
        tower(torch.ones(2))
    assert tower.is_compiled


def test_a_short_batch_is_padded_with_its_last_row() -> None:
    assert pad_batch(np.array([[1], [2]]), 4).tolist() == [[1], [2], [2], [2]]
    assert pad_batch(np.array([[1], [2]]), 2).tolist() == [[1], [2]]
