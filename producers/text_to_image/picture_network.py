"""A small convolutional network from pictures to outputs of any number, and the augmentation of its training pictures.

It sees texture and shape: the means and the maxima of the maps of every level go to a linear layer for each output.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

WIDTHS = (16, 32, 64, 128)
"""Channels of each level; a level halves the height and the width of the one before it."""
SMALL_SIDE = 40
"""Pixels. Pictures with a shorter side of at most this keep their size in the first level: patterns are fine there."""
SHIFT = 0.04
"""Largest shift of a training picture, as a share of its side."""


class PictureNetwork(nn.Module):
    """Pictures to one vector for each output."""

    def __init__(self, outputs: Sequence[int], *, is_small: bool) -> None:
        """Create an untrained network.

        Args:
            outputs: width of each output.
            is_small: whether the first level keeps the size of the pictures.
        """
        super().__init__()
        levels: list[nn.Module] = []
        channels = 3
        for number, width in enumerate(WIDTHS[:-1] if is_small else WIDTHS):
            stride = 1 if is_small and number == 0 else 2
            layers = [_convolve(channels, width, stride)] + [_convolve(width, width, 1)] * (number > 0)
            levels.append(nn.Sequential(*layers))
            channels = width
        self.levels = nn.ModuleList(levels)
        pooled = 2 * sum(WIDTHS[: len(levels)])
        self.heads = nn.ModuleList(nn.Linear(pooled, width) for width in outputs)

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Return [n, width] of each output, for uint8 pictures [n, height, width, 3]."""
        maps = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1  # NHWC memory seen as NCHW: channels_last
        pooled = []
        for level in self.levels:
            maps = level(maps)
            pooled += [maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))]
        features = torch.cat(pooled, dim=1)
        return [head(features) for head in self.heads]


def is_small(pixels: NDArray[np.uint8]) -> bool:
    """Return whether pictures [n, height, width, 3] are small for a PictureNetwork."""
    return min(pixels.shape[1:3]) <= SMALL_SIDE


def augment_pixels(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a batch shifted by a few pixels, the border repeated, and mirrored in half of the cases.

    Args:
        pixels: uint8 [n, height, width, 3]; all pictures are shifted and mirrored alike.
        rng: the generator; it is advanced.
    """
    height, width = pixels.shape[1:3]
    reach = [max(1, round(SHIFT * side)) for side in (height, width)]
    top, left = (int(rng.integers(0, 2 * most + 1)) for most in reach)
    padded = np.pad(pixels, ((0, 0), (reach[0],) * 2, (reach[1],) * 2, (0, 0)), mode="edge")
    shifted = padded[:, top : top + height, left : left + width]
    return np.ascontiguousarray(shifted[:, :, ::-1] if rng.random() < 0.5 else shifted)


def _convolve(channels: int, width: int, stride: int) -> nn.Module:
    convolution = nn.Conv2d(channels, width, kernel_size=3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
