"""Train a small text-to-image model from random weights: VAE, text encoder, then text encoder and UNet together.

OUTPUT.training/autoencoder/training.pt   the state of the first stage
OUTPUT.training/vae/                      the trained VAE
OUTPUT.training/contrastive/training.pt   the state of the second stage
OUTPUT.training/text_encoder/             the text encoder that tells pictures apart
OUTPUT.training/denoising/training.pt     the state of the third stage
OUTPUT/                                   the checkpoint, when all are complete
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from feature_repo.files.atomic_write import replace_atomically
from producers.encoders.checkpoint_files import explain_write_errors
from producers.encoders.training.process_group import ProcessGroup, open_process_group, select_device
from producers.encoders.training.training_state import require_same_identity
from producers.text_to_image.autoencoder import train_autoencoder
from producers.text_to_image.checkpoint import compute_model_version, open_pipeline, save_pipeline
from producers.text_to_image.denoising import DenoisingModel, make_batch
from producers.text_to_image.generate import default_side
from producers.text_to_image.initial_model import ModelSizes, build_pipeline
from producers.text_to_image.pairs import (
    LatentPairs,
    PicturePairs,
    decode_pictures,
    encode_latents,
    make_latent_pairs,
    read_pairs,
)
from producers.text_to_image.sentences import describe_cut
from producers.text_to_image.text_pretraining import train_contrastively
from producers.text_to_image.training_loop import (
    TrainingContext,
    TrainingResult,
    TrainingSettings,
    prepare_state_folder,
    run_training,
)

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

CAPTION_DROPOUT = 0.1
"""Share of the sentences that are replaced by the empty one."""
IDENTITY_FILE = "identity.txt"
"""In the folder of a part whose stage is complete: the digest of the training."""
SNR_LIMIT = 5.0
"""Largest signal-to-noise ratio that weighs a timestep, as in Min-SNR."""


@dataclass(frozen=True)
class PretrainingRecipe:
    """Sizes and settings of the three stages."""

    sizes: ModelSizes = field(default_factory=ModelSizes)
    autoencoder: TrainingSettings = field(
        default_factory=lambda: TrainingSettings(steps=2000, batch=32, learning_rate=4e-3, weight_decay=0.0)
    )
    contrastive: TrainingSettings = field(
        default_factory=lambda: TrainingSettings(steps=600, batch=192, learning_rate=2e-3, weight_decay=0.05)
    )
    denoising: TrainingSettings = field(
        default_factory=lambda: TrainingSettings(steps=2400, batch=64, learning_rate=1e-3, ema_decay=0.998)
    )


@dataclass(frozen=True)
class PretrainingSummary:
    """What a training from random weights did."""

    pictures: int
    refused: Counter[str]
    """Pictures that could not be used, by reason."""
    cut: str | None
    """A line about sentences that were cut."""
    denoising: TrainingResult

    def __str__(self) -> str:
        """Return one line, and one more for each kind of loss of data."""
        result = self.denoising
        skipped = f", {result.skipped:,} skipped" if result.skipped else ""
        line = f"{self.pictures:,} pictures, {result.steps:,} steps{skipped}, loss {result.loss:.4f}"
        lines = [line, *(f"  {count:,} pictures left out: {reason}" for reason, count in self.refused.items())]
        return "\n".join(lines + ([f"  {self.cut}"] if self.cut else []))


def pretrain(
    data: Path,
    output: Path,
    recipe: PretrainingRecipe,
    *,
    start: Path | None = None,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> PretrainingSummary:
    """Train a model on an image folder with sentences, and save it. An interrupted run continues where it was saved.

    Args:
        data: an image folder whose metadata.jsonl has `text`.
        output: a new folder for the checkpoint.
        recipe: sizes and settings.
        start: a checkpoint whose UNet and text encoder are trained further instead; its VAE stays as it is.
        progress: called with the name of the stage, the steps done and their total.

    Raises:
        ConflictError: `output` has content, or OUTPUT.training is of another training.
        InvalidInputError: no picture can be used, or the loss is no number for ten steps in a row.
    """
    state = prepare_state_folder(output)
    device = select_device()
    pipeline = open_pipeline(start, device=device) if start else None
    side = default_side(pipeline) if pipeline else recipe.sizes.side
    pairs, pixels, refused = _load_pictures(read_pairs(data), side, progress)
    usable = np.unique(pairs.picture_of)
    version = compute_model_version(pipeline) if pipeline else None
    identity = _identify(pixels, pairs.texts, [asdict(recipe), version])
    pipeline = pipeline or build_pipeline(pairs.texts, recipe.sizes, seed=recipe.denoising.seed).to(device)
    with open_process_group(device) as group:
        for settings in (recipe.autoencoder, recipe.contrastive, recipe.denoising):
            settings.micro_batch(group.count)  # before long work
        run = _Run(pipeline, group, device, state, identity, progress)
        if not start:
            _train_vae(run, pixels[usable], recipe.autoencoder)
            _train_text_encoder(run, pairs, pixels, recipe.contrastive)
        moments = encode_latents(pipeline.vae, pixels, lambda done, total: progress("encode latents", done, total))
        latents = make_latent_pairs(pipeline, pairs, moments)
        result = _train_unet(run, latents, recipe.denoising)
        if group.is_first:
            pipeline.unet.to(memory_format=torch.contiguous_format)
            pipeline.vae.to(memory_format=torch.contiguous_format)
            save_pipeline(pipeline, output)
            shutil.rmtree(state, ignore_errors=not state.exists())  # a short training further saves no state
    return PretrainingSummary(len(usable), refused, describe_cut(pairs.texts, latents.tokens), result)


@dataclass(frozen=True)
class _Run:
    """What all stages need."""

    pipeline: "StableDiffusionPipeline"
    group: ProcessGroup
    device: torch.device
    state: Path
    identity: str
    progress: Callable[[str, int, int], None]

    def make_context(self, folder: str, stage: str) -> TrainingContext:
        """Return the context of a stage, whose state is in a folder of its own.

        Args:
            folder: name of that folder.
            stage: name of the stage, for its progress.
        """
        return TrainingContext(
            self.group,
            self.device,
            self.state / folder,
            self.identity,
            lambda done, total, _: self.progress(stage, done, total),
        )

    def load_part(self, name: str) -> bool:
        """Take a part of the model from an earlier run that completed its stage; return whether there was one."""
        if not (self.state / name).is_dir():
            return False
        part: Any = getattr(self.pipeline, name)
        note = self.state / name / IDENTITY_FILE
        require_same_identity(self.state, note.read_text() if note.is_file() else None, self.identity)
        trained = type(part).from_pretrained(self.state / name).to(self.device)  # its settings changed too
        self.pipeline.register_modules(**{name: trained})
        return True

    def save_part(self, name: str) -> None:
        """Keep a part of the model whose stage is complete."""
        if self.group.is_first:
            with explain_write_errors(self.state / name), replace_atomically(self.state / name) as unfinished:
                getattr(self.pipeline, name).save_pretrained(unfinished)
                (unfinished / IDENTITY_FILE).write_text(self.identity)
        self.group.wait()


def _train_vae(run: _Run, pixels: NDArray[np.uint8], settings: TrainingSettings) -> None:
    if not run.load_part("vae"):
        train_autoencoder(run.pipeline.vae, pixels, settings, run.make_context("autoencoder", "train VAE"))
        run.save_part("vae")


def _train_text_encoder(run: _Run, pairs: PicturePairs, pixels: NDArray[np.uint8], settings: TrainingSettings) -> None:
    if not run.load_part("text_encoder"):
        context = run.make_context("contrastive", "train text encoder")
        train_contrastively(run.pipeline, pairs, pixels, settings, context)
        run.save_part("text_encoder")


def _train_unet(run: _Run, latents: LatentPairs, settings: TrainingSettings) -> TrainingResult:
    """Train UNet and text encoder together."""
    from diffusers.models.attention_processor import AttnProcessor

    pipeline, device = run.pipeline, run.device
    timesteps = int(pipeline.scheduler.config.num_train_timesteps)
    pipeline.vae.requires_grad_(False)
    pipeline.unet.requires_grad_(True).train().to(memory_format=torch.channels_last)
    pipeline.text_encoder.requires_grad_(True).train()
    if device.type == "cpu":  # fused attention is slower there for so few positions, above all backwards
        pipeline.unet.set_attn_processor(AttnProcessor())
        pipeline.text_encoder.set_attn_implementation("eager")

    def make_loss(model: Any, rows: NDArray[np.int64], generator: torch.Generator) -> torch.Tensor:
        batch = make_batch(
            latents, rows, generator, timesteps=timesteps, caption_dropout=CAPTION_DROPOUT, device=device
        )
        loss: torch.Tensor = model(batch)
        return loss

    context = run.make_context("denoising", "train UNet and text encoder")
    model = DenoisingModel(pipeline, snr_limit=SNR_LIMIT).to(device)
    return run_training(model, len(latents), make_loss, settings, context)


def _load_pictures(
    pairs: PicturePairs, side: int, progress: Callable[[str, int, int], None]
) -> tuple[PicturePairs, NDArray[np.uint8], Counter[str]]:
    """Return the pairs of the usable pictures, the pixels of all in memory, and the number of unusable ones by reason.

    The pixels of an unusable picture are 0, and no pair has it.
    """
    pixels = np.zeros((len(pairs.paths), side, side, 3), np.uint8)
    usable = np.zeros(len(pairs.paths), bool)
    refused: Counter[str] = Counter()
    for rows, part, reasons in decode_pictures(pairs.paths, side):
        pixels[rows], usable[rows] = part, True
        refused.update(reasons)
        progress("read pictures", int(usable.sum()) + refused.total(), len(usable))
    return pairs.keep_usable(usable), pixels, refused


def _identify(pixels: NDArray[np.uint8], texts: object, settings: object) -> str:
    """Return the SHA-256 of the data and the settings of a training."""
    digest = hashlib.sha256(pixels.tobytes())
    digest.update(json.dumps([texts, settings], sort_keys=True).encode())
    return digest.hexdigest()
