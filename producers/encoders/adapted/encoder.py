"""An encoder with a map behind it: the vectors of one encoder, in a space close to that of another.

The result is a space of its own with its own version: vectors of it are compared with each other only. `load` in
producers/encoders opens the directory as any checkpoint:

FOLDER/config.json             {"model_type": "vitrine_adapter", "source_version", "target_version", "map"}
FOLDER/maps.safetensors        the arrays of the maps of images and of texts (vector_map.py)
FOLDER/fusion/                 the space of fused vectors (whitening.py)
FOLDER/source                  directory or hub name of the encoder whose vectors are mapped; the version leaves it out
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from feature_repo.errors import CorruptDataError, EncoderMismatchError, InvalidInputError
from feature_repo.fusion import Space
from feature_repo.images.geometry import Geometry
from producers.encoders import checkpoint_files, whitening
from producers.encoders.adapted.vector_map import MapKind, VectorMap
from producers.encoders.encoder import Encoder, Pixels, Vectors

MODEL_TYPE = "vitrine_adapter"
"""`model_type` in config.json."""
MAPS_FILE = "maps.safetensors"
SOURCE_FILE = "source"
IMAGE, TEXT = "image.", "text."
"""Prefixes of the arrays of a map."""


@dataclass(frozen=True)
class Adapter:
    """Maps from the vectors of a source encoder into the space of a target encoder."""

    source_version: str
    """Version of the encoder whose vectors are mapped."""
    target_version: str
    """Version of the encoder whose vectors they come close to."""
    kind: MapKind
    """How vectors are mapped."""
    image: VectorMap | None
    """Map of the vectors of images; None if one of both encoders has none."""
    text: VectorMap
    """Map of the vectors of texts."""
    space: Space
    """The space of fused vectors."""

    @property
    def dim(self) -> int:
        """Width of a mapped vector."""
        return int(self.text.matrix.shape[1])


class AdaptedEncoder:
    """A source encoder and an adapter; it implements the protocol `Encoder`."""

    def __init__(self, source: Encoder, adapter: Adapter, version: str) -> None:
        """Put an adapter behind an encoder.

        Args:
            source: the encoder whose version the adapter names.
            adapter: the maps.
            version: `name@fingerprint` of the result.
        """
        self.source, self.adapter, self.version = source, adapter, version
        self.dim = adapter.dim
        self.space: Space | None = adapter.space
        self.has_images = adapter.image is not None and source.has_images
        self.geometry: Geometry | None = source.geometry if self.has_images else None
        self.image_batch_size, self.concurrent_calls = source.image_batch_size, source.concurrent_calls

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors float32 [n, dim] of texts, in order; NaN where the source gives none."""
        return self.adapter.text.transform(self.source.encode_texts(texts))

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """Return unit vectors float32 [n, dim] of images, in order; NaN where the source gives none.

        Raises:
            InvalidInputError: there is no map of images.
        """
        return self._require_image_map().transform(self.source.encode_images(images))

    def encode_pixels(self, pixels: Pixels) -> Vectors:
        """Return unit vectors float32 [n, dim] of images resized by `geometry`, uint8 [n, height, width, 3], in order.

        Raises:
            InvalidInputError: there is no map of images.
        """
        return self._require_image_map().transform(self.source.encode_pixels(pixels))

    def _require_image_map(self) -> VectorMap:
        if self.adapter.image is None:
            raise InvalidInputError(f"{self.version} has no map of images: one of its two encoders has no image tower")
        return self.adapter.image


def save_adapter(adapter: Adapter, source: str, folder: Path) -> None:
    """Write an adapter to a folder, which must exist.

    Args:
        adapter: what to write.
        source: directory or hub name of the source encoder. A directory is named relative to `folder`.
        folder: where to write.
    """
    names = {"source_version": adapter.source_version, "target_version": adapter.target_version}
    config = {"model_type": MODEL_TYPE, **names, "map": str(adapter.kind)}
    arrays = adapter.text.to_arrays(TEXT) | (adapter.image.to_arrays(IMAGE) if adapter.image else {})
    save_file(arrays, folder / MAPS_FILE)
    whitening.save_space(adapter.space, folder)
    if Path(source).is_dir():
        source = os.path.relpath(Path(source).resolve(), folder.resolve())
    (folder / SOURCE_FILE).write_text(source)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter.

    Raises:
        CorruptDataError: a file is missing or unreadable, or the files do not fit each other.
    """
    try:
        config = checkpoint_files.read_json(folder / "config.json")
        arrays = load_file(folder / MAPS_FILE)
        image = VectorMap.from_arrays(arrays, IMAGE) if any(name.startswith(IMAGE) for name in arrays) else None
        text = VectorMap.from_arrays(arrays, TEXT)
        space = whitening.read_space(folder, text.matrix.shape[1])
        if space is None:
            raise ValueError("the space of fused vectors is missing")
        return Adapter(config["source_version"], config["target_version"], MapKind(config["map"]), image, text, space)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise CorruptDataError(
            f"{folder}: the adapter cannot be read ({error}); run `produce adapter` again"
        ) from error


def load_encoder(folder: Path, version: str, load_source: Callable[[str], Encoder]) -> AdaptedEncoder:
    """Load an adapter and the encoder whose vectors it maps.

    Args:
        folder: the adapter.
        version: `name@fingerprint`, which becomes the encoder's version.
        load_source: loads a directory or hub name.

    Raises:
        CorruptDataError: the adapter cannot be read.
        EncoderMismatchError: the source encoder has another version than the one that the adapter was fitted on.
        VitrineError: the source encoder cannot be loaded.
    """
    adapter = read_adapter(folder)
    file = folder / SOURCE_FILE
    if not file.is_file():
        raise CorruptDataError(f"{file}: missing; write the directory or hub name of {adapter.source_version} into it")
    name = file.read_text().strip()
    source = load_source(str((folder / name).resolve()) if (folder / name).is_dir() else name)
    if source.version != adapter.source_version:
        raise EncoderMismatchError(
            f"{folder} was fitted on {adapter.source_version}, {name} is {source.version}; put back that checkpoint, "
            "or run `produce adapter` again"
        )
    if len(adapter.text.matrix) != source.dim:
        raise CorruptDataError(f"{folder}: its maps take {len(adapter.text.matrix)} values, {name} has {source.dim}")
    return AdaptedEncoder(source, adapter, version)
