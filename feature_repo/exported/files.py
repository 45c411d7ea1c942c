"""The files of an export, which are also a model repository of Triton Inference Server.

EXPORT/encoder.json                 version, widths, how texts and pictures are prepared (EncoderDescription)
EXPORT/tokenizer.json               tokenizer of the text tower, of the library `tokenizers`; left out without one
EXPORT/words.json                   tokenizer of the shop's words; only of an assembled encoder
EXPORT/fusion.npz                   `centre` and `axes` of the space of fused vectors; left out without one
EXPORT/text_tower/1/model.onnx      input_ids, attention_mask -> vectors
EXPORT/image_tower/1/model.onnx     pixels -> vectors; left out if the encoder has none, or needs more than a cut
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from feature_repo.errors import CorruptDataError, NotFoundError
from feature_repo.files.json_text import parse_json
from feature_repo.fusion import Space
from feature_repo.images.geometry import Geometry

ENCODER_FILE, TOKENIZER_FILE, WORDS_FILE, FUSION_FILE = "encoder.json", "tokenizer.json", "words.json", "fusion.npz"
IMAGE, TEXT = "image_tower", "text_tower"
"""Names of the towers: their folders, and their models in Triton."""
OUTPUT = "vectors"
"""Name of the output of either tower."""
VERSION_PARAMETER = "encoder_version"
"""Parameter of a tower's config.pbtxt with the encoder's version."""
FORMAT = 2
"""Version of encoder.json."""


@dataclass(frozen=True)
class TextDescription:
    """How a text becomes a row of token ids: the words of the shop, then the tokens of the text tower."""

    length: int
    """Most tokens of the text tower, special ones included; 0 without a text tower."""
    has_mask: bool
    """Whether the tower reads a mask. Otherwise all rows have one length."""
    pad_id: int
    pads_left: bool
    special_ids: tuple[int, ...]
    """Ids of the tokenizer that stand for no word of a text."""
    prompt: str = ""
    """Put before every text."""
    lower: bool = False
    """Whether texts are lowercased."""
    words_length: int = 0
    """Different words of the shop at the start of a row, filled up with 0; 0 without such words."""
    special_word_ids: tuple[int, ...] = ()
    """Ids of words.json that are left out."""


@dataclass(frozen=True)
class EncoderDescription:
    """The content of encoder.json."""

    encoder_version: str
    """`name@fingerprint`."""
    dim: int
    """Width of the vectors."""
    text: TextDescription
    geometry: Geometry | None
    """How a picture is cut; None if there is no image tower."""
    without_images: str = ""
    """Why there is no image tower; "" if there is one."""
    pair_verifier: str = ""
    """Version of the verifier in `pair_verifiers/VERSION.npz` of the export; "" without one."""

    @property
    def row_length(self) -> int:
        """Longest row of token ids: words of the shop and tokens of the text tower."""
        return self.text.words_length + self.text.length


def model_path(folder: Path, tower: str) -> Path:
    """Return the path of a tower's ONNX file in an export, whether or not it exists.

    Args:
        folder: the export.
        tower: IMAGE or TEXT.
    """
    return folder / tower / "1" / "model.onnx"


def write_description(folder: Path, description: EncoderDescription) -> None:
    """Write encoder.json into a folder."""
    (folder / ENCODER_FILE).write_text(json.dumps({"format": FORMAT, **asdict(description)}, indent=1))


def read_description(folder: Path) -> EncoderDescription:
    """Read encoder.json of an export.

    Raises:
        NotFoundError: the folder is no export, or one of an earlier version.
        CorruptDataError: the file is damaged.
    """
    file = folder / ENCODER_FILE
    again = f"run: produce export --encoder ENCODER --output {folder}"
    if not file.is_file():
        raise NotFoundError(f"{folder}: no {ENCODER_FILE}; {again}")
    try:
        content: dict[str, Any] = parse_json(file.read_text())
        if content.pop("format", 1) != FORMAT:
            raise NotFoundError(f"{file}: written by another version; {again}")
        text, geometry = content.pop("text"), content.pop("geometry")
        for name in ("special_ids", "special_word_ids"):
            text[name] = tuple(text[name])
        if geometry is not None and isinstance(geometry["resize_to"], list):
            geometry["resize_to"] = tuple(geometry["resize_to"])
        return EncoderDescription(
            text=TextDescription(**text), geometry=None if geometry is None else Geometry(**geometry), **content
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptDataError(f"{file}: not readable ({error}); {again}") from error


def write_space(folder: Path, space: Space | None) -> None:
    """Write the space of fused vectors into an export; nothing if there is none."""
    if space is not None:
        np.savez(folder / FUSION_FILE, centre=space.centre, axes=space.axes)


def read_space(folder: Path, dim: int) -> Space | None:
    """Return the space of fused vectors of an export; None if it has none.

    Raises:
        CorruptDataError: the file is damaged, or not of `dim` dimensions.
    """
    file = folder / FUSION_FILE
    if not file.is_file():
        return None
    try:
        with np.load(file, allow_pickle=False) as arrays:
            space = Space(arrays["centre"], arrays["axes"])
    except Exception as error:  # np.load raises errors of zipfile, zlib and its own
        raise CorruptDataError(f"{file}: not readable ({error}); run produce export again") from error
    if space.centre.shape != (dim,) or space.axes.shape != (dim, dim):
        raise CorruptDataError(f"{file}: not of {dim} dimensions; run produce export again")
    return space
