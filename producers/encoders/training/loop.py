"""The training loop: all steps (step.py), with the state saved at intervals (training_state.py)."""

import copy
import math
from collections.abc import Callable, Sequence
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
from producers.encoders.training.validation import PATIENCE, Validation

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
    """Steps of the whole training, those of an interrupted run included; fewer than planned if it stopped early."""
    resumed_at: int
    """Number of steps that an interrupted run had saved; 0 if this run started from the beginning."""
    losses: dict[str, float]
    """Mean of each objective's weighted loss over the last tenth of the steps, at least the last step, with the names
    that `TrainingModel.forward` returns."""
    kept: int
    """Number of pairs that the filter left in; that of all pairs to train on without a filter."""
    recalls: tuple[float, ...] = ()
    """The validation recalls, that before the first step first; empty without validation."""


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

    With validation, the recall is measured before the first step and about `validation.EVALUATIONS` times. The training
    stops after `validation.PATIENCE` measurements without a higher recall, and the model gets the weights that had the
    highest recall after a step.

    Args:
        model: the towers and heads. It is left in evaluation mode.
        task: pairs, recipe, number of steps and seed.
        learning_rate: highest learning rate of the towers. That of the heads is HEAD_LEARNING_RATE.
        folder: where the state is saved and looked for.
        identity: digest of the data and the settings. A saved state is used only if its identity is equal.
        progress: called after each step, in every process, with the number of steps done and their total.

    Returns:
        What the training did, the steps of an interrupted run included.

    Raises:
        ConflictError: `folder` has the state of a training with another identity.
        CorruptDataError: the state cannot be read.
    """
    recipe, pairs, preprocessor, steps = task.recipe, task.pairs, task.preprocessor, task.steps
    state = create_state(model, task, learning_rate)
    state.resume(folder, identity, preprocessor.scale.device)
    resumed_at = state.next_step
    forward = make_forward(model, task)
    if task.validation and not state.recalls:
        state.recalls.append(_measure_recall(model, task, task.validation))
    model.train()
    order = task.make_order(state.kept)
    for step in range(resumed_at, steps):
        if has_converged(state.recalls):
            break
        if recipe.keep == "similarity" and step == int(FILTER_AT * steps):
            state.kept &= filtering.filter_by_similarity(model.towers, pairs, preprocessor)
            order = task.make_order(state.kept)
        state.history.append(run_step(state, task, forward, step, *task.select_rows(order, step)))
        if task.validation and task.validation.is_due(step + 1, steps):
            recall = _measure_recall(model, task, task.validation)
            if recall > max(state.recalls[1:], default=-1.0):
                state.best = copy.deepcopy(model.state_dict())
            state.recalls.append(recall)
        if task.process_group.is_first and (step + 1) % recipe.save_every == 0 and step + 1 < steps:
            state.save(folder, identity)
        progress(step + 1, steps)
    if state.best is not None:
        model.load_state_dict(state.best)
    model.eval()
    last = state.history[-max(1, len(state.history) // 10) :]
    means = {name: float(np.mean([losses[name] for losses in last])) for name in last[0]}
    return LoopResult(len(state.history), resumed_at, means, int(state.kept.sum()), tuple(state.recalls))


def make_forward(model: TrainingModel, task: TrainingTask) -> Any:
    """Return what computes the losses of a batch: the model, or its wrapper if several processes train together."""
    if task.process_group.count == 1:
        return model
    # A batch may have no pair for the matching head, and some families have weights that no vector depends on.
    return DistributedDataParallel(model, broadcast_buffers=False, find_unused_parameters=True)


def has_converged(recalls: Sequence[float]) -> bool:
    """Return whether the last PATIENCE measurements after a step are no higher than one before them."""
    after = recalls[1:]
    return len(after) > PATIENCE and max(after[-PATIENCE:]) <= max(after[:-PATIENCE])


def _measure_recall(model: TrainingModel, task: TrainingTask, validation: Validation) -> float:
    """Return the validation recall, the same in all processes. The model stays in its mode."""
    recall = validation.measure_recall(model.towers, task.pairs, task.preprocessor)
    mean = torch.tensor(recall, dtype=torch.float64, device=task.preprocessor.scale.device)
    task.process_group.average([mean])
    return float(mean)


def create_state(model: TrainingModel, task: TrainingTask, learning_rate: float) -> TrainingState:
    """Return the state before the first step."""
    recipe = task.recipe
    groups = model.make_parameter_groups(learning_rate, HEAD_LEARNING_RATE, recipe.weight_decay, recipe.layer_decay)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)  # fused takes a third of the time
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _compute_rate_share(step / task.steps))
    kept = filtering.filter_by_looks(task.pairs) if recipe.keep == "looks" else np.ones(len(task.pairs), bool)
    if task.validation:
        kept[task.validation.rows] = False
    return TrainingState(model, optimizer, schedule, kept, [])


def _compute_rate_share(done_share: float) -> float:
    """Return the learning rate as a share of the highest one: a linear warm-up times a cosine decay."""
    return min(1.0, done_share / WARM_UP_SHARE + 0.01) * (0.5 * (1 + math.cos(math.pi * done_share)) + 0.01)
