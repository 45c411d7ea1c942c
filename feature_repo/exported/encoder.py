"""An open export: sentences and pictures to vectors.

    encoder = open_encoder(folder)
    vectors = encoder.encode_texts(["奶油风 宝宝餐椅"])                  # float32 [1, dim], of unit length
    vectors = encoder.encode_pictures([Path("photograph.jpg"), content])  # float32 [2, dim]

Vectors of texts and pictures can be compared with each other, and with those of the tables that have the same
encoder version.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InvalidInputError
from feature_repo.exported.files import IMAGE, TEXT, EncoderDescription, model_path, read_description, read_space
from feature_repo.exported.texts import TextInput, open_text_input
from feature_repo.exported.towers import RunTower, Vectors, open_onnx_tower
from feature_repo.exported.triton import open_triton_tower
from feature_repo.fusion import Space
from feature_repo.location import BucketObject

BATCH = 64
"""Most texts or pictures of one call of a tower; Triton's configuration of an export has the same limit."""

Pixels = NDArray[np.uint8]


class ExportedEncoder:
    """An encoder of an export; `open_encoder` opens it. Safe to share between threads.

    A tower is opened when it is first used.
    """

    def __init__(
        self,
        description: EncoderDescription,
        texts: TextInput,
        space: Space | None,
        open_tower: Callable[[str], RunTower],
    ) -> None:
        """Wrap the parts of an export.

        Args:
            description: content of encoder.json.
            texts: tokenizes texts.
            space: the space of fused vectors; None without one.
            open_tower: opens the tower of a name, TEXT or IMAGE.
        """
        self.description = description
        self.space = space
        self._texts = texts
        self._open_tower = open_tower

    @property
    def encoder_version(self) -> str:
        """`name@fingerprint`."""
        return self.description.encoder_version

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return self.description.dim

    @property
    def has_images(self) -> bool:
        """Whether pictures can be encoded."""
        return self.description.geometry is not None

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors of texts, float32 [n, dim], in their order; NaN where there is none.

        A long text is truncated.
        """
        vectors = [np.empty((0, self.dim), np.float32)]
        for start in range(0, len(texts), BATCH):
            vectors.append(self._text_tower(self._texts.prepare(texts[start : start + BATCH])))
        return np.concatenate(vectors)

    def knows(self, text: str) -> bool:
        """Return whether the tokenizer knows a token of a text, special ones aside."""
        return self._texts.knows(text)

    def encode_pictures(self, sources: Sequence[Path | bytes]) -> Vectors:
        """Return unit vectors of pictures, float32 [n, dim], in their order; NaN where there is none.

        Args:
            sources: files, or the encoded bytes.

        Raises:
            InvalidInputError: the encoder has no image tower.
            UnusableImageError: a picture cannot be decoded, or exceeds the limits of `images.decoding`.
        """
        return self.encode_pixels([self.cut_picture(source) for source in sources])

    def cut_picture(self, source: Path | BucketObject | bytes) -> Pixels:
        """Return a picture as the image tower reads it, uint8 [height, width, 3]: decoded, resized and cropped.

        Raises:
            InvalidInputError: the encoder has no image tower.
            UnusableImageError: the picture cannot be decoded, or exceeds the limits of `images.decoding`.
        """
        from PIL import Image

        from feature_repo.images.decoding import open_pixels

        geometry = self.description.geometry
        if geometry is None:
            raise InvalidInputError(f"{self.encoder_version} encodes no pictures: {self.description.without_images}")
        return geometry.apply(Image.fromarray(open_pixels(source, side=geometry.side)))

    def encode_pixels(self, pixels: Sequence[Pixels]) -> Vectors:
        """Return unit vectors of pictures that `cut_picture` prepared, float32 [n, dim], in their order."""
        vectors = [np.empty((0, self.dim), np.float32)]
        for start in range(0, len(pixels), BATCH):
            vectors.append(self._image_tower({"pixels": np.stack(pixels[start : start + BATCH])}))
        return np.concatenate(vectors)

    @cached_property
    def _text_tower(self) -> RunTower:
        return self._open_tower(TEXT)

    @cached_property
    def _image_tower(self) -> RunTower:
        return self._open_tower(IMAGE)


def open_encoder(folder: Path, *, threads: int = 0, triton: str | None = None) -> ExportedEncoder:
    """Open an export.

    Args:
        folder: folder that `produce export` wrote.
        threads: cores that one call uses; 0 leaves it to ONNX Runtime.
        triton: http://host:port of a Triton server that serves the export; None runs the towers in this process. A
            tower that runs there raises UnavailableError if the server does not answer, and EncoderMismatchError, when
            it is first used, if the server has another encoder version.

    Raises:
        NotFoundError: the folder is no export, or one of an earlier version.
        CorruptDataError: a file is missing or damaged.
    """
    description = read_description(folder)
    return ExportedEncoder(
        description,
        open_text_input(folder, description.text),
        read_space(folder, description.dim),
        lambda tower: (
            open_onnx_tower(model_path(folder, tower), threads=threads)
            if triton is None
            else open_triton_tower(triton, tower, description.encoder_version)
        ),
    )
