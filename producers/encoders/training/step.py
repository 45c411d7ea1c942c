"""One step: the gradients of its micro-batches, and the update.

A step's batch is the same however it is spread over micro-batches and processes. Pairs are compared within their
micro-batch (and with the momentum queue, where there is one); gradients and the statistics of normalisation are means
over micro-batches.
"""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from producers.encoders.training import training_state
from producers.encoders.training.clicks import CoClicks
from producers.encoders.training.momentum import Said
from producers.encoders.training.pairs import Order, Pairs, Preparation, chance_of, micro_batches
from producers.encoders.training.process_group import Processes
from producers.encoders.training.recipe import Recipe
from producers.encoders.training.training_model import Learner

LONGEST_GRADIENT = 1.0


@dataclass
class State:
    """All that changes from step to step. Saved and taken up whole, for exact resumption rests on it: what a step does
    follows from this, from `Task` and from the step's number, and from nothing else."""

    learner: Learner
    """Weights, statistics of normalisation, the momentum copy and its queue."""
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    kept: NDArray[np.bool_]
    """Which pairs are learnt from."""
    history: list[dict[str, float]]
    """The losses of each step so far."""

    @property
    def step(self) -> int:
        """The next one."""
        return len(self.history)

    def take_up(self, folder: Path, identity: str, device: torch.device) -> None:
        """Go on where an interrupted run of the same training had saved, if it had."""
        found = training_state.read(folder, identity, device)
        if found:
            self.learner.load_state_dict(found["learner"])
            self.optimizer.load_state_dict(found["optimizer"])
            self.schedule.load_state_dict(found["schedule"])
            self.kept, self.history = found["kept"].cpu().numpy(), found["history"]

    def save(self, folder: Path, identity: str) -> None:
        content = {"learner": self.learner.state_dict(), "optimizer": self.optimizer.state_dict()}
        rest = {
            "schedule": self.schedule.state_dict(),
            "kept": torch.from_numpy(self.kept),
            "history": self.history,
        }
        training_state.save(folder, identity, content | rest)


@dataclass(frozen=True)
class Task:
    """All that stays as it is from the first step to the last, in an interrupted run as in the one that goes on."""

    pairs: Pairs
    preparation: Preparation
    recipe: Recipe
    steps: int
    seed: int
    clicks: CoClicks | None
    processes: Processes

    @property
    def batch(self) -> int:
        return min(self.recipe.batch, len(self.pairs))

    @property
    def size(self) -> int:
        """Pairs of a micro-batch."""
        return replace(self.recipe, batch=self.batch).micro_batch(self.processes.count)

    def order(self, kept: NDArray[np.bool_]) -> Order:
        return Order(np.flatnonzero(kept), min(self.batch, int(kept.sum())), self.seed)

    def rows(self, order: Order, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The pairs of a step, and beside each the row of the batch that it is to lie close to, -1 for none."""
        rows = order.step(step)
        if self.clicks is None:
            return rows, np.full(len(rows), -1)
        return self.clicks.mixed_into(rows, self.size, np.random.default_rng([self.seed, 2, step]))


def take_step(
    going: State, task: Task, forward: Any, step: int, rows: NDArray[np.int64], partners: NDArray[np.int64]
) -> dict[str, float]:
    """One update of the weights; the loss of each objective, over all processes."""
    learner = going.learner
    if learner.momentum is not None:
        learner.momentum.follow(learner.towers)
    going.optimizer.zero_grad()
    losses, said = _gradients(learner, task, forward, step, rows, partners)
    torch.nn.utils.clip_grad_norm_(learner.parameters(), LONGEST_GRADIENT)
    going.optimizer.step()
    going.schedule.step()
    if learner.momentum is not None:
        learner.momentum.enqueue(_together(said, task.processes))
    task.processes.averaged(list(losses.values()))
    return {name: float(loss) for name, loss in losses.items()}


def _gradients(
    learner: Learner, task: Task, forward: Any, step: int, rows: NDArray[np.int64], partners: NDArray[np.int64]
) -> tuple[dict[str, torch.Tensor], list[Said]]:
    """Gradients of this process's micro-batches into the weights, and the mean of their statistics into the towers.

    Each micro-batch begins at the statistics that the step began at, so that their mean does not depend on which
    process took which. Returns the losses of this process, and what the momentum copy said of each micro-batch.
    """
    recipe, processes, device = task.recipe, task.processes, task.preparation.scale.device
    statistics = [value for value in learner.towers.buffers() if value.is_floating_point()]
    before = [value.clone() for value in statistics]
    after = [torch.zeros_like(value) for value in statistics]
    losses: dict[str, torch.Tensor] = {}
    said: list[Said] = []
    for number, place in micro_batches(rows, task.size, processes.number, recipe.accumulate):
        for value, was in zip(statistics, before, strict=True):
            value.copy_(was)
        chance = chance_of(task.seed, step, number)
        taken = task.preparation.take(task.pairs, rows[place], partners[place], chance, recipe)
        last = number == (processes.number + 1) * recipe.accumulate - 1
        with forward.no_sync() if processes.count > 1 and not last else nullcontext():
            with torch.autocast(device.type, torch.bfloat16, enabled=half_precision(recipe, device)):
                each, copy_said = forward(taken, step / task.steps)
            (sum(each.values()) / recipe.accumulate).backward()
        for name, loss in each.items():
            losses[name] = losses.get(name, 0.0) + loss.detach() / recipe.accumulate
        for total, value in zip(after, statistics, strict=True):
            total += value / recipe.accumulate
        said.append(copy_said)
    processes.averaged(after)
    for value, mean in zip(statistics, after, strict=True):
        value.copy_(mean)
    return losses, said


def half_precision(recipe: Recipe, device: torch.device) -> bool:
    """Whether to compute in bfloat16."""
    if recipe.precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return recipe.precision == "bfloat16"


def _together(said: list[Said], processes: Processes) -> Said:
    """What the copy said of the whole step's batch, in its order."""
    parts = [processes.gathered(torch.cat([getattr(one, name) for one in said])) for name in ("image", "text", "same")]
    return Said(*parts)
