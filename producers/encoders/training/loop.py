"""Step after step (step.py), and the state saved now and then (state.py)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from producers.encoders.training import filtering
from producers.encoders.training.clicks import CoClicks
from producers.encoders.training.pairs import Pairs, Preparation
from producers.encoders.training.process_group import Processes
from producers.encoders.training.recipe import Recipe
from producers.encoders.training.step import State, Task, take_step
from producers.encoders.training.training_model import Learner

WARM_UP = 0.05
"""Share of the steps in which the learning rate rises."""
HEAD_RATE = 4e-3
HALF = 0.5
"""Share of the steps after which `similarity` judges the pairs."""


@dataclass(frozen=True)
class Learnt:
    """What a training did."""

    steps: int
    resumed_at: int
    """The step at which an earlier, interrupted run was taken up; 0 for none."""
    losses: dict[str, float]
    """Mean of each objective over the last tenth of the steps."""
    kept: int
    """Pairs that were learnt from to the end."""


def learn(
    learner: Learner,
    pairs: Pairs,
    preparation: Preparation,
    recipe: Recipe,
    *,
    rate: float,
    steps: int,
    seed: int,
    clicks: CoClicks | None,
    folder: Path,
    identity: str,
    processes: Processes,
    progress: Callable[[int, int], None],
) -> Learnt:
    """Train `learner` in place; the state of an interrupted run of the same `identity` in `folder` is taken up.

    Args:
        rate: highest learning rate of the towers.
        steps: of the whole training.
        clicks: pairs of rows for the alignment, which then make up part of each batch.
        progress: told how many of how many steps are done.
    """
    task = Task(pairs, preparation, recipe, steps, seed, clicks, processes)
    going = _begin(learner, task, rate)
    going.take_up(folder, identity, preparation.scale.device)
    begun = going.step
    forward: Any = learner
    if processes.count > 1:
        # Matching may find nothing to mistake, and some families have weights that no vector is computed from.
        forward = DistributedDataParallel(learner, broadcast_buffers=False, find_unused_parameters=True)
    learner.train()
    order = task.order(going.kept)
    for step in range(begun, steps):
        if recipe.keep == "similarity" and step == int(HALF * steps):
            going.kept &= filtering.by_similarity(learner.towers, pairs, preparation)
            order = task.order(going.kept)
        going.history.append(take_step(going, task, forward, step, *task.rows(order, step)))
        if processes.first and (step + 1) % recipe.save_every == 0 and step + 1 < steps:
            going.save(folder, identity)
        progress(step + 1, steps)
    learner.eval()
    tail = going.history[-max(1, steps // 10) :]
    means = {name: float(np.mean([row[name] for row in tail])) for name in tail[0]}
    return Learnt(steps, begun, means, int(going.kept.sum()))


def _begin(learner: Learner, task: Task, rate: float) -> State:
    """The state before the first step."""
    recipe, pairs, steps = task.recipe, task.pairs, task.steps
    groups = learner.groups(rate, HEAD_RATE, recipe.weight_decay)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)  # a third of the time of weight after weight
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step / steps))
    kept = filtering.by_looks(pairs) if recipe.keep == "looks" else np.ones(len(pairs), bool)
    return State(learner, optimizer, schedule, kept, [])


def rate_at(done: float) -> float:
    """Share of the highest learning rate at a share of the training: a quick rise, then half a cosine down."""
    return min(1.0, done / WARM_UP + 0.01) * (0.5 * (1 + math.cos(math.pi * done)) + 0.01)
