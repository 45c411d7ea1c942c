"""An encoder trained on a catalogue: the small one from nothing, or any checkpoint further.

Whatever the objectives (training/), the outcome is a checkpoint that `load` opens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from feature_repo import memory
from feature_repo.errors import VitrineError
from producers.encoders import tiny_clip, whitening
from producers.encoders.image_loader import Source
from producers.encoders.training import images as decoding
from producers.encoders.training import initial_model, language, training_state
from producers.encoders.training.alignment import ClickArrays, CoClickPairs, find_co_clicks
from producers.encoders.training.loop import run_training
from producers.encoders.training.pairs import TrainingPairs
from producers.encoders.training.process_group import open_process_group, select_device
from producers.encoders.training.recipe import Recipe
from producers.encoders.training.step import TrainingTask
from producers.encoders.training.towers import Towers, encode_pairs
from producers.encoders.training.training_model import TrainingModel
from producers.encoders.whitening import SAME_PRODUCT, fuse

SAMPLE = 2
SPREAD_OF = 20_000
"""At most so many products tell how the fused vectors of all are spread."""


@dataclass(frozen=True)
class TrainingSummary:
    """What was learnt from."""

    pairs: int
    """Products with a title and a usable picture."""
    left_out: int
    """Products without a usable picture."""
    steps: int
    loss: float
    """Mean over the last tenth of the steps, all objectives together."""
    losses: dict[str, float]
    """The same by objective."""
    kept: int
    """Pairs that a filter left in to the end."""
    resumed_at: int
    """The step at which an interrupted run was taken up, 0 for none."""
    co_clicks: int
    """Pairs of clicks of one session that were learnt from."""
    taste: bool | None
    """Whether the fused space is drawn out along what users share, or clicks too few to tell; None without clicks."""

    def __str__(self) -> str:
        by_objective = ", ".join(f"{name} {loss:.3f}" for name, loss in self.losses.items())
        lines = [
            f"learnt from {self.pairs:,} products in {self.steps:,} steps, loss {self.loss:.3f} ({by_objective}); "
            f"{self.left_out:,} products left out, without a title or a usable picture"
        ]
        if self.resumed_at:
            lines.append(f"taken up at step {self.resumed_at:,}, where an interrupted run had saved its state")
        if self.kept < self.pairs:
            lines.append(f"{self.pairs - self.kept:,} pairs left out by the filter")
        if self.co_clicks:
            lines.append(f"aligned with {self.co_clicks:,} pairs of clicks of one session")
        if self.taste is not None:
            lines.append(
                "the fused space is drawn out along what the clicks of a user have in common"
                if self.taste
                else "too few clicks or products to tell what a user's have in common: the fused space is left as it is"
            )
        return "\n".join(lines)


def train(
    titles: Sequence[str],
    pictures: Sequence[Source],
    folder: Path,
    *,
    pairs_seen: int,
    seed: int,
    progress: Callable[[str, int, int], None],
    recipe: Recipe | None = None,
    checkpoint: str | None = None,
    clicked: ClickArrays | None = None,
) -> TrainingSummary | None:
    """Train an encoder and write it as a checkpoint that `load` opens.

    Started by torchrun, the processes share the work; a run that was interrupted is taken up where its last state was
    saved, if it is called again with the same arguments, and ends as if it had never been.

    Args:
        titles: [n].
        pictures: path or bytes of each title's picture [n]; the unusable are left out and counted.
        folder: where the checkpoint goes.
        pairs_seen: how many image-text pairs to learn from, repeats included.
        seed: of the weights, the order and the crops.
        progress: told what is being done, and how much of how much is.
        recipe: how to learn; the default pays off within a minute.
        checkpoint: directory or hub name to start from, of any image-text family; the small model if not given.
        clicked: what users clicked, for what a user's clicks have in common to count for more in fused vectors, and for
            products of one session to lie close where the recipe gives that a weight.

    Returns:
        None in every process but the first.

    Raises:
        VitrineError: fewer than two usable pairs, a checkpoint that cannot be trained, the state of another training.
        UsageError: the batch does not fall into equal parts.
    """
    memory.keep_freed()
    recipe = recipe or Recipe()
    device = select_device()
    with open_process_group(device) as processes:
        recipe.micro_batch_size(processes.count)
        begun = initial_model.load_model(checkpoint, device) if checkpoint else None
        geometry = begun.geometry if begun else tiny_clip.GEOMETRY
        pixels, usable = decoding.decode_images(
            pictures, geometry, folder, processes, lambda done, total: progress("decode pictures", done, total)
        )
        kept = _enough([title for title, good in zip(titles, usable, strict=True) if good], len(titles))
        torch.manual_seed(
            seed
        )  # before the weights are drawn; while training, seed and step say all (training/pairs.py)
        begun = begun or initial_model.create_model(kept, device)
        pairs = begun.make_pairs(kept, pixels)
        clicked = _among(usable, clicked) if clicked else None
        near = _co_clicks(clicked) if clicked and recipe.align else None
        learner = _learner(begun, pairs, kept, recipe, align=recipe.align if near else 0.0)
        task = TrainingTask(
            pairs,
            begun.preprocessor,
            recipe,
            steps=max(1, pairs_seen // min(recipe.batch, len(pairs))),
            seed=seed,
            co_clicks=near,
            process_group=processes,
        )
        learnt = run_training(
            learner,
            task,
            learning_rate=recipe.learning_rate or begun.learning_rate,
            folder=folder,
            # How often the state is saved is no matter of what is learnt.
            identity=_identity(
                (replace(recipe, save_every=1), pairs_seen, seed, begun.version), kept, usable, pictures, near
            ),
            progress=lambda done, total: progress("train encoder", done, total),
        )
        if processes.is_first:
            drawn = _write(begun, learner, pairs, clicked, folder)
            decoding.remove_pixel_files(folder)
            training_state.remove_state(folder)
        processes.wait()
        if not processes.is_first:
            return None
    return TrainingSummary(
        pairs=len(kept),
        left_out=len(titles) - len(kept),
        steps=learnt.steps,
        loss=sum(learnt.losses.values()),
        losses=learnt.losses,
        kept=learnt.kept,
        resumed_at=learnt.resumed_at,
        co_clicks=len(near.first) if near else 0,
        taste=drawn,
    )


def _enough(kept: list[str], given: int) -> list[str]:
    """The titles that have a usable picture.

    Raises:
        VitrineError: they are too few to learn from.
    """
    if len(kept) < 2:
        raise VitrineError(f"{len(kept)} of {given} products have a title and a usable picture; at least 2 are needed")
    return kept


def _learner(
    begun: initial_model.InitialModel, pairs: TrainingPairs, titles: Sequence[str], recipe: Recipe, align: float
) -> TrainingModel:
    """What learns: the towers that training starts from, and the heads that the recipe asks for."""
    return TrainingModel(
        Towers(begun.model, masked=not begun.preprocessor.is_padded),
        recipe.objectives,
        pairs,
        begun.preprocessor.prepare_images(pairs, np.arange(SAMPLE)),
        vocabulary=len(begun.tokenizer),
        max_tokens=begun.max_tokens,
        start=begun.start_token,
        end=begun.end_token,
        begins=language.find_word_beginnings(begun.tokenizer, titles) if "language" in recipe.objectives else None,
        align=align,
    )


def _write(
    begun: initial_model.InitialModel,
    learner: TrainingModel,
    pairs: TrainingPairs,
    clicked: ClickArrays | None,
    folder: Path,
) -> bool | None:
    """The checkpoint: model and tokenizer, the space of fused vectors, and the captioner if one was trained.

    Those of an earlier training do not stay beside another's weights.

    Returns:
        Whether clicks told what users share, None without clicks.

    Raises:
        VitrineError: there is no room; the state of the training is still there.
    """
    try:
        language.remove_head(folder)
        begun.save(folder)
        shown = np.linspace(0, len(pairs) - 1, min(len(pairs), SPREAD_OF)).astype(np.int64)
        fused = fuse(*encode_pairs(learner.towers, pairs, begun.preprocessor, shown), SAME_PRODUCT)
        space = whitened = whitening.fit_whitening(fused)
        if whitened and clicked:
            place = np.full(len(pairs) + 1, -1)  # the last stands for what is no pair
            place[shown] = np.arange(len(shown))
            space = whitening.fit_preference_whitening(whitened, fused, clicked.users, place[clicked.product_rows])
        whitening.save_space(space, folder)
        if hasattr(learner, "language"):
            learner.language.save(folder)
    except SafetensorError as error:
        raise VitrineError(
            f"{folder}: the checkpoint cannot be written ({error}); make room and run this again, it goes on "
            "where its last state was saved"
        ) from error
    return space is not whitened if clicked else None


def _among(usable: NDArray[np.bool_], clicked: ClickArrays) -> ClickArrays:
    """The same clicks with products as rows among the usable, -1 for the others."""
    row = np.append(np.where(usable, np.cumsum(usable) - 1, -1), -1)
    return replace(clicked, product_rows=row[clicked.product_rows])


def _co_clicks(clicked: ClickArrays) -> CoClickPairs:
    """Pairs of rows that were clicked in one session.

    Raises:
        VitrineError: no two usable products were.
    """
    near = find_co_clicks(clicked)
    if not len(near.first):
        raise VitrineError("no user clicked two products with title and picture in one session: nothing to align")
    return near


def _identity(
    arguments: tuple[object, ...],
    titles: Sequence[str],
    usable: NDArray[np.bool_],
    pictures: Sequence[Source],
    near: CoClickPairs | None,
) -> str:
    """Of a training: equal where the same command would do the same."""
    digest = blake2b(repr(arguments).encode(), digest_size=12)
    for title in titles:
        digest.update(title.encode() + b"\0")
    digest.update(usable.tobytes())
    for picture in pictures:
        digest.update(picture if isinstance(picture, bytes) else str(picture).encode())
    if near:
        digest.update(near.first.tobytes() + near.second.tobytes())
    return digest.hexdigest()
