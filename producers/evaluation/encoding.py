"""Texts and pictures to vectors, by a checkpoint that torch runs or by an export that ONNX Runtime runs."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from feature_repo.errors import InvalidInputError
from feature_repo.exported.encoder import ExportedEncoder, open_encoder
from feature_repo.exported.files import ENCODER_FILE
from feature_repo.images.decoding import Source, UnusableImageError, open_image
from producers.encoders import Encoder, load
from producers.encoders.encoder import Vectors
from producers.encoders.image_loader import decode_images, open_decoding_pool

CHUNK = 512
"""Pictures or texts that are in memory at a time."""


class TextImageEncoder(Protocol):
    """Texts and pictures to unit vectors of one space; NaN where there is none."""

    @property
    def version(self) -> str:
        """`name@fingerprint`."""

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of texts, float32 [n, dim]."""

    def encode_pictures(self, sources: Sequence[Source]) -> Vectors:
        """Return the vectors of pictures, given as files or encoded bytes; NaN where one is unusable."""


@contextmanager
def open_text_image_encoder(path_or_name: str) -> Iterator[TextImageEncoder]:
    """Open an encoder for the length of a context.

    Args:
        path_or_name: a folder that `produce export` wrote; else a checkpoint directory or hub name.

    Raises:
        InvalidInputError: the encoder encodes no pictures.
        VitrineError: it cannot be opened.
    """
    if (Path(path_or_name) / ENCODER_FILE).is_file():
        exported = open_encoder(Path(path_or_name))
        _require_images(path_or_name, exported.has_images)
        yield _Exported(exported)
        return
    model = load(path_or_name)
    _require_images(path_or_name, model.has_images)
    with open_decoding_pool() as pool:
        yield _Checkpoint(model, pool)


def _require_images(path_or_name: str, has_images: bool) -> None:
    if not has_images:
        raise InvalidInputError(f"{path_or_name} encodes texts only; expected an encoder of texts and pictures")


@dataclass(frozen=True)
class _Checkpoint:
    model: Encoder
    pool: ProcessPoolExecutor

    @property
    def version(self) -> str:
        return self.model.version

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        parts = [self.model.encode_texts(texts[start : start + CHUNK]) for start in range(0, len(texts), CHUNK)]
        return np.concatenate([np.empty((0, self.model.dim), np.float32), *parts])

    def encode_pictures(self, sources: Sequence[Source]) -> Vectors:
        vectors = np.full((len(sources), self.model.dim), np.nan, np.float32)
        for start in range(0, len(sources), CHUNK):
            chunk = sources[start : start + CHUNK]
            rows = vectors[start : start + CHUNK]
            if self.model.geometry is not None:
                decoded = decode_images(chunk, self.model.geometry, self.pool)
                rows[decoded.usable] = self.model.encode_pixels(decoded.pixels)
                continue
            for row, source in enumerate(chunk):
                try:
                    rows[row] = self.model.encode_images([open_image(source)])[0]
                except UnusableImageError:
                    continue
        return vectors


@dataclass(frozen=True)
class _Exported:
    encoder: ExportedEncoder

    @property
    def version(self) -> str:
        return self.encoder.encoder_version

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        return self.encoder.encode_texts(texts)

    def encode_pictures(self, sources: Sequence[Source]) -> Vectors:
        vectors = np.full((len(sources), self.encoder.dim), np.nan, np.float32)
        for start in range(0, len(sources), CHUNK):
            pixels, rows = [], []
            for row, source in enumerate(sources[start : start + CHUNK], start):
                try:
                    pixels.append(self.encoder.cut_picture(source))
                except UnusableImageError:
                    continue
                rows.append(row)
            vectors[rows] = self.encoder.encode_pixels(pixels)
        return vectors
