"""A training's state on disk: written whole or not at all, and taken up only by the very same training.

Order, crops and masks follow from seed and step (pairs.py), so weights, the optimizer's moments, the queue, which pairs
are kept and the losses so far are all there is to save. Read by torch's weights-only reader: it runs no code.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from feature_repo.errors import VitrineError

FILE = "training.pt"


def save(folder: Path, identity: str, state: Mapping[str, Any]) -> None:
    """Put the state of the training `identity` in the place of an earlier one."""
    folder.mkdir(parents=True, exist_ok=True)
    half = folder / f"{FILE}.half"
    with half.open("wb") as stream:
        torch.save({"identity": identity, **state}, stream)
        stream.flush()
        os.fsync(stream.fileno())
    half.replace(folder / FILE)


def read(folder: Path, identity: str, device: torch.device) -> dict[str, Any] | None:
    """The state that the training `identity` left, or None.

    Raises:
        VitrineError: another training left its state there, or it cannot be read.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        found: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
    except Exception as error:
        raise VitrineError(f"{file}: the state of a training cannot be read; remove it to start anew") from error
    if found.pop("identity", None) != identity:
        raise VitrineError(
            f"{file}: left by a training of other data or settings; repeat that command, or remove the file to start "
            "anew"
        )
    return found


def remove(folder: Path) -> None:
    """A finished training leaves no state."""
    (folder / FILE).unlink(missing_ok=True)
