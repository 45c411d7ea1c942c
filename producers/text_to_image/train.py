"""Train the text encoder of a checkpoint by the denoising loss on pairs; UNet and VAE stay as they are.

OUTPUT.training/latents.npy    float16 [n, 2 * channels, height, width] of n pictures, computed once
OUTPUT.training/usable-R.npy   bool [n], the usable pictures among those that process R encoded
OUTPUT.training/latents.json   what they were computed from
OUTPUT.training/training.pt    the state of the training
OUTPUT/                        the checkpoint, when the training is complete
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from feature_repo.errors import CorruptDataError
from feature_repo.files.array_file import create_array_file
from feature_repo.files.atomic_write import replace_atomically
from feature_repo.files.json_text import parse_json
from producers.encoders.training.process_group import ProcessGroup, open_process_group, select_device
from producers.text_to_image.checkpoint import compute_model_version, hash_frozen_parts, open_pipeline, save_pipeline
from producers.text_to_image.denoising import DenoisingModel, make_batch
from producers.text_to_image.generate import default_side
from producers.text_to_image.pairs import (
    LatentPairs,
    PicturePairs,
    decode_pictures,
    encode_latents,
    make_latent_pairs,
    read_pairs,
)
from producers.text_to_image.sentences import describe_cut, enable_gradients
from producers.text_to_image.training_loop import (
    TrainingContext,
    TrainingResult,
    TrainingSettings,
    prepare_state_folder,
    run_training,
)

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


@dataclass(frozen=True)
class TextTrainingSummary:
    """What the training of a text encoder did."""

    sentences: int
    pictures: int
    refused: Counter[str]
    """Pictures that could not be used, by reason, as far as this run met them."""
    cut: str | None
    """A line about sentences that were cut."""
    training: TrainingResult

    def __str__(self) -> str:
        """Return one line, and one more for each kind of loss of data."""
        result = self.training
        line = (
            f"{self.sentences:,} sentences of {self.pictures:,} pictures, {result.steps:,} steps "
            f"({result.resumed_at:,} of an interrupted run, {result.skipped:,} skipped for a loss that is not finite), "
            f"loss {result.loss:.4f}"
        )
        lines = [line, *(f"  {count:,} pictures left out: {reason}" for reason, count in self.refused.items())]
        return "\n".join(lines + ([f"  {self.cut}"] if self.cut else []))


def train_text_encoder(
    model: Path,
    data: Path,
    output: Path,
    settings: TrainingSettings,
    *,
    caption_dropout: float = 0.1,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> TextTrainingSummary:
    """Train the text encoder of a checkpoint, and save the checkpoint with it. An interrupted run continues.

    All weights of the text encoder are trained, those of its projection included if it has one. Pictures are resized to
    the size that the model was trained on.

    Args:
        model: folder of the checkpoint.
        data: an image folder whose metadata.jsonl has `text`.
        output: a new folder.
        settings: of the training.
        caption_dropout: probability that a sentence is replaced by the empty one, which guidance needs.
        progress: called with the name of a stage, what is done and the total.

    Raises:
        NotFoundError: a folder does not exist.
        ConflictError: `output` has content, or OUTPUT.training is of another training.
        InvalidInputError: no picture can be used, or the loss is no number for ten steps in a row.
        CorruptDataError: UNet or VAE changed, which they never should; nothing is saved then.
    """
    state, device = prepare_state_folder(output), select_device()
    pipeline = open_pipeline(model, device=device)
    before = hash_frozen_parts(pipeline)
    pairs = read_pairs(data)
    identity = identify_training(pipeline, pairs, settings, caption_dropout)
    with open_process_group(device) as group:
        settings.micro_batch(group.count)  # before long work
        pairs, latents, refused = prepare_latents(pipeline, pairs, state, group, identity, progress)
        enable_gradients(pipeline.text_encoder)
        timesteps = int(pipeline.scheduler.config.num_train_timesteps)
        result = run_training(
            DenoisingModel(pipeline).to(device),
            len(latents),
            lambda forward, rows, generator: forward(
                make_batch(
                    latents, rows, generator, timesteps=timesteps, caption_dropout=caption_dropout, device=device
                )
            ),
            settings,
            TrainingContext(
                group, device, state, identity, lambda done, total, _: progress("train text encoder", done, total)
            ),
        )
        pipeline.text_encoder.requires_grad_(False).eval()
        if hash_frozen_parts(pipeline) != before:
            raise CorruptDataError(
                f"{model}: UNet or VAE changed in the training; nothing was saved, report this error"
            )
        if group.is_first:
            save_pipeline(pipeline, output)
            shutil.rmtree(state)
        group.wait()
    pictures = len(np.unique(latents.picture_of))
    return TextTrainingSummary(len(latents), pictures, refused, describe_cut(pairs.texts, latents.tokens), result)


def identify_training(
    pipeline: "StableDiffusionPipeline", pairs: PicturePairs, settings: TrainingSettings, caption_dropout: float
) -> str:
    """Return the SHA-256 of model, pairs and settings. Of the pictures, path, size and time of change count."""
    files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in pairs.paths if path.is_file()]
    settings_text = {name: value for name, value in asdict(settings).items() if name != "save_every"}
    parts = [compute_model_version(pipeline), files, list(pairs.texts), settings_text, caption_dropout]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _read_note(file: Path) -> object:
    """Return what latents were computed from; None if there are none, or the file is damaged."""
    try:
        return parse_json(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def _remove_latents(state: Path, group: ProcessGroup) -> None:
    """Remove what `prepare_latents` wrote, once all processes have read it, and the folder if nothing else is in it."""
    group.wait()
    if group.is_first:
        for name in ("latents.json", "latents.npy", *(f"usable-{rank}.npy" for rank in range(group.count))):
            (state / name).unlink(missing_ok=True)
        with suppress(OSError):  # it holds the state of a training
            state.rmdir()


def prepare_latents(
    pipeline: "StableDiffusionPipeline",
    pairs: PicturePairs,
    state: Path,
    group: ProcessGroup,
    identity: str,
    progress: Callable[[str, int, int], None],
) -> tuple[PicturePairs, LatentPairs, Counter[str]]:
    """Return the pairs of usable pictures, their latents, which an interrupted run may have computed, and the refused.

    Each process encodes its share of the pictures into one file that all of them map. If no picture is usable, nothing
    that was written for it is left.

    Raises:
        InvalidInputError: no picture is usable.
    """
    file, note = state / "latents.npy", state / "latents.json"
    refused: Counter[str] = Counter()
    state.mkdir(parents=True, exist_ok=True)
    wanted = {"identity": identity, "processes": group.count}
    if _read_note(note) != wanted:
        group.wait()
        side = default_side(pipeline)
        if group.is_first:
            config = pipeline.vae.config
            cells = side // int(pipeline.vae_scale_factor)
            shape = (len(pairs.paths), 2 * config.latent_channels, cells, cells)
            create_array_file(file, np.float16, shape).flush()
        group.wait()
        moments = np.load(file, mmap_mode="r+")
        usable = np.zeros(len(pairs.paths), bool)
        for rows, pixels, reasons in decode_pictures(pairs.paths, side, group.rank, group.count):
            if len(rows):
                moments[rows] = encode_latents(pipeline.vae, pixels)
            usable[rows] = True
            refused.update(reasons)
            progress("encode pictures", int(usable.sum()) + refused.total(), -(-len(pairs.paths) // group.count))
        moments.flush()
        np.save(state / f"usable-{group.rank}.npy", usable)
        group.wait()
        if group.is_first:
            with replace_atomically(note) as unfinished:
                unfinished.write_text(json.dumps(wanted))
        group.wait()
    usable = np.any([np.load(state / f"usable-{rank}.npy") for rank in range(group.count)], axis=0)
    if not usable.any():
        _remove_latents(state, group)
    kept = pairs.keep_usable(usable)
    return kept, make_latent_pairs(pipeline, kept, np.load(file, mmap_mode="r")), refused
