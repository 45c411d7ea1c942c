"""How many steps a training does: from the number of pairs, or from the time that is given."""

import copy
import time
from dataclasses import replace
from pathlib import Path

import torch

from producers.encoders.training.loop import create_state, make_forward
from producers.encoders.training.step import TrainingTask, run_step
from producers.encoders.training.training_model import TrainingModel
from producers.encoders.training.training_state import STATE_FILE, STEPS_FILE

PASSES = 5
"""How often a training from random weights sees each product, if neither pairs nor minutes are given."""
MIN_PAIRS_SEEN = 40_000
"""The least number of pairs of such a training: a minute on two cores."""
FINE_TUNING_PASSES = 2
"""How often fine-tuning sees each product. A long schedule on few products loses what a checkpoint knew."""
MAX_MEASURED_STEPS = 10
MEASURING_SHARE = 0.1
"""Share of the given time for measuring steps, at most, but two steps are always done: the first is slower than the
others, and its time counts only for choosing how many are measured."""
RESERVED_SHARE = 0.05
"""Share of the given time that is left for the whitening and for writing the checkpoint."""


def choose_pairs_seen(pairs_seen: int | None, products: int, *, is_fine_tuning: bool) -> int:
    """Return the number of pairs to learn from, repeats included: as given, or by the number of products."""
    if pairs_seen is not None:
        return pairs_seen
    return FINE_TUNING_PASSES * products if is_fine_tuning else max(MIN_PAIRS_SEEN, PASSES * products)


def choose_steps(
    model: TrainingModel, task: TrainingTask, learning_rate: float, *, seconds: float, folder: Path
) -> int:
    """Return how many steps fit into some time, at least 1; of an interrupted training, the number that it chose.

    Some steps are measured on a copy of the model, which is then dropped.

    Args:
        model: the model, which stays as it is.
        task: the training; its number of steps does not count.
        learning_rate: as for `run_training`.
        seconds: the time from now on, until the checkpoint is written.
        folder: where the state of the training is saved.
    """
    file = folder / STEPS_FILE
    if file.is_file() and (folder / STATE_FILE).is_file():
        return int(file.read_text())
    start = time.perf_counter()
    step_seconds = measure_step_seconds(model, task, learning_rate, seconds * MEASURING_SHARE)
    left = seconds * (1 - RESERVED_SHARE) - (time.perf_counter() - start)
    steps = max(1, int(left / step_seconds))
    if task.process_group.is_first:
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(str(steps))
    return steps


def measure_step_seconds(model: TrainingModel, task: TrainingTask, learning_rate: float, max_seconds: float) -> float:
    """Return the mean seconds of a step, the same in all processes. The model stays as it is.

    Args:
        model: the model.
        task: the training; its number of steps does not count.
        learning_rate: as for `run_training`.
        max_seconds: for measuring, as far as one step after the first fits into it.
    """
    trial = copy.deepcopy(model)
    task = replace(task, steps=1 + MAX_MEASURED_STEPS)
    state = create_state(trial, task, learning_rate)
    forward, order = make_forward(trial, task), task.make_order(state.kept)
    trial.train()

    def measure(first: int, count: int) -> float:
        start = time.perf_counter()
        for step in range(first, first + count):
            run_step(state, task, forward, step, *task.select_rows(order, step))
        mean = torch.tensor((time.perf_counter() - start) / count, device=task.preprocessor.scale.device)
        task.process_group.average([mean])
        return float(mean)

    fitting = int(max_seconds / measure(0, 1)) - 1
    return measure(1, min(max(1, fitting), MAX_MEASURED_STEPS))
