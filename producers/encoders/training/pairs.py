"""Titles and images as arrays, and the batches of each step.

The row order, crops and masks of a step depend only on the seed and the step number. A training that is resumed or
spread over processes therefore sees the same batches as an undisturbed one.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from producers.encoders.training.recipe import Recipe

MASKED_SHARE = 0.1
"""Share of the words of a batch that are replaced by the mask token, on average."""


@dataclass(frozen=True)
class TrainingPairs:
    """n titles with their images, row by row."""

    pixels: NDArray[np.uint8]
    """The images, resized, in RGB [n, height, width, 3]; in memory or mapped from a file."""
    tokens: NDArray[np.int64]
    """Token ids of the titles, with padding at the end [n, length]."""
    mask: NDArray[np.int64]
    """1 where there is a token, 0 in the padding [n, length]."""
    title_ids: NDArray[np.int64]
    """A number that is equal for equal titles [n]."""
    special_tokens: NDArray[np.int64]
    """Ids [k] of the tokens that are never masked and never predicted as words, such as the padding."""
    mask_token: int | None
    """Id of the token that replaces masked words; None if the tokenizer has none: then no word is masked."""

    def __len__(self) -> int:
        return len(self.title_ids)


@dataclass(frozen=True)
class PairBatch:
    """The pairs of one forward pass, on the device."""

    pixels: torch.Tensor
    """Preprocessed for the image tower, float32 [n, 3, height, width]."""
    tokens: torch.Tensor
    """Token ids of the titles, some of them replaced by the mask token, int64 [n, length]."""
    mask: torch.Tensor
    """1 where there is a token, 0 in the padding, int64 [n, length]."""
    unmasked_tokens: torch.Tensor
    """Token ids of the titles, none of them replaced, int64 [n, length]."""
    title_ids: torch.Tensor
    """Equal for equal titles, int64 [n]."""
    rows: torch.Tensor
    """Row of each pair in `TrainingPairs`, int64 [n]."""
    partners: torch.Tensor
    """Index in this batch of a product that the same user clicked in the same session, -1 for none, int64 [n]."""


@dataclass(frozen=True)
class Preprocessor:
    """The preprocessing of a checkpoint: pixels * scale + shift, and the padding of texts."""

    scale: torch.Tensor
    """Factor of the pixels of each colour channel, float [1, 3, 1, 1]. Its device is the device of the batches."""
    shift: torch.Tensor
    """What is added to each colour channel after the multiplication, float [1, 3, 1, 1]."""
    is_padded: bool = False
    """Whether texts keep the padding up to their full length, because the model reads it as words (SigLIP). Otherwise a
    batch is as long as its longest title."""

    def make_batch(
        self,
        pairs: TrainingPairs,
        rows: NDArray[np.int64],
        partners: NDArray[np.int64],
        rng: np.random.Generator,
        recipe: Recipe,
    ) -> PairBatch:
        """Return the pairs at `rows`, in this order, with random crops, colour changes and masked words.

        Special tokens are never masked, and no word is if the tokenizer has no mask token.

        Args:
            pairs: all pairs.
            rows: rows of `pairs`, in the order of the batch. A repeated row is cropped and masked differently.
            partners: for each of `rows`, the index in `rows` of a product that the same user clicked in the same
                session; -1 for none [n].
            rng: source of the random numbers.
            recipe: strength of the crops and of the colour changes.
        """
        device = self.scale.device
        length = pairs.mask.shape[1] if self.is_padded else int(pairs.mask[rows].sum(axis=1).max(initial=1))
        unmasked_tokens, mask = pairs.tokens[rows, :length], pairs.mask[rows, :length]
        tokens = unmasked_tokens.copy()
        is_masked = (rng.random(tokens.shape) < MASKED_SHARE) & (mask > 0) & ~np.isin(tokens, pairs.special_tokens)
        if pairs.mask_token is not None:
            tokens[is_masked] = pairs.mask_token
        values = crop_images(torch.from_numpy(pairs.pixels[rows]).to(device), recipe.crop, rng)
        if recipe.jitter:
            values = jitter_colours(values, recipe.jitter, rng)
        return PairBatch(
            pixels=(values * self.scale + self.shift).contiguous(memory_format=torch.channels_last),
            tokens=torch.from_numpy(tokens).to(device),
            mask=torch.from_numpy(mask).to(device),
            unmasked_tokens=torch.from_numpy(unmasked_tokens).to(device),
            title_ids=torch.from_numpy(pairs.title_ids[rows]).to(device),
            rows=torch.from_numpy(rows).to(device),
            partners=torch.from_numpy(partners).to(device),
        )

    def prepare_images(self, pairs: TrainingPairs, rows: NDArray[np.int64]) -> torch.Tensor:
        """Return the images at `rows`, in this order, preprocessed, not cropped: float32 [rows, 3, height, width]."""
        values = torch.from_numpy(pairs.pixels[rows]).to(self.scale.device).permute(0, 3, 1, 2).float()
        return values * self.scale + self.shift


class BatchOrder:
    """The rows of each step: every epoch goes through all rows once, in a new random order.

    The rows at the end of an epoch that do not fill a batch are skipped.
    """

    def __init__(self, rows: NDArray[np.int64], batch_size: int, seed: int) -> None:
        """Create the order.

        Args:
            rows: the rows to go through [n].
            batch_size: rows of a step, at least 1. If there are fewer rows, every step has all of them.
            seed: seed of the order.
        """
        self._rows = rows
        self._batch_size = batch_size
        self._seed = seed
        self._steps_per_epoch = max(1, len(rows) // batch_size)
        self._epoch = -1
        self._shuffled = rows

    def select_rows(self, step: int) -> NDArray[np.int64]:
        """Return the rows of a step, int64 [batch_size], or [n] if there are fewer rows.

        Args:
            step: number of the step, from 0. Steps may be requested in any order, and again with the same result.
        """
        epoch, batch = divmod(step, self._steps_per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._shuffled = self._rows[np.random.default_rng([self._seed, 0, epoch]).permutation(len(self._rows))]
        return self._shuffled[batch * self._batch_size : (batch + 1) * self._batch_size]


def crop_images(pixels: torch.Tensor, min_share: float, rng: np.random.Generator) -> torch.Tensor:
    """Crop each image at random, and resize the crop to the size of the image.

    The share of the area that is kept is drawn evenly from [min_share, 1]. Then one side is made up to about 10% longer
    and the other shorter by the same factor. A side that would be longer than the image is as long as the image, so
    that even with a `min_share` of 1 up to about 10% of the area is cut off.

    Args:
        pixels: the images, uint8 [n, height, width, 3].
        min_share: smallest share of an image's area that is drawn, in (0, 1].
        rng: source of the random numbers.

    Returns:
        The crops, float32 [n, 3, height, width] in [0, 255], on the device of `pixels`.
    """
    count = len(pixels)
    side = np.sqrt(rng.uniform(min_share, 1, count))
    stretch = np.exp(rng.uniform(-0.1, 0.1, count))
    window = np.zeros((count, 2, 3), np.float32)
    for axis, size in enumerate((np.minimum(side * stretch, 1), np.minimum(side / stretch, 1))):
        window[:, axis, axis] = size
        window[:, axis, 2] = rng.uniform(-1, 1, count) * (1 - size)
    values = pixels.permute(0, 3, 1, 2).float()
    grid = functional.affine_grid(torch.from_numpy(window).to(pixels.device), list(values.shape), align_corners=False)
    return functional.grid_sample(values, grid, padding_mode="border", align_corners=False)


def jitter_colours(values: torch.Tensor, max_change: float, rng: np.random.Generator) -> torch.Tensor:
    """Multiply each colour channel of each image by a random factor in [1 - max_change, 1 + max_change).

    Args:
        values: the images, float32 [n, 3, height, width] in [0, 255]; not changed.
        max_change: largest change, as a share in [0, 1].
        rng: source of the random numbers.

    Returns:
        New images, float32 [n, 3, height, width], clipped to [0, 255].
    """
    gain = rng.uniform(1 - max_change, 1 + max_change, (len(values), 3, 1, 1)).astype(np.float32)
    return (values * torch.from_numpy(gain).to(values.device)).clamp(0, 255)
