"""Pictures cut by torch, a batch at a time: a seventh of the time that Pillow takes one by one.

Decoding processes do not import torch, which would take longer than many a run; they hand small pictures over as they
are, and the model's process cuts them here. The pixels are Pillow's, one in a thousand a level (of 255) apart; where a
picture is high and narrow Pillow may resize its height first and torch does not, which tells at hard edges: 0.15 levels
in the mean over the demo shop's pictures.
"""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from producers.encoders.geometry import Geometry

MODES: Mapping[int, str] = MappingProxyType({2: "bilinear", 3: "bicubic"})
"""Pillow's number of each kernel that torch has too."""
AT_ONCE = 64
"""Pictures cut by one thread at a time: torch itself uses one."""


def resize_images(rows: NDArray[np.uint8], sizes: NDArray[np.int32], geometry: Geometry) -> NDArray[np.uint8]:
    """Pictures of any sizes as `Geometry.cut` cuts them, uint8 [n, height, width, 3].

    Args:
        rows: [n, bytes]; each begins with the pixels of a picture, [height, width, 3], whatever follows them.
        sizes: height and width of each [n, 2]; 0 for one that is cut already.
        geometry: of a kernel among MODES, or nothing is left to be cut.
    """
    pixels = np.empty((len(rows), geometry.height, geometry.width, 3), np.uint8)
    different, which = np.unique(sizes, axis=0, return_inverse=True)
    parts = [
        (height, width, of_size[start : start + AT_ONCE])
        for place, (height, width) in enumerate(different.tolist())
        for of_size in [np.flatnonzero(which == place)]
        for start in range(0, len(of_size), AT_ONCE)
    ]

    def fill(part: tuple[int, int, NDArray[np.int64]]) -> None:
        height, width, chosen = part
        there = rows[chosen[0] : chosen[-1] + 1] if chosen[-1] - chosen[0] < len(chosen) else rows[chosen]
        if not height:
            pixels[chosen] = there[:, : pixels[0].size].reshape(-1, *pixels.shape[1:])
            return
        whole = there[:, : height * width * 3].reshape(-1, height, width, 3)
        if (height, width) != geometry.resized(height, width):
            values = functional.interpolate(
                torch.from_numpy(np.require(whole, requirements="W")).permute(0, 3, 1, 2),
                size=geometry.resized(height, width),
                mode=MODES[geometry.resample],
                antialias=True,
            )
            whole = values.permute(0, 2, 3, 1).numpy()
        pixels[chosen] = geometry.middle(whole)

    list(_threads().map(fill, parts))
    return pixels


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), "cut")
