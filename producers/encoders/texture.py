"""The texture of pictures as numbers beside the output of a small image tower, which lacks stripes and dots.

Each patch of a grey picture is described by how much closer than their mean distance each patch of a dictionary is, and
the picture by the mean and the maximum over its patches (Coates, Lee and Ng 2011, "An Analysis of Single-Layer Networks
in Unsupervised Feature Learning"). `producers.index.texture` learns the dictionary; this module computes the same
description within a model, so that it is exported with it.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

STRIDE = 2
"""Pixels from one patch of a picture to the next."""
GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in grey (ITU-R BT.601), as in Pillow."""


class Texture(nn.Module):
    """A dictionary of patches, and the description of pictures by it. Nothing of it is trained."""

    filters: torch.Tensor
    """Whitening of a patch as a convolution, [patch * patch, 1, patch, patch]."""
    shift: torch.Tensor
    """Subtracted after it, [patch * patch]."""
    entries: torch.Tensor
    """Whitened patches, [entries, patch * patch]."""
    centre: torch.Tensor
    """Mean of each number over some pictures, [2 * entries]."""
    spread: torch.Tensor
    """What each number is divided by, [2 * entries]."""

    def __init__(self, entries: int, patch: int, noise: float) -> None:
        """Create an empty dictionary.

        Args:
            entries: patches of the dictionary.
            patch: height and width of a patch in pixels.
            noise: added to the variance of a patch, in squared grey levels of 0 to 255.
        """
        super().__init__()
        self.patch, self.noise, self.width = patch, noise, 2 * entries
        self.register_buffer("filters", torch.zeros(patch * patch, 1, patch, patch))
        self.register_buffer("shift", torch.zeros(patch * patch))
        self.register_buffer("entries", torch.zeros(entries, patch * patch))
        self.register_buffer("centre", torch.zeros(self.width))
        self.register_buffer("spread", torch.ones(self.width))

    def set_dictionary(self, mean: Any, whitening: Any, entries: Any) -> None:
        """Take the arrays of a `producers.index.texture.TextureDictionary`."""
        matrix = torch.from_numpy(whitening)
        # A patch loses its mean before the whitening; so the filters lose theirs.
        filters = (matrix - matrix.mean(dim=0, keepdim=True)).T
        self.filters.copy_(filters.reshape(self.filters.shape))
        self.shift.copy_(torch.from_numpy(mean) @ matrix)
        self.entries.copy_(torch.from_numpy(entries))

    def fit_scale(self, numbers: torch.Tensor) -> None:
        """Set centre and spread from the descriptions [n, width] of some pictures, made with a spread of 1."""
        spread = numbers.std(dim=0, unbiased=False)
        self.centre.copy_(numbers.mean(dim=0))
        self.spread.copy_(spread + 0.05 * spread.mean() + 1e-6)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the description float32 [n, width] of pictures [n, 3, height, width] with values of -1 to 1."""
        weights = torch.tensor(GREY, device=pixels.device).view(1, 3, 1, 1)
        grey = ((pixels.float() + 1) * 127.5 * weights).sum(dim=1, keepdim=True)
        mean = functional.avg_pool2d(grey, self.patch, STRIDE)
        variance = (functional.avg_pool2d(grey.square(), self.patch, STRIDE) - mean.square()).clamp(min=0)
        whitened = functional.conv2d(grey, self.filters.float(), stride=STRIDE)
        whitened = whitened / (variance + self.noise).sqrt() - self.shift.float().view(1, -1, 1, 1)
        entries = self.entries.float()
        squares = (
            whitened.square().sum(dim=1, keepdim=True)
            - 2 * functional.conv2d(whitened, entries[:, :, None, None])
            + entries.square().sum(dim=1).view(1, -1, 1, 1)
        )
        distance = squares.clamp(min=0).sqrt()
        closeness = (distance.mean(dim=1, keepdim=True) - distance).clamp(min=0).flatten(2)
        numbers = torch.cat([closeness.mean(dim=2), closeness.amax(dim=2)], dim=1).sqrt()
        return (numbers - self.centre.float()) / self.spread.float()
