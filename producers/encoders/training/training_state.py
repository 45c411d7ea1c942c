"""The state of a training in memory, and the file from which an interrupted training resumes.

The row order, crops and masks of a step follow from the seed and the step number (pairs.py), so they are not saved. The
file is replaced atomically. It is read with `torch.load(weights_only=True)`, which runs no code from the file.

OUT/training.pt     identity   digest of the data and settings; another training refuses the file
                    learner    weights, normalization statistics, momentum queue
                    optimizer, schedule
                    kept       bool [pairs], the pairs that are trained on
                    history    the losses of each step so far
                    recalls    validation recalls so far, that before the first step first
                    best       weights with the highest of them after a step; missing without any
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from feature_repo.errors import ConflictError, CorruptDataError
from feature_repo.files.atomic_write import replace_atomically
from producers.encoders.checkpoint_files import explain_write_errors
from producers.encoders.training.training_model import TrainingModel

STATE_FILE = "training.pt"
"""Name of the file in the folder of the training."""
STEPS_FILE = "training_steps"
"""File beside it with the number of steps that was chosen from the given time."""


@dataclass
class TrainingState:
    """Everything that changes from step to step.

    A step depends on this state, on `TrainingTask` and on the step number, and on nothing else. Exact resumption relies
    on that.
    """

    model: TrainingModel
    """Weights, normalization statistics, the momentum copy and its queue."""
    optimizer: torch.optim.Optimizer
    """With the moments of each weight."""
    schedule: torch.optim.lr_scheduler.LRScheduler
    """Sets the learning rate of each step."""
    kept: NDArray[np.bool_]
    """Whether a pair is trained on [pairs]."""
    history: list[dict[str, float]]
    """The weighted losses of each step so far, in their order: objective to loss."""
    recalls: list[float] = field(default_factory=list)
    """The validation recalls so far, that before the first step first; empty without validation."""
    best: dict[str, torch.Tensor] | None = None
    """The state of the model with the highest recall after a step; None before the first measurement."""

    @property
    def next_step(self) -> int:
        """Number of the next step, from 0; equal to the number of steps that are done."""
        return len(self.history)

    def resume(self, folder: Path, identity: str, device: torch.device) -> None:
        """Continue from the state that an interrupted run of the same training saved; without a file, change nothing.

        Args:
            folder: where STATE_FILE is looked for.
            identity: digest of the data and the settings of this training.
            device: where the saved tensors are loaded.

        Raises:
            ConflictError: the file was saved by a training with another identity.
            CorruptDataError: the file is not a readable state.
        """
        saved = read_state(folder, identity, device)
        if saved:
            self.model.load_state_dict(saved["learner"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.schedule.load_state_dict(saved["schedule"])
            self.kept, self.history = saved["kept"].cpu().numpy(), saved["history"]
            self.recalls, self.best = saved.get("recalls", []), saved.get("best")

    def save(self, folder: Path, identity: str) -> None:
        """Write the state to STATE_FILE in `folder` atomically, replacing an earlier one.

        Args:
            folder: it is created if it does not exist.
            identity: digest of the data and the settings; `resume` requires the same one.
        """
        content = {
            "learner": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "kept": torch.from_numpy(self.kept),
            "history": self.history,
            "recalls": self.recalls,
            **({} if self.best is None else {"best": self.best}),
        }
        write_state(folder, identity, content)


def write_state(folder: Path, identity: str, content: Mapping[str, Any]) -> None:
    """Write a state to STATE_FILE in `folder` atomically, replacing an earlier one.

    Args:
        folder: it is created if it does not exist.
        identity: digest of the data and the settings; `read_state` requires the same one.
        content: what to save by name: tensors, numbers, texts, and lists and dictionaries of them.

    Raises:
        UnavailableError: it cannot be written, as when the disk is full. The earlier state stays.
    """
    with (
        explain_write_errors(folder / STATE_FILE),
        replace_atomically(folder / STATE_FILE) as unfinished,
        unfinished.open("wb") as stream,
    ):
        torch.save({"identity": identity, **content}, stream)
        stream.flush()
        os.fsync(stream.fileno())


def read_state(folder: Path, identity: str, device: torch.device) -> dict[str, Any] | None:
    """Return the content that `write_state` saved in `folder`, without the identity; None if there is no file.

    Args:
        folder: where STATE_FILE is looked for.
        identity: digest of the data and the settings that the state must have been saved with.
        device: where the tensors are loaded.

    Raises:
        ConflictError: the file was saved by a training with another identity.
        CorruptDataError: the file cannot be read.
    """
    file = folder / STATE_FILE
    if not file.is_file():
        return None
    try:
        content: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
    except Exception as error:
        raise CorruptDataError(f"{file}: the training state cannot be read; remove the file to start over") from error
    require_same_identity(file, content.pop("identity", None), identity)
    return content


def require_same_identity(path: Path, found: object, identity: str) -> None:
    """Raise ConflictError if the state at `path` was saved with another identity than `identity`."""
    if found != identity:
        raise ConflictError(
            f"{path}: saved by a training with other data or settings; repeat that command, or remove {path.name} to "
            "start over"
        )


def remove_state(folder: Path) -> None:
    """Remove STATE_FILE and STEPS_FILE from `folder`. Nothing happens if there are none."""
    for name in (STATE_FILE, STEPS_FILE):
        (folder / name).unlink(missing_ok=True)
