"""Resize and crop images to a model's input size, as the checkpoint's image processor would.

There are two implementations. `Geometry.apply` takes one image and needs only Pillow; decoding processes use it for
large images. `resize_images` takes a batch and uses torch, in a seventh of Pillow's time. Its pixels equal Pillow's,
except that about one in a thousand differs by one level of 255. Of a tall, narrow image Pillow may resize the height
first and torch does not: hard edges then differ more, by 0.15 levels in the mean over the images of the demo shop.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from feature_repo.cores import count_cores

TORCH_MODES: Mapping[int, str] = MappingProxyType(
    {Image.Resampling.BILINEAR.value: "bilinear", Image.Resampling.BICUBIC.value: "bicubic"}
)
"""Filters that torch has too, by Pillow's number."""
IMAGES_PER_TASK = 64
"""Images that one thread resizes at a time; torch resizes in one thread."""


@dataclass(frozen=True)
class Geometry:
    """How to prepare an image: resize it to `resize_to`, then crop the middle `height` x `width`.

    All sizes are in pixels.

    Raises:
        ValueError: the crop is empty or larger than `resize_to`; if that is one number, neither side may exceed it.
    """

    height: int
    """Height of the crop."""
    width: int
    """Width of the crop."""
    resize_to: tuple[int, int] | int
    """(height, width), which changes the aspect ratio; or the length of the shorter side, which keeps it."""
    resample: int
    """The filter: a value of `PIL.Image.Resampling`."""

    def __post_init__(self) -> None:
        height, width = (self.resize_to,) * 2 if isinstance(self.resize_to, int) else self.resize_to
        if not (0 < self.height <= height and 0 < self.width <= width):
            raise ValueError(f"cannot crop {self.height} x {self.width} out of an image resized to {self.resize_to}")

    @property
    def side(self) -> int:
        """Pixels: the larger of the two numbers of `resize_to`, or `resize_to` itself if it is one number."""
        return self.resize_to if isinstance(self.resize_to, int) else max(self.resize_to)

    def resized_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) to which an image of this height and width is resized before the crop.

        All four are in pixels and at least 1. If `resize_to` is one number, the proportions are kept and the
        longer side is rounded down.
        """
        if not isinstance(self.resize_to, int):
            return self.resize_to
        shorter = min(height, width)
        return int(self.resize_to * height / shorter), int(self.resize_to * width / shorter)

    def crop(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the middle [..., self.height, self.width, 3] of resized images, as a view.

        Args:
            pixels: one image or several, [..., height, width, 3], none smaller than the crop; this is not checked. If
                an odd number of rows or columns is cut off, one less is cut off at the top or at the left.
        """
        top, left = (pixels.shape[-3] - self.height) // 2, (pixels.shape[-2] - self.width) // 2
        return pixels[..., top : top + self.height, left : left + self.width, :]

    def apply(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return an image resized and cropped: uint8 [self.height, self.width, 3].

        Args:
            image: image of mode RGB and of any size; a smaller one is enlarged. It is not changed.
        """
        height, width = self.resized_size(image.height, image.width)
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling(self.resample))
        return self.crop(np.asarray(image))


def resize_images(rows: NDArray[np.uint8], sizes: NDArray[np.int32], geometry: Geometry) -> NDArray[np.uint8]:
    """Resize and crop a batch of images of any sizes.

    Args:
        rows: uint8 [n, bytes]; each row begins with the pixels of one image, [height, width, 3]. The rest is ignored.
        sizes: int [n, 2], the height and width of each image in pixels; 0 and 0 for an image that is resized and
            cropped already.
        geometry: how to resize. Its `resample` is one of TORCH_MODES, unless no image has to be resized.

    Returns:
        A new array, uint8 [n, geometry.height, geometry.width, 3], in the order of the rows; n may be 0.
    """
    # Imported here: decoding processes import this module, and torch would delay their start by seconds.
    import torch
    from torch.nn import functional

    pixels = np.empty((len(rows), geometry.height, geometry.width, 3), np.uint8)
    distinct, group = np.unique(sizes, axis=0, return_inverse=True)
    tasks = [
        (height, width, members[start : start + IMAGES_PER_TASK])
        for number, (height, width) in enumerate(distinct.tolist())
        for members in [np.flatnonzero(group == number)]
        for start in range(0, len(members), IMAGES_PER_TASK)
    ]

    def resize(task: tuple[int, int, NDArray[np.int64]]) -> None:
        height, width, members = task
        is_slice = members[-1] - members[0] < len(members)  # then no copy is needed
        chosen = rows[members[0] : members[-1] + 1] if is_slice else rows[members]
        if not height:
            pixels[members] = chosen[:, : pixels[0].size].reshape(-1, *pixels.shape[1:])
            return
        images = chosen[:, : height * width * 3].reshape(-1, height, width, 3)
        if (height, width) != geometry.resized_size(height, width):
            values = functional.interpolate(
                torch.from_numpy(np.require(images, requirements="W")).permute(0, 3, 1, 2),
                size=geometry.resized_size(height, width),
                mode=TORCH_MODES[geometry.resample],
                antialias=True,
            )
            images = values.permute(0, 2, 3, 1).numpy()
        pixels[members] = geometry.crop(images)

    list(_resize_threads().map(resize, tasks))
    return pixels


@cache
def _resize_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count_cores(), "resize")
