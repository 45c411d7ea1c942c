"""How a picture is cut to a model's size: the resizing and cropping part of a checkpoint's image processor.

Kept apart from the processor because it needs Pillow alone: decoding processes cut what is large, and the model's
process receives small uint8 arrays and does the arithmetic for a whole batch at once.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class Geometry:
    """Resize to `resize_to`, then cut the middle `height` x `width`. Sizes in pixels."""

    height: int
    width: int
    resize_to: tuple[int, int] | int
    """(height, width) whatever the proportions were, or the length of the shorter side, proportions kept."""
    resample: int
    """A `PIL.Image.Resampling` value."""

    def __post_init__(self) -> None:
        height, width = (self.resize_to,) * 2 if isinstance(self.resize_to, int) else self.resize_to
        if not (0 < self.height <= height and 0 < self.width <= width):
            raise ValueError(f"cannot cut {self.height} x {self.width} out of a picture resized to {self.resize_to}")

    @property
    def side(self) -> int:
        """Pixels that a side of the resized picture has at least, and at most where it is resized to a square."""
        return self.resize_to if isinstance(self.resize_to, int) else max(self.resize_to)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width to which a picture of that height and width is resized."""
        if not isinstance(self.resize_to, int):
            return self.resize_to
        shorter = min(height, width)
        return int(self.resize_to * height / shorter), int(self.resize_to * width / shorter)

    def middle(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What is cut out of resized pictures [..., height, width, 3]."""
        top, left = (pixels.shape[-3] - self.height) // 2, (pixels.shape[-2] - self.width) // 2
        return pixels[..., top : top + self.height, left : left + self.width, :]

    def cut(self, image: Image.Image) -> NDArray[np.uint8]:
        """uint8 [height, width, 3] of an RGB picture of any size."""
        height, width = self.resized(image.height, image.width)
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling(self.resample))
        return self.middle(np.asarray(image))
