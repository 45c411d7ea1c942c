"""The training loop: all steps (step.py), with the state saved at intervals (training_state.py)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from producers.encoders.training import filtering
from producers.encoders.training.step import TrainingTask, run_step
from producers.encoders.training.training_model import TrainingModel
from producers.encoders.training.training_state import TrainingState

WARM_UP_SHARE = 0.05
"""Share of the steps, from the first on, in which the learning rate rises."""
HEAD_LEARNING_RATE = 4e-3
"""Highest learning rate of the heads, which always start from random weights."""
FILTER_AT = 0.5
"""Share of the steps after which the `similarity` filter runs."""


@dataclass(frozen=True)
class LoopResult:
    """What a training loop did."""

    steps: int
    """Steps of the whole training, those of an interrupted run included."""
    resumed_at: int
    """Number of steps that an interrupted run had saved; 0 if this run started from the beginning."""
    losses: dict[str, float]
    """Mean of each objective's weighted loss over the last tenth of the steps, at least the last step, with the names
    that `TrainingModel.forward` returns."""
    kept: int
    """Number of pairs that the filter left in; that of all pairs without a filter."""


def run_training(
    model: TrainingModel,
    task: TrainingTask,
    *,
    learning_rate: float,
    folder: Path,
    identity: str,
    progress: Callable[[int, int], None],
) -> LoopResult:
    """Train `model` in place, and resume from the state that an interrupted run of the same `identity` saved.

    The first process saves the state after every `save_every` steps of the recipe, but not after the last step. The
    file stays when the training ends; `training_state.remove_state` removes it.

    Args:
        model: The towers and heads. It is left in evaluation mode.
        task: Pairs, recipe, number of steps and seed.
        learning_rate: Highest learning rate of the towers. That of the heads is HEAD_LEARNING_RATE.
        folder: Where the state is saved and looked for.
        identity: Digest of the data and the settings. A saved state is used only if its identity is equal.
        progress: Called after each step, in every process, with the number of steps done and their total.

    Returns:
        What the training did, the steps of an interrupted run included.

    Raises:
        ConflictError: `folder` has the state of a training with another identity.
        CorruptDataError: The state cannot be read.
    """
    recipe, pairs, preprocessor, steps = task.recipe, task.pairs, task.preprocessor, task.steps
    state = _create_state(model, task, learning_rate)
    state.resume(folder, identity, preprocessor.scale.device)
    resumed_at = state.next_step
    forward: Any = model
    if task.process_group.count > 1:
        # A batch may have no pair for the matching head, and some families have weights that no vector depends on.
        forward = DistributedDataParallel(model, broadcast_buffers=False, find_unused_parameters=True)
    model.train()
    order = task.make_order(state.kept)
    for step in range(resumed_at, steps):
        if recipe.keep == "similarity" and step == int(FILTER_AT * steps):
            state.kept &= filtering.filter_by_similarity(model.towers, pairs, preprocessor)
            order = task.make_order(state.kept)
        state.history.append(run_step(state, task, forward, step, *task.select_rows(order, step)))
        if task.process_group.is_first and (step + 1) % recipe.save_every == 0 and step + 1 < steps:
            state.save(folder, identity)
        progress(step + 1, steps)
    model.eval()
    last = state.history[-max(1, steps // 10) :]
    means = {name: float(np.mean([losses[name] for losses in last])) for name in last[0]}
    return LoopResult(steps, resumed_at, means, int(state.kept.sum()))


def _create_state(model: TrainingModel, task: TrainingTask, learning_rate: float) -> TrainingState:
    """Return the state before the first step."""
    groups = model.make_parameter_groups(learning_rate, HEAD_LEARNING_RATE, task.recipe.weight_decay)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)  # fused takes a third of the time
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _compute_rate_share(step / task.steps))
    kept = filtering.filter_by_looks(task.pairs) if task.recipe.keep == "looks" else np.ones(len(task.pairs), bool)
    return TrainingState(model, optimizer, schedule, kept, [])


def _compute_rate_share(done_share: float) -> float:
    """Return the learning rate as a share of the highest one: a linear warm-up times a cosine decay."""
    return min(1.0, done_share / WARM_UP_SHARE + 0.01) * (0.5 * (1 + math.cos(math.pi * done_share)) + 0.01)
