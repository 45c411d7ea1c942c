"""Train a new text encoder to match the original one, on pictures with sentences in both languages.

    {"file_name": "p1.jpg", "text": "红色裙子，波点", "original_text": "a red dress, dots"}     a line of metadata.jsonl

A tenth of the sentences is replaced by the empty one in both languages, because guidance compares with it.
"""

import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from feature_repo.errors import CorruptDataError, InvalidInputError
from producers.encoders.training.process_group import open_process_group, select_device
from producers.evaluation.image_folder import METADATA, read_image_folder
from producers.text_to_image.checkpoint import compute_model_version, hash_frozen_parts, open_pipeline, save_pipeline
from producers.text_to_image.match import MatchingBatch, MatchingModel, require_same_unet
from producers.text_to_image.pairs import LatentPairs, PicturePairs
from producers.text_to_image.sentences import TokenizedSentences, describe_cut, enable_gradients, tokenize_sentences
from producers.text_to_image.train import identify_training, prepare_latents
from producers.text_to_image.training_loop import (
    TrainingContext,
    TrainingResult,
    TrainingSettings,
    prepare_state_folder,
    run_training,
)

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

_log = logging.getLogger(__name__)
DROPPED_SHARE = 0.1
"""Share of the sentences that are replaced by the empty one."""
ORIGINAL_TEXT = "original_text"
"""Key of a line with the sentence in the language of the original."""


@dataclass(frozen=True)
class ParallelPairs:
    """Latents of pictures with tokenized sentences in both languages."""

    new: LatentPairs
    """With the sentences of the new encoder."""
    original: TokenizedSentences
    """The sentences of the original, in the order of `new`."""
    original_empty: TokenizedSentences


@dataclass(frozen=True)
class MatchSummary:
    """What a training did."""

    training: TrainingResult
    pictures: int
    refused: Counter[str]
    """Unusable pictures by reason, as far as this run met them."""
    cut: tuple[str, ...]
    """One line for each language that had sentences cut."""

    def __str__(self) -> str:
        """Return one line, and one more for each kind of loss of data."""
        result = self.training
        resumed = f" ({result.resumed_at:,} of them before it was resumed)" if result.resumed_at else ""
        skipped = f", {result.skipped:,} skipped for a loss that is no number" if result.skipped else ""
        line = f"{self.pictures:,} pictures, {result.steps:,} steps{resumed}{skipped}, relative error {result.loss:.4f}"
        lines = [line, *(f"  {count:,} pictures left out: {reason}" for reason, count in self.refused.items())]
        return "\n".join([*lines, *(f"  {one}" for one in self.cut)])


def read_parallel_pairs(folder: Path, original_key: str = ORIGINAL_TEXT) -> tuple[PicturePairs, dict[Path, str]]:
    """Read the lines of a folder that have a sentence in both languages.

    Args:
        folder: with metadata.jsonl; of several texts of a picture the first counts.
        original_key: the key that holds the sentence in the language of the original.

    Returns:
        The pictures with their new sentences, and the original's sentence of each picture.

    Raises:
        NotFoundError: there is no metadata.jsonl.
        InvalidInputError: a line is malformed, or none has both sentences.
    """
    found = read_image_folder(folder)
    pictures = [picture for picture in found if picture.texts and picture.other.get(original_key)]
    if not pictures:
        raise InvalidInputError(
            f'{folder / METADATA}: no line has both sentences; expected "text" and "{original_key}" in each'
        )
    if wrong := next((one for one in pictures if not _is_sentence(one.other[original_key])), None):
        raise InvalidInputError(f"{folder / METADATA}: {original_key} of {wrong.file_name} is no text, or blank")
    if left_out := len(found) - len(pictures):
        _log.warning("%s: %s of %s pictures lack one of the sentences and are left out", folder, left_out, len(found))
    pairs = PicturePairs(
        [picture.path for picture in pictures], [picture.texts[0] for picture in pictures], np.arange(len(pictures))
    )
    return pairs, {picture.path: picture.other[original_key] for picture in pictures}


