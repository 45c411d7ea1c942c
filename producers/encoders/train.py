"""Train an encoder on a catalogue: the default model from scratch, or any image-text checkpoint further.

Whatever the objectives (see training/), the result is a checkpoint that `load` opens.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import compress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from feature_repo import memory
from feature_repo.errors import InvalidInputError, VitrineError
from feature_repo.fusion import SAME_PRODUCT, fuse
from feature_repo.images.decoding import Source
from producers.encoders import tiny_clip, whitening
from producers.encoders.training import images as decoding
from producers.encoders.training import initial_model, language, training_state
from producers.encoders.training.alignment import ClickArrays, CoClickPairs, find_co_clicks
from producers.encoders.training.loop import LoopResult, run_training
from producers.encoders.training.pairs import TrainingPairs
from producers.encoders.training.process_group import open_process_group, select_device
from producers.encoders.training.recipe import Recipe
from producers.encoders.training.step import TrainingTask
from producers.encoders.training.time_budget import FINE_TUNING_PASSES, choose_pairs_seen, choose_steps
from producers.encoders.training.towers import Towers, encode_pairs
from producers.encoders.training.training_model import TrainingModel
from producers.encoders.training.validation import Validation, hold_out_designs

logger = logging.getLogger(__name__)

SMALL_BATCH = 128
"""Number of pairs that are compared at a time, below which fine-tuning on a long schedule usually loses."""
SAMPLE_SIZE = 2
"""Products encoded before training, to learn the shapes of the towers' outputs."""
MAX_WHITENING_PRODUCTS = 20_000
"""Largest number of products that the whitening of fused vectors is computed from."""


@dataclass(frozen=True)
class TrainingSummary:
    """What one training learned from, and how it ended."""

    pairs: int
    """Products with a title and a usable image."""
    left_out: int
    """Products that were passed, but have no title or no usable image."""
    steps: int
    """Steps of the whole training, those before an interruption included."""
    loss: float
    """Mean over the last tenth of the steps, summed over the objectives."""
    losses: dict[str, float]
    """The same mean by the name of the objective."""
    kept: int
    """Of `pairs`, those that were trained on at the end: neither removed by the recipe's filter nor `validated`."""
    resumed_at: int
    """Step at which an interrupted run was continued; 0 if this run started from the beginning."""
    co_clicks: int
    """Pairs of clicks of one session in the training; 0 if no clicks were given or the alignment has weight 0."""
    has_preferences: bool | None
    """Whether the fused space has preference whitening (whitening.py). False if there were too few clicks or products,
    None if no clicks were given."""
    validated: int = 0
    """Of `pairs`, those that were not trained on but measured the recall; 0 without validation."""
    recalls: tuple[float, ...] = ()
    """The recalls of a validation, that before the first step first; empty without validation."""

    def __str__(self) -> str:
        by_objective = ", ".join(f"{name} {loss:.3f}" for name, loss in self.losses.items())
        lines = [
            f"trained on {self.pairs:,} products in {self.steps:,} steps, loss {self.loss:.3f} ({by_objective}); "
            f"{self.left_out:,} products left out, without a title or a usable image"
        ]
        if self.resumed_at:
            lines.append(f"continued at step {self.resumed_at:,}, the last saved state of an interrupted run")
        removed = self.pairs - self.validated - self.kept
        if removed:
            lines.append(f"{removed:,} pairs removed by the filter")
        if self.recalls:
            lines.append(
                f"recall of {self.validated:,} validation products: {self.recalls[0]:.3f} before, "
                f"{max(self.recalls[1:]):.3f} after"
            )
        if self.co_clicks:
            lines.append(f"aligned with {self.co_clicks:,} pairs of clicks of one session")
        if self.has_preferences is not None:
            lines.append(whitening.describe_preferences(self.has_preferences))
        return "\n".join(lines)


