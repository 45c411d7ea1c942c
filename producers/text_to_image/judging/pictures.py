"""Pictures with attributes, such as colour, category and pattern: what a real one shows, or a generated one should.

{"file_name": "p1.jpg", "text": "a red dress", "attributes": {"colour": "red", "category": "dress"}, "group": "d7"}

`group` names what pictures have in common that must not be on both sides of a test, such as their design; without it
each picture is a group of its own.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from feature_repo.errors import InvalidInputError
from feature_repo.images.decoding import UnusableImageError, open_image
from feature_repo.images.geometry import Geometry
from producers.encoders.image_loader import decode_images, open_decoding_pool
from producers.evaluation.image_folder import METADATA, FolderPicture, read_image_folder

Pixels = NDArray[np.uint8]
Size = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True)
class AttributedPictures:
    """n pictures of a folder, in the order of its metadata.jsonl."""

    folder: Path
    paths: Sequence[Path]
    texts: Sequence[str]
    """The sentence of each, the first if it has several; empty if it has none."""
    attributes: Sequence[Mapping[str, str]]
    """Name -> value. A name that a picture lacks is not known of it."""
    groups: Sequence[str]

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> "AttributedPictures":
        """Return some pictures, in the order of `rows`."""
        return AttributedPictures(
            self.folder,
            [self.paths[row] for row in rows],
            [self.texts[row] for row in rows],
            [self.attributes[row] for row in rows],
            [self.groups[row] for row in rows],
        )

    def values(self, name: str) -> list[str | None]:
        """Return the value of an attribute for each picture; None where it is not known."""
        return [attributes.get(name) for attributes in self.attributes]


def read_attributed_pictures(folder: Path, text_key: str = "text") -> AttributedPictures:
    """Read metadata.jsonl of a folder; the pictures are not opened.

    Args:
        folder: the folder.
        text_key: the key that holds the sentence in a line, such as a translation. A line without it has no sentence.

    Raises:
        NotFoundError: there is no metadata.jsonl.
        InvalidInputError: a line is malformed, `attributes` is no object of texts, `group` no text, or there is no
            picture with an attribute.
    """
    pictures = read_image_folder(folder)
    if not any(_read_attributes(folder, picture) for picture in pictures):
        raise InvalidInputError(
            f'{folder / METADATA}: no picture has attributes; expected "attributes": {{"colour": "red", ...}} in lines'
        )
    return AttributedPictures(
        folder,
        [picture.path for picture in pictures],
        [_read_text(folder, picture, text_key) for picture in pictures],
        [_read_attributes(folder, picture) for picture in pictures],
        [_read_group(folder, picture) for picture in pictures],
    )


def read_size(pictures: AttributedPictures) -> Size:
    """Return the height and width of the first usable picture.

    Raises:
        InvalidInputError: no picture is usable.
    """
    for path in pictures.paths:
        try:
            image = open_image(path)
        except UnusableImageError:
            continue
        return image.height, image.width
    raise InvalidInputError(f"{pictures.folder}: none of its {len(pictures):,} pictures can be used")


def load_pixels(pictures: AttributedPictures, size: Size) -> tuple[AttributedPictures, Pixels, Counter[str]]:
    """Decode pictures and resize them.

    Returns:
        The usable pictures; their pixels, uint8 [n, height, width, 3]; and how many others there are, by reason.
    """
    geometry = Geometry(*size, resize_to=size, resample=int(Image.Resampling.BICUBIC))
    with open_decoding_pool() as pool:
        decoded = decode_images(pictures.paths, geometry, pool)
    refused = Counter(error.reason for error in decoded.refused)
    return pictures.take(np.flatnonzero(decoded.usable)), decoded.pixels, refused


def _read_text(folder: Path, picture: FolderPicture, key: str) -> str:
    if key == "text":
        return picture.texts[0] if picture.texts else ""
    text = picture.other.get(key, "")
    if not isinstance(text, str):
        raise InvalidInputError(f"{folder / METADATA}: {key} of {picture.file_name} is {text!r}; expected a text")
    return text


def _read_attributes(folder: Path, picture: FolderPicture) -> dict[str, str]:
    value = picture.other.get("attributes") or {}
    if not isinstance(value, dict) or not all(one is None or isinstance(one, str) for one in value.values()):
        raise InvalidInputError(f"{folder / METADATA}: attributes of {picture.file_name} are no object of texts")
    return {name: one for name, one in value.items() if one}


def _read_group(folder: Path, picture: FolderPicture) -> str:
    group = picture.other.get("group", picture.file_name)
    if not isinstance(group, str):
        raise InvalidInputError(f"{folder / METADATA}: group of {picture.file_name} is {group!r}; expected a text")
    return group
