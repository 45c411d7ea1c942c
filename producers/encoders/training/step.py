"""One optimizer step: the gradients of its micro-batches, and the update of the weights.

The batch of a step is the same however it is divided into micro-batches and processes. Pairs are compared within their
micro-batch and with the momentum queue, if there is one. Gradients and normalization statistics are means over the
micro-batches.
"""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from producers.encoders.training.alignment import CoClickPairs
from producers.encoders.training.contrastive import MomentumOutputs
from producers.encoders.training.pairs import BatchOrder, Preprocessor, TrainingPairs
from producers.encoders.training.process_group import ProcessGroup
from producers.encoders.training.recipe import Recipe
from producers.encoders.training.training_model import TrainingModel
from producers.encoders.training.training_state import TrainingState
from producers.encoders.training.validation import Validation

MAX_GRADIENT_NORM = 1.0
"""Length of the gradient of all weights above which it is shortened to this."""


@dataclass(frozen=True)
class TrainingTask:
    """Everything that stays the same from the first step to the last, also when a training resumes."""

    pairs: TrainingPairs
    """All pairs, those that a filter leaves out included."""
    preprocessor: Preprocessor
    """Turns rows of `pairs` into the inputs of the towers."""
    recipe: Recipe
    """The settings of the training."""
    steps: int
    """Number of steps of the whole training, at least 1."""
    seed: int
    """Seed of everything that is random during training."""
    co_clicks: CoClickPairs | None
    """Products clicked together, which are mixed into the batches; None without the alignment loss."""
    process_group: ProcessGroup
    """The processes that train together."""
    validation: Validation | None = None
    """Pairs that are not trained on, by which the best weights are chosen; None keeps the last weights."""

    @property
    def batch_size(self) -> int:
        """Number of pairs in a step, over all processes: the recipe's `batch`, or all pairs if they are fewer."""
        return min(self.recipe.batch, len(self.pairs))

    @property
    def micro_batch_size(self) -> int:
        """Number of pairs in one forward pass of one process: `batch_size` divided by processes and `accumulate`.

        Raises:
            UsageError: the batch is divided, and not into equal parts of at least 2 pairs.
        """
        return replace(self.recipe, batch=self.batch_size).micro_batch_size(self.process_group.count)

    def make_order(self, kept: NDArray[np.bool_]) -> BatchOrder:
        """Return the random order of the pairs that are trained on; the same for the same `kept`.

        Args:
            kept: whether each pair is trained on, bool [pairs]; True at least once.
        """
        return BatchOrder(np.flatnonzero(kept), min(self.batch_size, int(kept.sum())), self.seed)

    def select_rows(self, order: BatchOrder, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows of a step, with random pairs of clicks among them if there are `co_clicks`.

        Args:
            order: from `make_order`.
            step: number of the step, from 0.

        Returns:
            The rows of `pairs` for all processes, int64 [n], which may repeat with `co_clicks`; and the partner of each
            row as an index in its micro-batch, -1 for none, int64 [n]. The same for the same step.
        """
        rows = order.select_rows(step)
        if self.co_clicks is None:
            return rows, np.full(len(rows), -1)
        rng = np.random.default_rng([self.seed, 2, step])
        return self.co_clicks.mix_into_batch(rows, self.micro_batch_size, rng)


def run_step(
    state: TrainingState,
    task: TrainingTask,
    forward: Any,
    step: int,
    rows: NDArray[np.int64],
    partners: NDArray[np.int64],
) -> dict[str, float]:
    """Update the weights once.

    Every process calls this with the same step, and computes its own part of the batch.

    Args:
        state: its model, optimizer and schedule are changed in place. Its history is not.
        task: the training.
        forward: `state.model`, or its DistributedDataParallel wrapper if there are several processes.
        step: number of the step, from 0.
        rows: rows of `task.pairs` in the step's batch, for all processes [n].
        partners: the partner of each row as an index in its micro-batch, -1 for none [n].

    Returns:
        The weighted loss of each objective, with the names that `TrainingModel.forward` returns: the mean over the
        micro-batches of all processes, before the update.
    """
    model = state.model
    if model.momentum is not None:
        model.momentum.update(model.towers)
    state.optimizer.zero_grad()
    losses, outputs = _compute_gradients(model, task, forward, step, rows, partners)
    torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
    state.optimizer.step()
    state.schedule.step()
    if model.momentum is not None:
        model.momentum.enqueue(_gather_outputs(outputs, task.process_group))
    task.process_group.average(list(losses.values()))
    return {name: float(loss) for name, loss in losses.items()}


def _compute_gradients(
    model: TrainingModel,
    task: TrainingTask,
    forward: Any,
    step: int,
    rows: NDArray[np.int64],
    partners: NDArray[np.int64],
) -> tuple[dict[str, torch.Tensor], list[MomentumOutputs]]:
    """Compute the gradients of this process's micro-batches, and the mean of their normalization statistics.

    Each micro-batch starts from the statistics at the start of the step, so that their mean does not depend on how the
    micro-batches are spread over processes. Returns the losses of this process, and the momentum copy's outputs for
    each micro-batch.
    """
    recipe, process_group, device = task.recipe, task.process_group, task.preprocessor.scale.device
    statistics = [value for value in model.towers.buffers() if value.is_floating_point()]
    before = [value.clone() for value in statistics]
    after = [torch.zeros_like(value) for value in statistics]
    losses: dict[str, torch.Tensor] = {}
    outputs: list[MomentumOutputs] = []
    first = process_group.rank * recipe.accumulate
    for number in range(first, first + recipe.accumulate):
        part = slice(number * task.micro_batch_size, (number + 1) * task.micro_batch_size)
        for value, initial in zip(statistics, before, strict=True):
            value.copy_(initial)
        rng = _seed_micro_batch(task.seed, step, number)
        batch = task.preprocessor.make_batch(task.pairs, rows[part], partners[part], rng, recipe)
        is_last = number == first + recipe.accumulate - 1
        with forward.no_sync() if process_group.count > 1 and not is_last else nullcontext():
            with torch.autocast(device.type, torch.bfloat16, enabled=_uses_bfloat16(recipe, device)):
                batch_losses, batch_outputs = forward(batch, step / task.steps)
            (sum(batch_losses.values()) / recipe.accumulate).backward()
        for name, loss in batch_losses.items():
            losses[name] = losses.get(name, 0.0) + loss.detach() / recipe.accumulate
        for total, value in zip(after, statistics, strict=True):
            total += value / recipe.accumulate
        outputs.append(batch_outputs)
    process_group.average(after)
    for value, mean in zip(statistics, after, strict=True):
        value.copy_(mean)
    return losses, outputs


def _seed_micro_batch(seed: int, step: int, micro_batch: int) -> np.random.Generator:
    """Return the random generator of a micro-batch, and seed torch's global one, which dropout uses."""
    rng = np.random.default_rng([seed, 1, step, micro_batch])
    torch.manual_seed(int(rng.integers(2**62)))
    return rng


def _uses_bfloat16(recipe: Recipe, device: torch.device) -> bool:
    if recipe.precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return recipe.precision == "bfloat16"


def _gather_outputs(outputs: list[MomentumOutputs], process_group: ProcessGroup) -> MomentumOutputs:
    """Return the momentum copy's outputs for the batches of all processes, in the order of the step's batch."""
    parts = [
        process_group.gather(torch.cat([getattr(part, name) for part in outputs]))
        for name in ("image", "text", "title_ids")
    ]
    return MomentumOutputs(*parts)
