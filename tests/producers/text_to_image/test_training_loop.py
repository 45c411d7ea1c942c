"""The training loop: exact resumption, accumulation, mean weights, and steps whose loss is not finite."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from feature_repo.errors import ConflictError, InvalidInputError, UsageError
from producers.encoders.training.process_group import ProcessGroup
from producers.text_to_image.training_loop import TrainingContext, TrainingResult, TrainingSettings, run_training

ROWS = 24
INPUTS = torch.from_numpy(np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32))
TARGETS = INPUTS @ torch.tensor([[1.0], [-2.0], [0.5]])


class Interrupted(Exception):
    """The training was stopped by its progress function."""


def compute_loss(model: Any, rows: np.ndarray, generator: torch.Generator) -> torch.Tensor:
    noise = 0.1 * torch.randn(len(rows), 1, generator=generator)
    return (model(INPUTS[rows]) - TARGETS[rows] + noise).square().mean()


def train(
    folder: Path,
    settings: TrainingSettings,
    loss: Callable[..., torch.Tensor] = compute_loss,
    identity: str = "same",
    stop_after: int = 10**9,
) -> tuple[nn.Linear, TrainingResult]:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)

    def progress(done: int, total: int, loss: float) -> None:
        if done == stop_after:
            raise Interrupted

    result = run_training(
        model,
        ROWS,
        loss,
        settings,
        TrainingContext(ProcessGroup(1, 0), torch.device("cpu"), folder, identity, progress),
    )
    return model, result


def test_it_learns_and_saves_mean_weights(tmp_path: Path) -> None:
    settings = TrainingSettings(steps=300, batch=8, learning_rate=0.05, weight_decay=0.0, ema_decay=0.9)
    model, result = train(tmp_path, settings)
    torch.testing.assert_close(model.weight, torch.tensor([[1.0, -2.0, 0.5]]), rtol=0, atol=0.1)
    assert result.loss < 0.05
    slow, _ = train(tmp_path / "slow", TrainingSettings(steps=300, batch=8, learning_rate=0.05, ema_decay=0.9999))
    assert not torch.equal(slow.weight, model.weight)


@pytest.mark.parametrize("stop_after", [1, 4, 7, 12])
def test_a_training_interrupted_at_any_step_ends_with_the_same_weights(tmp_path: Path, stop_after: int) -> None:
    settings = TrainingSettings(steps=13, batch=8, save_every=3)
    expected, _ = train(tmp_path / "undisturbed", settings)
    with pytest.raises(Interrupted):
        train(tmp_path / "resumed", settings, stop_after=stop_after)
    model, result = train(tmp_path / "resumed", settings)
    assert result.resumed_at == stop_after // 3 * 3
    for one, other in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_the_state_of_another_training_is_refused(tmp_path: Path) -> None:
    settings = TrainingSettings(steps=9, batch=8, save_every=2)
    with pytest.raises(Interrupted):
        train(tmp_path, settings, stop_after=5)
    with pytest.raises(ConflictError, match="other data or settings"):
        train(tmp_path, settings, identity="another")


def test_an_accumulated_step_has_the_gradient_of_the_whole_batch(tmp_path: Path) -> None:
    def without_noise(model: Any, rows: np.ndarray, _: torch.Generator) -> torch.Tensor:
        return (model(INPUTS[rows]) - TARGETS[rows]).square().mean()

    whole, _ = train(tmp_path / "whole", TrainingSettings(steps=5, batch=8), without_noise)
    parts, _ = train(tmp_path / "parts", TrainingSettings(steps=5, batch=8, accumulate=4), without_noise)
    torch.testing.assert_close(parts.weight, whole.weight)
    with pytest.raises(UsageError, match="--batch 8 is not a multiple of 3"):
        train(tmp_path / "uneven", TrainingSettings(steps=5, batch=8, accumulate=3))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_step_without_a_finite_loss_changes_nothing_and_is_counted(tmp_path: Path, value: float) -> None:
    seen: list[int] = []

    def broken_at_the_end(model: Any, rows: np.ndarray, generator: torch.Generator) -> torch.Tensor:
        seen.append(len(seen))
        factor = value if len(seen) > 5 else 1.0
        return compute_loss(model, rows, generator) * factor

    model, result = train(tmp_path / "broken", TrainingSettings(steps=8, batch=8), broken_at_the_end)
    assert (result.steps, result.skipped) == (8, 3)
    assert bool(torch.isfinite(model.weight).all())
    with pytest.raises(Interrupted):
        train(tmp_path / "short", TrainingSettings(steps=8, batch=8, save_every=5), stop_after=6)
    saved = torch.load(tmp_path / "short" / "training.pt", weights_only=True)
    torch.testing.assert_close(saved["means"]["weight"], model.weight.detach(), rtol=0, atol=0)


def test_ten_steps_in_a_row_without_a_finite_loss_end_the_training(tmp_path: Path) -> None:
    steps: list[int] = []

    def recovers_after_nine(model: Any, rows: np.ndarray, generator: torch.Generator) -> torch.Tensor:
        steps.append(len(steps))
        return compute_loss(model, rows, generator) * (1.0 if len(steps) % 10 == 0 else math.nan)

    _, result = train(tmp_path / "nine", TrainingSettings(steps=30, batch=8), recovers_after_nine)
    assert result.skipped == 27
    with pytest.raises(InvalidInputError, match="in 10 steps in a row, the last of them step 10;"):
        train(tmp_path / "ten", TrainingSettings(steps=30, batch=8), lambda model, *_: model(INPUTS).sum() * math.nan)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UsageError, match="--precision is `int8`"):
        TrainingSettings(steps=1, precision="int8")