def train(
    titles: Sequence[str],
    images: Sequence[Source],
    folder: Path,
    *,
    pairs_seen: int | None,
    seed: int,
    progress: Callable[[str, int, int], None],
    minutes: float | None = None,
    recipe: Recipe | None = None,
    checkpoint: str | None = None,
    clicked: ClickArrays | None = None,
    designs: Sequence[object] | None = None,
    is_seen: Sequence[bool] | None = None,
) -> TrainingSummary | None:
    """Train an encoder and write it as a checkpoint that `load` opens.

    A checkpoint that is trained further is validated on designs that are held out (training/validation.py): the
    training stops when their recall no longer rises, the weights with the highest recall are written, and nothing is
    written if all are worse than the checkpoint was.

    Processes started by torchrun share the work. A run that was interrupted and is called again with the same arguments
    continues from its last saved state, and ends with the same weights as an uninterrupted run. The saved state is
    removed when the checkpoint is written.

    Args:
        titles: title of each product [n]; repeats are allowed.
        images: path or bytes of each title's image [n]; products with an unusable image are left out and counted.
        folder: where the checkpoint goes; created if it does not exist. A checkpoint in it is replaced.
        pairs_seen: how many image-text pairs to learn from, repeats included. It is rounded down to whole batches, but
            one step is always done. None chooses it by the number of products (`time_budget.choose_pairs_seen`).
        seed: of the weights, the order of the pairs and the crops.
        progress: called with what is being done ("decode images", then "train encoder"), how much of it is done, and
            how much there is: images, then steps.
        minutes: the time that the training may take, decoding included; the number of steps is then chosen by measuring
            some of them, and `pairs_seen` does not count. None for any time.
        recipe: objectives and rates; None takes the default recipe, which is made for a minute of training.
        checkpoint: directory or hub name of an image-text checkpoint to start from; None starts the default model from
            random weights.
        clicked: clicks for the preference whitening of fused vectors, and for the alignment objective if the recipe
            gives it a weight; their `product_rows` are positions in `titles`, from 0. None trains without clicks.

        designs: what each title is a picture of [n], so that a design is held out whole for the validation; None: equal
            titles are one design.
        is_seen: whether the checkpoint was trained on each product before [n]; None: on none. The validation prefers
            others.

    Returns:
        A summary in the first process, None in every other.

    Raises:
        InvalidInputError: there are fewer than two usable pairs, the checkpoint has no image tower or cannot be
            trained, or the alignment has a weight and no user clicked two products in one session.
        ConflictError: the folder holds the unfinished state of a training with other arguments.
        UsageError: the batch does not divide into equal parts for the processes and their micro-batches.
        VitrineError: the checkpoint cannot be read or written, or the recall of the validation fell.
    """
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    memory.keep_freed()
    recipe = recipe or Recipe()
    device = select_device()
    with open_process_group(device) as processes:
        recipe.micro_batch_size(processes.count)
        initial = initial_model.load_model(checkpoint, device) if checkpoint else None
        geometry = initial.geometry if initial else tiny_clip.GEOMETRY
        pixels, usable = decoding.decode_images(
            images, geometry, folder, processes, lambda done, total: progress("decode images", done, total)
        )
        kept = list(compress(titles, usable))
        if len(kept) < 2:
            raise InvalidInputError(
                f"{len(kept)} of {len(titles)} products have a title and a usable image; at least 2 are needed"
            )
        # Draws the weights. During training everything random depends on seed and step (training/pairs.py).
        torch.manual_seed(seed)
        initial = initial or initial_model.create_model(kept, device)
        pairs = initial.make_pairs(kept, pixels)
        clicked = _renumber_products(usable, clicked) if clicked else None
        co_clicks = _find_co_clicks(clicked) if clicked and recipe.align else None
        model = _build_model(initial, pairs, kept, recipe, align=recipe.align if co_clicks else 0.0)
        pairs_seen = choose_pairs_seen(pairs_seen, len(pairs), is_fine_tuning=checkpoint is not None)
        learning_rate = recipe.learning_rate or initial.learning_rate
        task = TrainingTask(
            pairs,
            initial.preprocessor,
            recipe,
            steps=max(1, pairs_seen // min(recipe.batch, len(pairs))),
            seed=seed,
            co_clicks=co_clicks,
            process_group=processes,
            validation=_hold_out(designs or titles, is_seen, usable) if checkpoint else None,
        )
        if deadline is not None:
            left = deadline - time.monotonic()
            task = replace(task, steps=choose_steps(model, task, learning_rate, seconds=left, folder=folder))
        if checkpoint:
            _warn_of_settings(task)
        result = run_training(
            model,
            task,
            learning_rate=learning_rate,
            folder=folder,
            # How often the state is saved does not change what is learned.
            identity=_hash_arguments(
                (replace(recipe, save_every=1), minutes or pairs_seen, seed, initial.version),
                kept,
                usable,
                images,
                co_clicks,
            ),
            progress=lambda done, total: progress("train encoder", done, total),
        )
        _refuse_worse(result, task, folder)
        if processes.is_first:
            has_preferences = _write_checkpoint(initial, model, pairs, clicked, folder)
            decoding.remove_pixel_files(folder)
            training_state.remove_state(folder)
        processes.wait()
        if not processes.is_first:
            return None
    return TrainingSummary(
        pairs=len(kept),
        left_out=len(titles) - len(kept),
        steps=result.steps,
        loss=sum(result.losses.values()),
        losses=result.losses,
        kept=result.kept,
        resumed_at=result.resumed_at,
        co_clicks=len(co_clicks.first) if co_clicks else 0,
        has_preferences=has_preferences,
        validated=len(task.validation.rows) if task.validation else 0,
        recalls=result.recalls,
    )


def _hold_out(
    designs: Sequence[object], is_seen: Sequence[bool] | None, usable: NDArray[np.bool_]
) -> Validation | None:
    """Return the usable pairs that are held out for validation; None if there are too few."""
    seen = is_seen or [False] * len(designs)
    return hold_out_designs(list(compress(designs, usable)), list(compress(seen, usable)))


def _warn_of_settings(task: TrainingTask) -> None:
    """Warn of settings by which fine-tuning usually loses recall, and of a training that is not validated."""
    if not task.process_group.is_first:
        return
    passes = task.steps * task.batch_size / len(task.pairs)
    if task.micro_batch_size < SMALL_BATCH and passes > FINE_TUNING_PASSES:
        logger.warning(
            "%d pairs are compared at a time, over %.1f passes: small batches on a long schedule usually lower the "
            "recall of a checkpoint; raise --batch to %d or more, or lower --pairs or --minutes",
            task.micro_batch_size,
            passes,
            SMALL_BATCH,
        )
    if task.validation is None:
        logger.warning(
            "%d products are too few to hold any out: whether the checkpoint gets better or worse is not measured",
            len(task.pairs),
        )


def _refuse_worse(result: LoopResult, task: TrainingTask, folder: Path) -> None:
    """Raise VitrineError if the validation recall is lower than before the training; remove its files then."""
    if not task.validation or max(result.recalls[1:]) >= result.recalls[0]:
        return
    if task.process_group.is_first:
        decoding.remove_pixel_files(folder)
        training_state.remove_state(folder)
    raise VitrineError(
        f"{folder}: nothing was saved, because the checkpoint got worse: recall of {len(task.validation.rows):,} "
        f"validation products {result.recalls[0]:.3f} before and {max(result.recalls[1:]):.3f} after the training; "
        "use a larger --batch, a lower --learning-rate or fewer --pairs"
    )


def _build_model(
    initial: initial_model.InitialModel, pairs: TrainingPairs, titles: Sequence[str], recipe: Recipe, align: float
) -> TrainingModel:
    """Return the towers that training starts from, with the heads that the recipe needs."""
    return TrainingModel(
        Towers(initial.model, masked=not initial.preprocessor.is_padded),
        recipe.objectives,
        pairs,
        initial.preprocessor.prepare_images(pairs, np.arange(SAMPLE_SIZE)),
        vocabulary=len(initial.tokenizer),
        max_tokens=initial.max_tokens,
        start=initial.start_token,
        end=initial.end_token,
        begins=language.find_word_beginnings(initial.tokenizer, titles) if "language" in recipe.objectives else None,
        align=align,
    )


def _write_checkpoint(
    initial: initial_model.InitialModel,
    model: TrainingModel,
    pairs: TrainingPairs,
    clicked: ClickArrays | None,
    folder: Path,
) -> bool | None:
    """Write model and tokenizer, the space of fused vectors, and the language head if one was trained.

    Space and head of an earlier training in the folder are removed.

    Returns:
        Whether the space has preference whitening; None without clicks.

    Raises:
        VitrineError: a file cannot be written, as when the disk is full. The saved state of the training stays.
    """
    try:
        language.remove_head(folder)
        initial.save(folder)
        sample = np.linspace(0, len(pairs) - 1, min(len(pairs), MAX_WHITENING_PRODUCTS)).astype(np.int64)
        fused = fuse(*encode_pairs(model.towers, pairs, initial.preprocessor, sample), SAME_PRODUCT)
        row_index = np.full(len(pairs) + 1, -1)  # the last entry is for clicks on a product without a pair
        row_index[sample] = np.arange(len(sample))
        clicks = (clicked.users, row_index[clicked.product_rows]) if clicked else None
        space, has_preferences = whitening.fit_space(fused, clicks)
        whitening.save_space(space, folder)
        if hasattr(model, "language"):
            model.language.save(folder)
    except SafetensorError as error:
        raise VitrineError(
            f"{folder}: the checkpoint cannot be written ({error}); free disk space and run this again, it continues "
            "from its last saved state"
        ) from error
    return has_preferences


def _renumber_products(usable: NDArray[np.bool_], clicked: ClickArrays) -> ClickArrays:
    """Return the clicks with product numbers that count usable products only; -1 for unusable ones."""
    row = np.append(np.where(usable, np.cumsum(usable) - 1, -1), -1)
    return replace(clicked, product_rows=row[clicked.product_rows])


def _find_co_clicks(clicked: ClickArrays) -> CoClickPairs:
    """Return pairs of usable products that one user clicked in one session.

    Raises:
        InvalidInputError: there are none.
    """
    co_clicks = find_co_clicks(clicked)
    if not len(co_clicks.first):
        raise InvalidInputError(
            "no user clicked two products with title and image in one session: there is nothing to align with; train "
            "without --align-weight"
        )
    return co_clicks


def _hash_arguments(
    arguments: tuple[object, ...],
    titles: Sequence[str],
    usable: NDArray[np.bool_],
    images: Sequence[Source],
    co_clicks: CoClickPairs | None,
) -> str:
    """Return 24 hex digits of everything that the result of a training depends on, which identify the training."""
    digest = blake2b(repr(arguments).encode(), digest_size=12)
    for title in titles:
        digest.update(title.encode() + b"\0")
    digest.update(usable.tobytes())
    for image in images:
        digest.update(image if isinstance(image, bytes) else str(image).encode())
    if co_clicks:
        digest.update(co_clicks.first.tobytes() + co_clicks.second.tobytes())
    return digest.hexdigest()
