"""Step after step: forward, backward, update, and the state saved now and then.

A step's batch is the same however it is spread over micro-batches and processes. Pairs are compared within their
micro-batch (and with the momentum queue, where there is one); gradients and the statistics of normalisation are means
over micro-batches.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from producers.encoders.training import filtering, state
from producers.encoders.training.clicks import CoClicks
from producers.encoders.training.learner import Learner
from producers.encoders.training.momentum import Said
from producers.encoders.training.pairs import Order, Pairs, Preparation, chance_of, micro_batches
from producers.encoders.training.processes import Processes
from producers.encoders.training.recipe import Recipe

WARM_UP = 0.05
"""Share of the steps in which the learning rate rises."""
HEAD_RATE = 4e-3
LONGEST_GRADIENT = 1.0
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
    device = preparation.scale.device
    batch = min(recipe.batch, len(pairs))
    size = replace(recipe, batch=batch).micro_batch(processes.count)
    groups = learner.groups(rate, HEAD_RATE, recipe.weight_decay)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)  # a third of the time of weight after weight
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step / steps))
    kept = filtering.by_looks(pairs) if recipe.keep == "looks" else np.ones(len(pairs), bool)
    history: list[dict[str, float]] = []
    found = state.read(folder, identity, device)
    if found:
        learner.load_state_dict(found["learner"])
        optimizer.load_state_dict(found["optimizer"])
        schedule.load_state_dict(found["schedule"])
        kept, history = found["kept"].cpu().numpy(), found["history"]
    begun = len(history)
    forward: Any = learner
    if processes.count > 1:
        # Matching may find nothing to mistake, and some families have weights that no vector is computed from.
        forward = DistributedDataParallel(learner, broadcast_buffers=False, find_unused_parameters=True)
    statistics = [value for value in learner.towers.buffers() if value.is_floating_point()]
    learner.train()
    order = Order(np.flatnonzero(kept), min(batch, int(kept.sum())), seed)
    for step in range(begun, steps):
        if recipe.keep == "similarity" and step == int(HALF * steps):
            kept &= filtering.by_similarity(learner.towers, pairs, preparation)
            order = Order(np.flatnonzero(kept), min(batch, int(kept.sum())), seed)
        if learner.momentum is not None:
            learner.momentum.follow(learner.towers)
        rows = order.step(step)
        partners = np.full(len(rows), -1)
        if clicks is not None:
            rows, partners = clicks.mixed_into(rows, size, np.random.default_rng([seed, 2, step]))
        optimizer.zero_grad()
        before = [value.clone() for value in statistics]
        after = [torch.zeros_like(value) for value in statistics]
        losses: dict[str, torch.Tensor] = {}
        said: list[Said] = []
        for number, place in micro_batches(rows, size, processes.number, recipe.accumulate):
            for value, was in zip(statistics, before, strict=True):
                value.copy_(was)
            taken = preparation.take(pairs, rows[place], partners[place], chance_of(seed, step, number), recipe)
            last = number == (processes.number + 1) * recipe.accumulate - 1
            with forward.no_sync() if processes.count > 1 and not last else nullcontext():
                with torch.autocast(device.type, torch.bfloat16, enabled=half_precision(recipe, device)):
                    each, copy_said = forward(taken, step / steps)
                (sum(each.values()) / recipe.accumulate).backward()
            for name, loss in each.items():
                losses[name] = losses.get(name, 0.0) + loss.detach() / recipe.accumulate
            for total, value in zip(after, statistics, strict=True):
                total += value / recipe.accumulate
            said.append(copy_said)
        processes.averaged(after)
        for value, mean in zip(statistics, after, strict=True):
            value.copy_(mean)
        torch.nn.utils.clip_grad_norm_(learner.parameters(), LONGEST_GRADIENT)
        optimizer.step()
        schedule.step()
        if learner.momentum is not None:
            learner.momentum.enqueue(_together(said, processes))
        processes.averaged(list(losses.values()))
        history.append({name: float(loss) for name, loss in losses.items()})
        if processes.first and (step + 1) % recipe.save_every == 0 and step + 1 < steps:
            content = {"learner": learner.state_dict(), "optimizer": optimizer.state_dict()}
            rest = {"schedule": schedule.state_dict(), "kept": torch.from_numpy(kept), "history": history}
            state.save(folder, identity, content | rest)
        progress(step + 1, steps)
    learner.eval()
    tail = history[-max(1, steps // 10) :]
    means = {name: float(np.mean([row[name] for row in tail])) for name in tail[0]}
    return Learnt(steps, begun, means, int(kept.sum()))


def rate_at(done: float) -> float:
    """Share of the highest learning rate at a share of the training: a quick rise, then half a cosine down."""
    return min(1.0, done / WARM_UP + 0.01) * (0.5 * (1 + math.cos(math.pi * done)) + 0.01)


def half_precision(recipe: Recipe, device: torch.device) -> bool:
    """Whether to compute in bfloat16."""
    if recipe.precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return recipe.precision == "bfloat16"


def _together(said: list[Said], processes: Processes) -> Said:
    """What the copy said of the whole step's batch, in its order."""
    parts = [processes.gathered(torch.cat([getattr(one, name) for one in said])) for name in ("image", "text", "same")]
    return Said(*parts)
