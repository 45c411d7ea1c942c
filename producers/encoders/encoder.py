"""The interface of an encoder. Imports neither torch nor transformers, so that decoding processes start at once."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from producers.encoders.geometry import Geometry
from producers.encoders.whitening import Space

Vectors = NDArray[np.float32]
Pixels = NDArray[np.uint8]


class Encoder(Protocol):
    """Turns texts, and images if it has an image tower, into vectors of one space.

    All methods take n items and return float32 [n, dim], one row per item in the order given; repeated items give
    repeated rows, no items give [0, dim]. Rows have unit length. A row that the model could not compute, because it is
    not finite or has length 0, is NaN throughout.
    """

    @property
    def version(self) -> str:
        """`name@fingerprint`; the fingerprint is 12 hex digits of a SHA-256 of the checkpoint's files."""

    @property
    def dim(self) -> int:
        """Width of a vector: the number of its values."""

    @property
    def space(self) -> Space | None:
        """The whitening of fused vectors (whitening.py).

        None if the checkpoint was trained elsewhere or on too few products.
        """

    @property
    def has_images(self) -> bool:
        """Whether there is an image tower. Without one, `encode_images` and `encode_pixels` raise InvalidInputError."""

    @property
    def geometry(self) -> Geometry | None:
        """How to resize images for `encode_pixels`; None if only the checkpoint's own processor can do it.

        Without it, `encode_images` has to be used. None also without an image tower.
        """

    @property
    def image_batch_size(self) -> int:
        """How many images to pass to `encode_pixels` per call: one batch of the model, or a few; at least 1."""

    @property
    def concurrent_calls(self) -> int:
        """How many threads should call the encoder at once: 1 or 2.

        With two, cores do not wait for each other's last batch.
        """

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of texts, float32 [n, dim]. A text longer than the model reads is truncated at its end."""

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """Return the vectors of RGB images of any size, float32 [n, dim], prepared by the checkpoint's own processor.

        Raises:
            InvalidInputError: there is no image tower.
        """

    def encode_pixels(self, pixels: Pixels) -> Vectors:
        """Return the vectors of resized images, float32 [n, dim]. They equal those of `encode_images` within rounding.

        Args:
            pixels: RGB images resized by `geometry`, uint8 [n, height, width, 3].

        Raises:
            InvalidInputError: there is no image tower.
        """
