"""What an encoder is. Imports neither torch nor transformers, so that decoding processes start at once."""

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
    """Turns texts, and pictures where it has an image tower, into rows of one space.

    Rows are float32 [n, dim] of unit length, in the order asked. A row that the model could not compute (not finite,
    or of zero length) is all NaN: absent, and never a plausible vector.
    """

    @property
    def version(self) -> str:
        """`name@fingerprint`: 12 hex digits of the SHA-256 of the files the encoder was read from."""

    @property
    def dim(self) -> int:
        """Width of a row."""

    @property
    def space(self) -> Space | None:
        """Where fused vectors are compared (fusion.py); None for a checkpoint that was not trained on a shop."""

    @property
    def has_images(self) -> bool:
        """Whether there is an image tower; without one `encode_images` and `encode_pixels` raise VitrineError."""

    @property
    def geometry(self) -> Geometry | None:
        """How `encode_pixels` wants its pictures cut; null where only the model's own processor knows."""

    @property
    def images_at_once(self) -> int:
        """How many pictures `encode_pixels` likes to be given: a batch of the model, or a few."""

    @property
    def callers(self) -> int:
        """How many threads do well to call it at once: two where cores would wait for each other's last batch."""

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts; those longer than the model reads are cut at their end."""

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """Vectors of RGB pictures of any size, prepared by the checkpoint's own processor."""

    def encode_pixels(self, pixels: Pixels) -> Vectors:
        """Vectors of pictures already cut by `geometry`: uint8 [n, height, width, 3]. Equal to `encode_images`."""
