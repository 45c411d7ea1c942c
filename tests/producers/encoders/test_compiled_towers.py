"""Towers as a GPU runs them, on a CPU: in bfloat16, compiled, and with batches padded to one shape."""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from feature_repo.errors import UsageError
from producers.encoders import load
from producers.encoders.runtime import CompiledTower, Runtime, choose_runtime, pad_batch
from tests.producers.encoders import checkpoints


def test_a_tower_that_cannot_be_compiled_runs_uncompiled_and_that_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def backend(graph: Any, inputs: Any) -> Any:
        raise OSError("no C compiler")

    tower = CompiledTower(lambda rows: rows * 2, backend=backend)
    with caplog.at_level(logging.WARNING, "producers.encoders.runtime"):
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


TITLES = ["红色连衣裙", "男童鞋", "蓝", "红色连衣裙女婴儿鞋"]


def encode(folder: Path, **runtime: Any) -> tuple[np.ndarray, np.ndarray, list[tuple[int, ...]]]:
    """Return the vectors of TITLES and of five images, and the shapes that the compiled towers were given."""
    encoder: Any = load(str(folder), device="cpu", **runtime)
    encoder._images.size = encoder._texts.size = 3  # a full batch and one that is padded
    shapes = []

    def record(graph: Any, inputs: Any) -> Any:
        shapes.append(tuple(inputs[-1].shape))
        return graph

    if runtime:
        encoder.text_tower = CompiledTower(encoder._tokens_to_features, backend=record)
        encoder.image_tower = CompiledTower(encoder._pixels_to_features, backend=record)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    return encoder.encode_texts(TITLES), encoder.encode_pixels(pixels), shapes


def test_bfloat16_in_batches_of_one_shape_gives_the_vectors_of_float32_within_rounding(tmp_path: Path) -> None:
    checkpoints.clip(tmp_path)
    *expected, _ = encode(tmp_path)
    *actual, shapes = encode(tmp_path, dtype="bfloat16", is_compiled=True)
    for vectors, wanted in zip(actual, expected, strict=True):
        assert (vectors * wanted).sum(axis=1).min() > 0.99
        assert not np.array_equal(vectors, wanted)
    assert len(shapes) == 2  # each tower is compiled once, though no batch was full


COMPILE = """
import logging, sys
import numpy as np
from producers.encoders import load
logging.basicConfig(level=logging.WARNING)
encoder = load(sys.argv[1], device="cpu", dtype="bfloat16", is_compiled=True)
np.save(sys.argv[2], encoder.encode_texts(["红色连衣裙", "男童鞋", "蓝", "红色连衣裙女婴儿鞋"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["g++", "no-such-compiler"])
def test_without_a_compiler_the_model_runs_uncompiled_with_one_line(compiler: str, tmp_path: Path) -> None:
    if compiler == "g++" and not shutil.which(compiler):
        pytest.skip("torch.compile needs a C++ compiler")
    checkpoints.clip(tmp_path / "clip")
    arguments = [str(tmp_path / "clip"), str(tmp_path / "vectors.npy")]
    environment = os.environ | {"CXX": compiler, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, *arguments], env=environment, capture_output=True, text=True, check=True
    )
    lines = [line for line in done.stderr.splitlines() if "producers.encoders.runtime" in line]
    assert len(lines) == (0 if compiler == "g++" else 1)
    assert all("No working C++ compiler" in line and "needs a C++ compiler such as g++" in line for line in lines)
    expected = load(str(tmp_path / "clip"), device="cpu").encode_texts(TITLES)
    assert (np.load(tmp_path / "vectors.npy") * expected).sum(axis=1).min() > 0.99


def test_the_defaults_of_a_cpu_and_an_unknown_dtype() -> None:
    assert choose_runtime("cpu") == Runtime(torch.device("cpu"), torch.float32, is_compiled=False)
    with pytest.raises(UsageError, match="expected one of float32, bfloat16, float16"):
        choose_runtime("cpu", "int8")
