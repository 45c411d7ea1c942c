"""Pictures and sentences as the training reads them: latents, computed once, and tokens."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from feature_repo.errors import InvalidInputError
from feature_repo.images.geometry import Geometry
from producers.encoders.image_loader import DecodedBatch, decode_batches, decode_in_process, open_decoding_pool
from producers.evaluation.image_folder import read_image_folder
from producers.text_to_image.sentences import TokenizedSentences, tokenize_sentences

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

_log = logging.getLogger(__name__)
DECODED_AT_ONCE = 256
"""Pictures."""
ENCODED_AT_ONCE = 32
"""Pictures that the VAE encodes together."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PicturePairs:
    """Pictures with sentences, not opened yet."""

    paths: Sequence[Path]
    """n pictures."""
    texts: Sequence[str]
    """m sentences, at least one for each picture."""
    picture_of: NDArray[np.int64]
    """[m], the picture of each sentence."""

    def keep_usable(self, usable: NDArray[np.bool_]) -> "PicturePairs":
        """Return the pairs whose picture is usable; pictures keep their numbers.

        Args:
            usable: bool [n].

        Raises:
            InvalidInputError: no picture is usable.
        """
        if not usable.any():
            raise InvalidInputError(f"none of the {len(usable):,} pictures can be used; the first is {self.paths[0]}")
        kept = np.flatnonzero(usable[self.picture_of])
        return PicturePairs(self.paths, [self.texts[row] for row in kept.tolist()], self.picture_of[kept])


@dataclass(frozen=True)
class LatentPairs:
    """What the denoising loss is computed from."""

    moments: NDArray[np.float16]
    """float16 [n, 2 * channels, height, width]: mean and log-variance of the latents of n pictures."""
    tokens: TokenizedSentences
    """m sentences."""
    empty: TokenizedSentences
    """The empty sentence, which unconditional generation uses."""
    picture_of: NDArray[np.int64]
    """[m], the picture of each sentence."""
    scaling: float
    """The VAE's scaling factor."""

    def __len__(self) -> int:
        return len(self.picture_of)

    def draw_latents(self, rows: NDArray[np.int64], generator: torch.Generator) -> torch.Tensor:
        """Draw latents of the pictures of some sentences, float32 [len(rows), channels, height, width], on the CPU."""
        mean, log_variance = torch.from_numpy(self.moments[self.picture_of[rows]]).float().chunk(2, dim=1)
        noise = torch.randn(mean.shape, generator=generator)
        return (mean + noise * torch.exp(0.5 * log_variance.clamp(-30, 20))) * self.scaling


def read_pairs(folder: Path) -> PicturePairs:
    """Return the pictures of an image folder that have a sentence.

    Raises:
        NotFoundError: there is no metadata.jsonl.
        InvalidInputError: a line is malformed, or no picture has a sentence.
    """
    found = read_image_folder(folder)
    pictures = [picture for picture in found if picture.texts]
    if not pictures:
        raise InvalidInputError(f"{folder}: no picture has a sentence; expected `text` in the lines of metadata.jsonl")
    if left_out := len(found) - len(pictures):
        _log.warning("%s: %s of %s pictures have no sentence and are left out", folder, left_out, len(found))
    return PicturePairs(
        [picture.path for picture in pictures],
        [text for picture in pictures for text in picture.texts],
        np.repeat(np.arange(len(pictures)), [len(picture.texts) for picture in pictures]),
    )


def decode_pictures(
    paths: Sequence[Path], side: int, rank: int = 0, processes: int = 1
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8], Counter[str]]]:
    """Decode pictures, resize their shorter side to `side` pixels and crop the middle.

    Args:
        paths: n pictures.
        side: pixels.
        rank: number of this process, from 0.
        processes: number of processes that decode, each its share of the pictures.

    Yields:
        Of at most DECODED_AT_ONCE pictures: the rows of the usable ones, int64 [k]; their pixels, uint8
        [k, side, side, 3]; the number of others by reason.
    """
    geometry = Geometry(side, side, resize_to=side, resample=int(Image.Resampling.LANCZOS))
    if len(paths) <= DECODED_AT_ONCE and processes == 1:  # starting processes would take longer
        yield _split_usable(0, decode_in_process(paths, geometry), side)
        return
    starts = range(rank * DECODED_AT_ONCE, len(paths), processes * DECODED_AT_ONCE)
    parts = ((start, paths[start : start + DECODED_AT_ONCE]) for start in starts)
    with open_decoding_pool() as pool:
        for batch in decode_batches(parts, geometry, pool, size=DECODED_AT_ONCE):
            yield _split_usable(batch.key, batch, side)


def _split_usable(
    start: int, batch: DecodedBatch[Any], side: int
) -> tuple[NDArray[np.int64], NDArray[np.uint8], Counter[str]]:
    """Return rows and pixels of the usable pictures of a batch that begins at row `start`, and the others by reason."""
    pixels = np.empty((0, side, side, 3), np.uint8) if batch.pixels is None else batch.pixels[batch.usable]
    return start + np.flatnonzero(batch.usable), pixels, Counter(error.reason for error in batch.refused)


def encode_latents(
    vae: Any, pixels: NDArray[np.uint8], progress: Progress = lambda done, total: None
) -> NDArray[np.float16]:
    """Return mean and log-variance of the latents, float16 [n, 2 * channels, height, width].

    Args:
        vae: an AutoencoderKL, on any device.
        pixels: uint8 [n, side, side, 3].
        progress: called after each batch with the pictures done and their total.
    """
    moments = []
    with torch.inference_mode():
        for start in range(0, len(pixels), ENCODED_AT_ONCE):
            batch = scale_pixels(pixels[start : start + ENCODED_AT_ONCE]).to(vae.device, vae.dtype)
            moments.append(vae.encode(batch).latent_dist.parameters.float().cpu().numpy().astype(np.float16))
            progress(start + len(batch), len(pixels))
    return np.concatenate(moments)


def scale_pixels(pixels: NDArray[np.uint8]) -> torch.Tensor:
    """Return pixels uint8 [n, height, width, 3] as the VAE reads them: float32 [n, 3, height, width], -1 to 1."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def make_latent_pairs(
    pipeline: "StableDiffusionPipeline", pairs: PicturePairs, moments: NDArray[np.float16]
) -> LatentPairs:
    """Return the pairs with their sentences tokenized."""
    return LatentPairs(
        moments,
        tokenize_sentences(pipeline.tokenizer, pairs.texts),
        tokenize_sentences(pipeline.tokenizer, [""]),
        pairs.picture_of,
        float(pipeline.vae.config.scaling_factor),
    )