def _is_sentence(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def match_checkpoint(
    model: Path,
    original: Path,
    data: Path,
    output: Path,
    settings: TrainingSettings,
    *,
    original_key: str = ORIGINAL_TEXT,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> MatchSummary:
    """Train the text encoder of a checkpoint and save it. An interrupted run continues where it was saved.

    Args:
        model: checkpoint after the swap.
        original: checkpoint before it.
        data: pictures with sentences in both languages.
        output: a new folder for the trained checkpoint.
        settings: of the training.
        original_key: as for `read_parallel_pairs`.
        progress: called with the name of a stage, what is done and the total.

    Raises:
        ConflictError: `output` has content, or OUTPUT.training is of another training.
        InvalidInputError: the UNets differ, no line has both sentences, no picture is usable, or the loss was not
            finite in ten steps in a row.
    """
    state, device = prepare_state_folder(output), select_device()
    pictures, originals = read_parallel_pairs(data, original_key)
    teacher, learner = open_pipeline(original, device=device), open_pipeline(model, device=device)
    require_same_unet(teacher, learner, str(original))
    parts = [identify_training(learner, pictures, settings, DROPPED_SHARE), compute_model_version(teacher)]
    parts += [originals[path] for path in pictures.paths]
    identity = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    with open_process_group(device) as group:
        settings.micro_batch(group.count)  # before long work
        kept, latents, refused = prepare_latents(learner, pictures, state, group, identity, progress)
        original_texts = [originals[pictures.paths[row]] for row in latents.picture_of.tolist()]
        tokenizer = teacher.tokenizer
        pairs = ParallelPairs(
            latents, tokenize_sentences(tokenizer, original_texts), tokenize_sentences(tokenizer, [""])
        )
        result = train_to_match(
            teacher,
            learner,
            pairs,
            settings,
            TrainingContext(
                group, device, state, identity, lambda done, total, _: progress("match the original", done, total)
            ),
        )
        if group.is_first:
            save_pipeline(learner, output)
            shutil.rmtree(state)
        group.wait()
    cut = (describe_cut(kept.texts, latents.tokens), describe_cut(original_texts, pairs.original))
    return MatchSummary(result, len(latents), refused, tuple(filter(None, cut)))


def train_to_match(
    original: "StableDiffusionPipeline",
    swapped: "StableDiffusionPipeline",
    pairs: ParallelPairs,
    settings: TrainingSettings,
    context: TrainingContext,
) -> TrainingResult:
    """Train the text encoder of `swapped`, in place. UNet and VAE stay bit for bit, which their hashes confirm.

    Args:
        original: the pipeline before the swap.
        swapped: the pipeline after it, on the same device.
        pairs: latents with sentences in both languages.
        settings: of the training.
        context: processes, device of both pipelines and folder.

    Raises:
        InvalidInputError: the loss was not finite in ten steps in a row.
        ConflictError: the folder has the state of another training.
        CorruptDataError: UNet or VAE changed, which they never should.
    """
    before = hash_frozen_parts(swapped)
    alphas = swapped.scheduler.alphas_cumprod.float()

    def make_loss(model: Any, rows: NDArray[np.int64], generator: torch.Generator) -> torch.Tensor:
        loss: torch.Tensor = model(make_matching_batch(pairs, rows, generator, alphas=alphas, device=context.device))
        return loss

    enable_gradients(swapped.text_encoder)
    result = run_training(
        MatchingModel(original, swapped),
        len(pairs.new),
        make_loss,
        settings,
        context,
    )
    swapped.text_encoder.requires_grad_(False).eval()
    if hash_frozen_parts(swapped) != before:
        raise CorruptDataError("UNet or VAE changed in the training; nothing was saved, report this error")
    return result


def make_matching_batch(
    pairs: ParallelPairs,
    rows: NDArray[np.int64],
    generator: torch.Generator,
    *,
    alphas: torch.Tensor,
    device: torch.device,
) -> MatchingBatch:
    """Return the batch of some sentences. Everything random comes from the generator, so it repeats exactly.

    Args:
        pairs: latents and sentences.
        rows: sentences [n].
        generator: of the CPU; it is advanced.
        alphas: the signal share of each training timestep, the squared factor of the latents.
        device: where the batch is put.
    """
    latents = pairs.new.draw_latents(rows, generator)
    noise = torch.randn(latents.shape, generator=generator)
    times = torch.randint(len(alphas), (len(rows),), generator=generator)
    signal = alphas[times].view(-1, 1, 1, 1)
    noisy = signal.sqrt() * latents + (1 - signal).sqrt() * noise
    dropped = (torch.rand(len(rows), generator=generator) < DROPPED_SHARE)[:, None]
    index = torch.from_numpy(rows)
    columns = [
        torch.where(dropped, getattr(empty, name), getattr(tokens, name)[index])
        for tokens, empty in ((pairs.original, pairs.original_empty), (pairs.new.tokens, pairs.new.empty))
        for name in ("input_ids", "attention_mask")
    ]
    return MatchingBatch(*(part.to(device) for part in (noisy, times, *columns)))
