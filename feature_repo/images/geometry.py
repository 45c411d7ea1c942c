"""How a picture is prepared for an image tower: resized, then cropped. Needs Pillow and NumPy only."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image


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
