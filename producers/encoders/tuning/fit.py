"""The training loop of a tuning.

A step depends on the seed, its number and the weights only, so a resumed tuning ends with the weights of an undisturbed
one. The state is saved at each measurement, atomically, beside the checkpoint to come.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from producers.encoders.training.training_state import read_state, write_state

STEPS = 200
"""Steps of a tuning without a time limit, if the measure keeps rising."""
MEASUREMENTS, PATIENCE = 10, 3
"""Measurements of a tuning, and how many without a higher one end it."""
LEARNING_RATE, WEIGHT_DECAY = 2e-3, 0.05
WARM_UP = 0.1
"""Share of the steps in which the learning rate rises."""
TIMED_STEPS = 3
"""Steps that are measured to choose how many fit into a time."""


@dataclass(frozen=True)
class FitReport:
    """How a tuning went."""

    steps: int
    """Steps up to the best measurement."""
    planned: int
    """Steps if the measure had kept rising."""
    measured: tuple[float, ...]
    """The measure on held-out products, that before the first step first."""
    resumed_at: int
    """Step at which an interrupted tuning was continued; 0 if it began anew."""

    @property
    def is_better(self) -> bool:
        """Whether a measurement was higher than that before the first step."""
        return max(self.measured[1:]) > self.measured[0]


def fit(
    trained: nn.Module,
    compute_loss: nn.Module,
    measure: Callable[[], float],
    *,
    seed: int,
    seconds: float | None,
    folder: Path,
    identity: str,
    progress: Callable[[int, int], None],
) -> FitReport:
    """Train a module in place and leave it with the weights of the best measurement after a step.

    Args:
        trained: what is trained and measured.
        compute_loss: called with a random generator; returns the loss of a batch. Its own weights are trained too.
        measure: of the module as it is, on products that are not trained on; the higher the better.
        seed: of the batches and the dropout.
        seconds: time for the steps; None takes STEPS.
        folder: where the state is saved.
        identity: digest of the data and the settings.
        progress: called with the steps done and the steps planned.

    Raises:
        ConflictError: the folder holds the state of another training.
        CorruptDataError: the state cannot be read.
    """
    whole = nn.ModuleList([trained, compute_loss])
    matrices = [weight for weight in whole.parameters() if weight.requires_grad and weight.dim() > 1]
    others = [weight for weight in whole.parameters() if weight.requires_grad and weight.dim() < 2]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": WEIGHT_DECAY},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.98))
    saved = read_state(folder, identity, torch.device("cpu"))
    if saved:
        planned, done, measured, best = saved["planned"], saved["done"], saved["measured"], saved["best"]
        whole.load_state_dict(saved["weights"])
        optimizer.load_state_dict(saved["optimizer"])
    else:
        planned = STEPS if seconds is None else _choose_steps(whole, compute_loss, optimizer, seed, seconds)
        done, measured, best = 0, [measure()], copy_weights(trained)
    resumed_at, every = done, max(1, planned // MEASUREMENTS)
    while done < planned and not _is_over(measured):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * compute_rate_share(done / planned)
        run_step(compute_loss, optimizer, seed, done)
        done += 1
        progress(done, planned)
        if done % every and done < planned:
            continue
        measured = [*measured, measure()]
        if measured[-1] == max(measured[1:]):
            best = copy_weights(trained)
        state = {"weights": whole.state_dict(), "optimizer": optimizer.state_dict(), "best": best}
        write_state(folder, identity, {**state, "planned": planned, "done": done, "measured": measured})
    trained.load_state_dict(best)
    steps = min(planned, every * (1 + int(np.argmax(measured[1:]))))
    return FitReport(steps, planned, tuple(measured), resumed_at)


def run_step(compute_loss: nn.Module, optimizer: torch.optim.Optimizer, seed: int, step: int) -> None:
    """Do one step, whose batch and dropout follow from the seed and its number."""
    torch.manual_seed(seed * 1_000_003 + step)
    loss = compute_loss(np.random.default_rng([seed, step]))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def copy_weights(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of the weights of a module."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def compute_rate_share(done_share: float) -> float:
    """Return the learning rate as a share of the highest: a linear rise, then half a cosine to 0."""
    if done_share < WARM_UP:
        return max(0.02, done_share / WARM_UP)
    return 0.5 * (1 + float(np.cos(np.pi * (done_share - WARM_UP) / (1 - WARM_UP))))


def _is_over(measured: list[float]) -> bool:
    """Return whether the last PATIENCE measurements after a step were not higher than an earlier one."""
    after = measured[1:]
    return len(after) > PATIENCE and max(after[-PATIENCE:]) <= max(after[:-PATIENCE])


def _choose_steps(
    whole: nn.Module, compute_loss: nn.Module, optimizer: torch.optim.Optimizer, seed: int, seconds: float
) -> int:
    """Return how many steps fit into a time, at least MEASUREMENTS. The weights stay as they are."""
    weights, state = copy_weights(whole), optimizer.state_dict()
    start = time.perf_counter()
    for step in range(TIMED_STEPS):
        run_step(compute_loss, optimizer, seed, step)
    taken = time.perf_counter() - start
    whole.load_state_dict(weights)
    optimizer.load_state_dict(state)
    return max(MEASUREMENTS, int((seconds - taken) / (taken / TIMED_STEPS)))
