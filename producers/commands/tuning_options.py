"""The options of `produce encoder --task`, checked together."""

import typer

from feature_repo.errors import UsageError
from producers.commands.tower_options import find_given

TASKS = ("matching", "selection")
OTHER_TRAININGS = {
    "objectives": "--objectives",
    "keep": "--filter",
    "crop": "--crop",
    "jitter": "--jitter",
    "batch": "--batch",
    "accumulate": "--accumulate",
    "learning_rate": "--learning-rate",
    "layer_decay": "--layer-decay",
    "precision": "--precision",
    "save_every": "--save-every",
    "align_weight": "--align-weight",
    "held_out": "--hold-out",
    "towers": "--towers",
    "image_tower": "--image-tower",
    "text_tower": "--text-tower",
    "head": "--head",
    "dim": "--dim",
    "lock_image": "--unlock-image",
    "lock_text": "--unlock-text",
    "unlock_last": "--unlock-last",
}
"""Options of trainings from scratch, of whole checkpoints and of new heads, which a tuning has no use for."""


def check_tuning(context: typer.Context, task: str | None, checkpoint: str | None) -> None:
    """Refuse options that do not go together with --task.

    Raises:
        UsageError: there is no such task, no encoder to tune, or an option of another training.
    """
    given = find_given(context)
    if task is None:
        raise UsageError("--tag-labels measures what a tuning changes; give --task matching or selection")
    if task not in TASKS:
        raise UsageError(f"--task is {task!r}; expected {' or '.join(TASKS)}")
    if checkpoint is None:
        raise UsageError("--task tunes an encoder; name it by --from")
    for name, option in OTHER_TRAININGS.items():
        if name in given:
            raise UsageError(f"{option} is for other trainings; --task trains the heads of an encoder: leave it out")


def parse_pairs(pairs: str | None) -> int | None:
    """Return the number of image-text pairs to learn from; None if none is given.

    Raises:
        UsageError: it is no number above 0.
    """
    if pairs is None:
        return None
    if not pairs.isdecimal() or int(pairs) < 1:
        raise UsageError(f"--pairs is {pairs!r}; expected a number of pairs, at least 1; a file of labels needs --task")
    return int(pairs)
