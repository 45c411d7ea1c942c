"""The loop of every training here: accumulated steps, mean weights, skipped steps, and a state that resumes exactly.

Random numbers of a step follow from the seed and the number of the step, so they are not saved. The trained model is
saved with the exponential moving averages (EMA) of its weights.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from feature_repo.errors import InvalidInputError, UsageError
from feature_repo.files.atomic_write import require_new_folder
from producers.encoders.training.pairs import BatchOrder
from producers.encoders.training.process_group import ProcessGroup
from producers.text_to_image.loop_state import LoopState

MAX_SKIPPED_IN_A_ROW = 10
"""Steps without a finite loss after which a training ends."""
WARM_UP_SHARE = 0.03
PRECISIONS = ("float32", "bfloat16")

MakeLoss = Callable[[Any, NDArray[np.int64], torch.Generator], torch.Tensor]
"""(model, rows, generator) -> loss. The model may be wrapped for several processes."""


@dataclass(frozen=True)
class TrainingSettings:
    """The settings of a training."""

    steps: int
    batch: int = 32
    """Rows of a step, over all processes and micro-batches."""
    accumulate: int = 1
    """Micro-batches of a process in a step."""
    learning_rate: float = 1e-3
    """Peak, after a linear warm-up; then it falls as a cosine."""
    weight_decay: float = 0.01
    ema_decay: float = 0.999
    """Largest share of the former mean weights in the new ones; smaller in the first steps."""
    precision: str = "float32"
    """float32 or bfloat16: of the computation; weights are float32."""
    seed: int = 0
    save_every: int = 200
    """Steps."""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UsageError(f"--precision is `{self.precision}`; expected {' or '.join(PRECISIONS)}")
        self.micro_batch(1)

    def micro_batch(self, processes: int) -> int:
        """Return the rows of a micro-batch.

        Raises:
            UsageError: the batch is not divided into equal parts.
        """
        parts = processes * self.accumulate
        if self.batch % parts:
            raise UsageError(
                f"--batch {self.batch} is not a multiple of {parts} ({processes} processes x --accumulate "
                f"{self.accumulate})"
            )
        return self.batch // parts


@dataclass(frozen=True)
class TrainingContext:
    """Where a training runs and where its state is kept."""

    process_group: ProcessGroup
    """The processes that train together."""
    device: torch.device
    """Of this process."""
    folder: Path
    """Where the state is saved and looked for."""
    identity: str
    """Digest of the data, the settings and the first weights; a state with another one is refused."""
    progress: Callable[[int, int, float], None] = lambda done, total, loss: None
    """Called after each step with the steps done, their total and the loss."""


@dataclass(frozen=True)
class TrainingResult:
    """What a training did, an interrupted run included."""

    steps: int
    resumed_at: int
    """Steps that an interrupted run had saved."""
    skipped: int
    """Steps without a finite loss or gradient, which changed nothing."""
    loss: float
    """Mean loss of the last tenth of the steps, skipped ones left out."""


def prepare_state_folder(output: Path) -> Path:
    """Check that a checkpoint can be written to `output`; return the folder beside it that keeps the training's state.

    Raises:
        ConflictError: `output` has content.
    """
    require_new_folder(output)
    return output.with_name(f"{output.name}.training")


def run_training(
    model: nn.Module,
    rows: int,
    make_loss: MakeLoss,
    settings: TrainingSettings,
    context: TrainingContext,
) -> TrainingResult:
    """Train the weights of `model` that require a gradient, in place; in the end they are their EMA.

    Args:
        model: on the device of the context.
        rows: number of training rows. Each epoch visits every row once.
        make_loss: computes the mean loss of some rows.
        settings: of the training.
        context: processes, device and folder.

    Raises:
        InvalidInputError: the loss was not finite in MAX_SKIPPED_IN_A_ROW steps in a row.
        ConflictError: the folder has the state of another training.
        UsageError: the batch is not divided into equal parts.
    """
    state = LoopState.create(model, settings.learning_rate, settings.weight_decay)
    state.resume(context.folder, context.identity, context.device)
    resumed_at = len(state.losses)
    forward: Any = model
    if context.process_group.count > 1:
        forward = DistributedDataParallel(model, broadcast_buffers=False, find_unused_parameters=True)
    order = BatchOrder(np.arange(rows), settings.batch, settings.seed)
    for step in range(resumed_at, settings.steps):
        state.set_learning_rate(settings.learning_rate * _compute_rate_share(step / settings.steps))
        state.optimizer.zero_grad(set_to_none=True)
        loss = _compute_gradients(forward, order.select_rows(step), make_loss, settings, context, step)
        state.update(loss, settings.ema_decay)
        _check_skipped(state.losses, context.folder)
        if context.process_group.is_first and (step + 1) % settings.save_every == 0 and step + 1 < settings.steps:
            state.save(context.folder, context.identity)
        context.progress(step + 1, settings.steps, state.losses[-1])
    state.use_means()
    last = [loss for loss in state.losses[-max(1, len(state.losses) // 10) :] if math.isfinite(loss)]
    skipped = sum(not math.isfinite(loss) for loss in state.losses)
    return TrainingResult(len(state.losses), resumed_at, skipped, float(np.mean(last)) if last else math.nan)


def _compute_gradients(
    forward: Any,
    rows: NDArray[np.int64],
    make_loss: MakeLoss,
    settings: TrainingSettings,
    context: TrainingContext,
    step: int,
) -> float:
    """Add the gradients of this process's share of the rows of a step; return the mean loss of all processes."""
    process_group, device = context.process_group, context.device
    size, first = settings.micro_batch(process_group.count), process_group.rank * settings.accumulate
    loss = torch.zeros((), device=device)
    for number in range(first, first + settings.accumulate):
        is_last = number == first + settings.accumulate - 1
        part = rows[number * size : (number + 1) * size]
        if not len(part):  # fewer rows than a batch
            part = rows[number % len(rows) :][:size]
        with nullcontext() if is_last or process_group.count == 1 else forward.no_sync():
            with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
                one = make_loss(forward, part, _seed_micro_batch(settings.seed, step, number)) / settings.accumulate
            one.backward()  # type: ignore[no-untyped-call]
        loss += one.detach()
    process_group.average([loss])
    return float(loss)


def _check_skipped(losses: list[float], folder: Path) -> None:
    """Raise InvalidInputError if the last MAX_SKIPPED_IN_A_ROW losses are not finite."""
    last = losses[-MAX_SKIPPED_IN_A_ROW:]
    if len(last) == MAX_SKIPPED_IN_A_ROW and not any(math.isfinite(loss) for loss in last):
        raise InvalidInputError(
            f"the loss was not a finite number in {MAX_SKIPPED_IN_A_ROW} steps in a row, the last of them step "
            f"{len(losses):,}; lower --learning-rate, or use --precision float32, and remove {folder}"
        )


def _compute_rate_share(done_share: float) -> float:
    """Return the learning rate as a share of the highest one."""
    return min(1.0, done_share / WARM_UP_SHARE + 0.01) * (0.5 * (1 + math.cos(math.pi * done_share)) + 0.01)


def _seed_micro_batch(seed: int, step: int, micro_batch: int) -> torch.Generator:
    """Return the generator of a micro-batch, and seed torch's global one, which dropout uses."""
    number = int(np.random.default_rng([seed, 1, step, micro_batch]).integers(2**62))
    torch.manual_seed(number)
    return torch.Generator("cpu").manual_seed(number)
