"""What the store knows of a product that is to be captioned: its picture, its brand, and what its tags are sure of."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from feature_repo import schema
from feature_repo.arrow.text import normalize_id
from feature_repo.config import Settings
from feature_repo.errors import NotFoundError
from feature_repo.location import BucketObject
from feature_repo.offline import delta
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_ID, TAG_SEPARATOR, TAGS
from producers.captions.facts import FURTHER, ProductFacts, TagTable, open_tags, read_facts

REFRESH_SECONDS = 10.0
"""Time until a change of a product or of its tags is seen."""
BRAND_SECONDS = 300.0
"""Time until a new brand is seen."""
MAX_KEPT = 1_000
"""Products that are kept in memory until the tables are opened anew."""


@dataclass(frozen=True)
class StoredProduct:
    """The newest version of a product."""

    product_id: str
    title: str | None
    brand: str | None
    picture: Path | BucketObject | bytes | None
    """The file, the object or the bytes of its picture; None without one."""
    facts: ProductFacts | None
    """What its tags say; None without tags."""


@dataclass(frozen=True)
class _Snapshot:
    """The newest versions of the tables at a time, opened, and the products that were read from them."""

    opened_at: float
    catalogue: pyarrow.dataset.Dataset
    tags: TagTable
    products: dict[str, StoredProduct]


class ProductReader:
    """Reads products of the catalogue by their ids. Safe to share between threads.

    Opening the tables takes longer than reading one product, so they stay open for REFRESH_SECONDS.

    Args:
        settings: the deployment.
        min_probability: a tag's value that is less probable is not sure, in [0, 1].
        clock: returns a time in seconds that only grows.
    """

    def __init__(self, settings: Settings, min_probability: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._path = settings.table(schema.CATALOGUE_TABLE)
        self._min_probability = min_probability
        self._clock = clock
        self._lock = threading.Lock()
        self._snapshot: _Snapshot | None = None
        self._brands: tuple[float, frozenset[str]] | None = None

    def find(self, product_id: str) -> StoredProduct:
        """Return the newest version of a product.

        Raises:
            NotFoundError: the catalogue has no such product, or there is no table of tags.
        """
        product_id = normalize_id(product_id)
        snapshot = self._open_snapshot()
        product = snapshot.products.get(product_id)
        if product is None:
            try:
                product = self._read(snapshot, product_id)
            except FileNotFoundError:  # of this version, because of a vacuum since it was opened
                snapshot = self._open_snapshot(unusable=snapshot)
                product = self._read(snapshot, product_id)
            with self._lock:
                if len(snapshot.products) >= MAX_KEPT:
                    snapshot.products.clear()
                snapshot.products[product_id] = product
        return product

    def list_brands(self) -> frozenset[str]:
        """Return the brands of the shop in lower case."""
        now, kept = self._clock(), self._brands
        if kept is None or now >= kept[0] + BRAND_SECONDS:
            brands = delta.read(self._path, ["brand"])["brand"].unique() if delta.exists(self._path) else pa.array([])
            self._brands = kept = now, frozenset(one.lower() for one in brands.to_pylist() if one)
        return kept[1]

    def list_tags(self) -> frozenset[str]:
        """Return the names of the tags of the shop: those of every shop, and further ones that `product_tags` has."""
        path = self._settings.table(schema.TAGS_TABLE)
        if not delta.exists(path) or FURTHER[0] not in delta.open_dataset(path).schema.names:
            return frozenset(TAGS)
        texts = pc.unique(pc.list_flatten(delta.read(path, [FURTHER[0]])[FURTHER[0]])).to_pylist()
        return frozenset(TAGS) | {text.partition(TAG_SEPARATOR)[0] for text in texts if text}

    def _open_snapshot(self, unusable: _Snapshot | None = None) -> _Snapshot:
        """Return the tables, opened at most REFRESH_SECONDS ago; opened anew if they are `unusable`."""
        with self._lock:
            now, snapshot = self._clock(), self._snapshot
            if snapshot is None or snapshot is unusable or now >= snapshot.opened_at + REFRESH_SECONDS:
                catalogue = delta.open_dataset(self._path)
                snapshot = self._snapshot = _Snapshot(now, catalogue, open_tags(self._settings), {})
            return snapshot

    def _read(self, snapshot: _Snapshot, product_id: str) -> StoredProduct:
        columns = [PRODUCT_ID, EVENT_TIMESTAMP, CREATED_TIMESTAMP, "title", "brand", "image", "image_bytes"]
        rows = snapshot.catalogue.to_table(columns, filter=pc.field(PRODUCT_ID) == product_id)
        if not len(rows):
            raise NotFoundError(f"product_id: there is no product {product_id[:100]!r} in the catalogue")
        newest = rows.sort_by([(EVENT_TIMESTAMP, "ascending"), (CREATED_TIMESTAMP, "ascending")]).slice(len(rows) - 1)
        row = newest.to_pylist()[0]
        path = None if row["image"] is None else self._settings.find_picture(row["image"])
        return StoredProduct(
            product_id=product_id,
            title=row["title"],
            brand=row["brand"],
            picture=path if row["image_bytes"] is None else row["image_bytes"],
            facts=read_facts(snapshot.tags, newest, self._min_probability)[0],
        )
