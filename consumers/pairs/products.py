"""What the verifier needs to know of a product, from the index of `produce groups` or given by a caller."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feature_repo.content_hash import content_hash
from feature_repo.errors import VitrineError
from feature_repo.exported.encoder import ExportedEncoder
from feature_repo.images import decoding
from feature_repo.index.product_index import ProductIndex, open_index
from feature_repo.index.rows import PICTURE
from feature_repo.pairs.picture import describe_picture

Vector = NDArray[np.float32]

COLUMNS = ("title", "brand", "category", "price", "image_hash")


@dataclass(frozen=True, eq=False)
class KnownProduct:
    """One product; None is unknown."""

    title: str | None
    brand: str | None = None
    category: str | None = None
    """Levels from the top, separated by `>`."""
    price: float | None = None
    facts: str = ""
    """Texts in which measures are looked for beside the title."""
    image_hash: bytes | None = None
    picture: Vector | None = None
    """Of `describe_picture`."""
    image_vector: Vector | None = None
    text_vector: Vector | None = None
    pixels: NDArray[np.uint8] | None = None
    """The picture as the image tower reads it, if `image_vector` is not known yet."""


def describe_product(
    encoder: ExportedEncoder,
    *,
    title: str | None,
    picture: bytes | None,
    brand: str | None = None,
    price: float | None = None,
    category: str | None = None,
    facts: str = "",
    max_pixels: int = decoding.MAX_PIXELS,
) -> KnownProduct:
    """Return a product that is not in the shop. Its vectors are computed later, with those of others.

    Args:
        encoder: cuts the picture.
        title: the title.
        picture: the encoded picture.
        brand: the brand.
        price: the price, in the currency of the shop.
        category: levels from the top, separated by `>`.
        facts: texts in which measures are looked for.
        max_pixels: largest width times height of the picture, inclusive.

    Raises:
        InvalidInputError: the encoder has no image tower.
        UnusableImageError: the picture cannot be decoded, or is too large.
    """
    product = KnownProduct(title, brand, category, price, facts)
    if picture is None:
        return product
    decoding.check_pixels(picture, max_pixels)
    pixels, described = encoder.cut_picture(picture), describe_picture(picture)
    return KnownProduct(title, brand, category, price, facts, content_hash(picture), described, pixels=pixels)


class IndexedProductReader:
    """Reads products of the shop by their ids from the index of a pair verifier. Safe to share between threads.

    Args:
        folder: folder of the index that `produce groups` writes; it need not exist yet.
        encoder_version: of the vectors.
        refresh_seconds: time after which it is looked whether `produce groups` has changed the index.
        clock: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        folder: Path,
        encoder_version: str,
        *,
        refresh_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._encoder_version = encoder_version
        self._refresh_seconds = refresh_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._index: ProductIndex | None = None
        self._opened = -float("inf")

    def read(self, product_ids: Sequence[str]) -> list[KnownProduct | None]:
        """Return the products in the order of their ids; None for one that the index does not have.

        Raises:
            NotFoundError: there is no index.
            EncoderMismatchError: the index is of another encoder version.
            CorruptDataError: it is damaged.
        """
        index = self._open()
        found = index.find_rows(list(product_ids))
        rows = found[found >= 0]
        table = index.take(rows, COLUMNS).to_pylist()
        image, text = (
            index.take_vectors(name, rows) if name in index.vectors else [None] * len(rows)
            for name in ("image_vector", "text_vector")
        )
        pictures = index.take_array(PICTURE, rows)
        products: list[KnownProduct | None] = [None] * len(found)
        for number, position in enumerate(np.flatnonzero(found >= 0).tolist()):
            products[position] = KnownProduct(
                **table[number],
                picture=None if pictures is None else _to_known(pictures[number]),
                image_vector=_to_known(image[number]),
                text_vector=_to_known(text[number]),
            )
        return products

    def _open(self) -> ProductIndex:
        """Return the open index, opened again from time to time.

        The index of a verifier that was replaced is removed; the open one is then used as long as the server runs.
        """
        with self._lock:
            if self._index is None:
                self._index, self._opened = open_index(self._folder, self._encoder_version), self._clock()
            elif self._clock() - self._opened >= self._refresh_seconds:
                with suppress(VitrineError):
                    self._index = open_index(self._folder, self._encoder_version)
                self._opened = self._clock()
            return self._index


def _to_known(vector: Vector | None) -> Vector | None:
    return None if vector is None or np.isnan(vector[0]) else vector
