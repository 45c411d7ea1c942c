"""Titles and pictures as arrays, and the batches of every step.

Order, crops and masks of a step follow from the seed and the step's number alone, whatever was drawn before: a run that
is resumed, or spread over processes, sees what an undisturbed one sees.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from producers.encoders.training.recipe import Recipe

MASKED_WORDS = 0.1


@dataclass(frozen=True)
class Pairs:
    """n titles with their pictures."""

    pixels: NDArray[np.uint8]
    """[n, height, width, 3], in memory or mapped from a file."""
    tokens: NDArray[np.int64]
    """[n, longest]."""
    mask: NDArray[np.int64]
    """1 where there is a token [n, longest]."""
    same: NDArray[np.int64]
    """[n]: equal where titles are."""
    special: NDArray[np.int64]
    """Tokens that are never masked nor predicted as words."""
    mask_token: int | None

    def __len__(self) -> int:
        return len(self.same)


@dataclass(frozen=True)
class Batch:
    """Rows of one forward, on the device."""

    pixels: torch.Tensor
    """float32 [n, 3, h, w], as the image tower wants them."""
    tokens: torch.Tensor
    """int64 [n, longest], some masked."""
    mask: torch.Tensor
    whole: torch.Tensor
    """The tokens, none masked."""
    same: torch.Tensor
    rows: torch.Tensor
    """Which pairs these are [n]."""
    partners: torch.Tensor
    """Row of the batch that the same user clicked in the same session, -1 for none [n]."""


@dataclass(frozen=True)
class Preparation:
    """How pixels become what the image tower wants: x * scale + shift, on a device."""

    scale: torch.Tensor
    """[1, 3, 1, 1]."""
    shift: torch.Tensor
    padded: bool = False
    """Whether texts stay padded to full length (SigLIP reads the padding like any word)."""

    def take(
        self,
        pairs: Pairs,
        rows: NDArray[np.int64],
        partners: NDArray[np.int64],
        chance: np.random.Generator,
        recipe: Recipe,
    ) -> Batch:
        """Rows cropped and masked by `chance`."""
        device = self.scale.device
        longest = pairs.mask.shape[1] if self.padded else int(pairs.mask[rows].sum(axis=1).max(initial=1))
        whole, mask = pairs.tokens[rows, :longest], pairs.mask[rows, :longest]
        tokens = whole.copy()
        hidden = (chance.random(tokens.shape) < MASKED_WORDS) & (mask > 0) & ~np.isin(tokens, pairs.special)
        if pairs.mask_token is not None:
            tokens[hidden] = pairs.mask_token
        values = crop(torch.from_numpy(pairs.pixels[rows]).to(device), recipe.crop, chance)
        if recipe.jitter:
            values = recoloured(values, recipe.jitter, chance)
        return Batch(
            pixels=(values * self.scale + self.shift).contiguous(memory_format=torch.channels_last),
            tokens=torch.from_numpy(tokens).to(device),
            mask=torch.from_numpy(mask).to(device),
            whole=torch.from_numpy(whole).to(device),
            same=torch.from_numpy(pairs.same[rows]).to(device),
            rows=torch.from_numpy(rows).to(device),
            partners=torch.from_numpy(partners).to(device),
        )

    def whole(self, pairs: Pairs, rows: NDArray[np.int64]) -> torch.Tensor:
        """Pictures of rows as they are, float32 [n, 3, h, w]."""
        values = torch.from_numpy(pairs.pixels[rows]).to(self.scale.device).permute(0, 3, 1, 2).float()
        return values * self.scale + self.shift


class Order:
    """Which rows each step takes: all of them once, in an order of its own, before any comes again.

    A step that would need rows of two rounds takes the next round's first and leaves the rest of this one out.
    """

    def __init__(self, rows: NDArray[np.int64], batch: int, seed: int) -> None:
        self.rows = rows
        self.batch = batch
        self.seed = seed
        self.steps_a_round = max(1, len(rows) // batch)
        self._round = -1
        self._shuffled = rows

    def step(self, number: int) -> NDArray[np.int64]:
        """int64 [batch]."""
        round_, place = divmod(number, self.steps_a_round)
        if round_ != self._round:
            self._round = round_
            self._shuffled = self.rows[np.random.default_rng([self.seed, 0, round_]).permutation(len(self.rows))]
        return self._shuffled[place * self.batch : (place + 1) * self.batch]


def chance_of(seed: int, step: int, micro: int) -> np.random.Generator:
    """The chance of one micro-batch, and torch's for whatever drops out."""
    chance = np.random.default_rng([seed, 1, step, micro])
    torch.manual_seed(int(chance.integers(2**62)))
    return chance


def micro_batches(rows: NDArray[np.int64], size: int, process: int, accumulate: int) -> Iterator[tuple[int, slice]]:
    """Number within the step, and place in `rows`, of each micro-batch that falls to a process."""
    for number in range(process * accumulate, (process + 1) * accumulate):
        yield number, slice(number * size, min((number + 1) * size, len(rows)))


def crop(pixels: torch.Tensor, smallest: float, chance: np.random.Generator) -> torch.Tensor:
    """A random crop of each picture, `smallest` of its area at least, stretched to its size.

    uint8 [n, h, w, 3] to float32 [n, 3, h, w] in [0, 255].
    """
    count = len(pixels)
    side = np.sqrt(chance.uniform(smallest, 1, count))
    stretch = np.exp(chance.uniform(-0.1, 0.1, count))
    window = np.zeros((count, 2, 3), np.float32)
    for axis, size in enumerate((np.minimum(side * stretch, 1), np.minimum(side / stretch, 1))):
        window[:, axis, axis] = size
        window[:, axis, 2] = chance.uniform(-1, 1, count) * (1 - size)
    values = pixels.permute(0, 3, 1, 2).float()
    grid = functional.affine_grid(torch.from_numpy(window).to(pixels.device), list(values.shape), align_corners=False)
    return functional.grid_sample(values, grid, padding_mode="border", align_corners=False)


def recoloured(values: torch.Tensor, reach: float, chance: np.random.Generator) -> torch.Tensor:
    """Red, green and blue of each picture [n, 3, h, w] made up to `reach` times lighter or darker, each by itself."""
    gain = chance.uniform(1 - reach, 1 + reach, (len(values), 3, 1, 1)).astype(np.float32)
    return (values * torch.from_numpy(gain).to(values.device)).clamp(0, 255)
