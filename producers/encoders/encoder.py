"""The interface of an encoder. Imports neither torch nor transformers, so that decoding processes start at once."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from feature_repo.fusion import Space
from feature_repo.images.geometry import Geometry

Vectors = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Outputs = NDArray[np.float16]


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


@runtime_checkable
class TowerEncoder(Protocol):
    """An encoder of frozen towers and heads, whose tower outputs can be kept and made into vectors again.

    `encode_pixels` gives the same as `project_images` of `encode_pixel_outputs`, and `encode_texts` the same as
    `project_texts` of `encode_text_outputs`, within the rounding of other batch sizes.
    """

    image_fingerprint: str
    """12 hex digits of a SHA-256 of the image tower's weights and settings."""
    text_fingerprint: str | None
    """The same of the text tower; None without one."""
    image_width: int
    """Number of values of an image tower's output."""
    text_width: int
    """Number of values of a text tower's output; 0 without a text tower."""

    def encode_pixel_outputs(self, pixels: Pixels) -> Outputs:
        """Return the image tower's outputs, float16 [n, image_width], of resized images; not finite where it has none.

        Args:
            pixels: RGB images resized by `geometry`, uint8 [n, height, width, 3].
        """

    def encode_text_outputs(self, texts: Sequence[str]) -> Outputs:
        """Return the text tower's outputs, float16 [n, text_width], in the order of the texts."""

    def project_images(self, outputs: Outputs) -> Vectors:
        """Return the vectors, float32 [n, dim], of an image tower's outputs; NaN where an output is not finite."""

    def project_texts(self, texts: Sequence[str], outputs: Outputs) -> Vectors:
        """Return the vectors, float32 [n, dim], of texts and the text tower's outputs of them."""


class KeptOutputs(Protocol):
    """Outputs of towers that were computed before; `producers.embeddings.output_store` keeps them on disk."""

    def check_name(self, modality: bytes, name: str, fingerprint: str) -> None:
        """Remember which tower has a name, and raise EncoderMismatchError for another one of that name."""

    def get(self, modality: bytes, fingerprint: str, hashes: Sequence[bytes | None], width: int) -> Outputs:
        """Return outputs float16 [n, width] in the order of the content hashes; NaN where none is kept."""

    def put(self, modality: bytes, fingerprint: str, hashes: Sequence[bytes], outputs: Outputs) -> None:
        """Keep outputs float16 [n, width] of contents."""
