"""The columns of an indexed product, and the folder of an index."""

from pathlib import Path

import pyarrow as pa

from feature_repo import schema
from feature_repo.config import Settings

FOLDER = "index"
"""Folder of the indexes of `produce index`, one for each encoder version, in the folder of the Delta tables."""
GROUP_FOLDER = "group_index"
"""Folder of the indexes of `produce groups`, one for each pair verifier."""

INDEX_ROWS = pa.schema(
    [
        (schema.PRODUCT_ID, pa.string()),
        ("title", pa.string()),
        ("image", pa.string()),  # as in the catalogue; null if the shop supplies bytes
        ("category", pa.string()),
        ("brand", pa.string()),
        ("price", pa.float64()),
        (schema.SELLER_ID, pa.string()),
        ("in_stock", pa.bool_()),
        ("sales", pa.int64()),
        *((f"tag_{tag}", pa.string()) for tag in schema.TAGS),  # the predicted tags; null if the tagger abstains
        ("image_hash", pa.binary()),
        ("catalogue_us", pa.int64()),  # event timestamp of the catalogue version, microseconds since 1970 UTC
        ("embedding_us", pa.int64()),  # likewise of the vectors
        ("tags_us", pa.int64()),  # likewise of the tags; null without tags
    ]
)
"""One row for each indexed product version."""

PICTURE = "picture"
"""Array of a segment of an index of `produce groups`: the numbers of `describe_picture`, NaN without a usable picture.
"""
TEXTURES = "texture"
"""Array of a segment: descriptions of the pictures' texture, float16 [rows, width], NaN without a picture."""
WORDS = "words"
"""Array of a segment: how much each picture looks like a word of titles, float16 [words, rows], NaN without a
picture."""


def find_folder(settings: Settings, encoder_version: str) -> Path:
    """Return the folder of the index of an encoder version; it may not exist yet."""
    return settings.local / FOLDER / name_folder(encoder_version)


def find_group_folder(settings: Settings, verifier_version: str) -> Path:
    """Return the folder of the index of a pair verifier; it may not exist yet."""
    return settings.local / GROUP_FOLDER / verifier_version


def name_folder(encoder_version: str) -> str:
    """Return the name of the folder of an index, in FOLDER."""
    return encoder_version.replace("/", "-")
