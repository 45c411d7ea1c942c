"""What the pages show of a deployment: its index and the towers that search it, products, and groups.

The index and the groups are opened again when a producer has replaced them.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from consumers.pages.groups import GroupTable, read_groups
from consumers.search.calibration import SearchCalibration, read_calibration
from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import EncoderMismatchError, InvalidInputError, NotFoundError
from feature_repo.exported.encoder import ExportedEncoder, open_encoder
from feature_repo.index.manifest import FILE, read_manifest
from feature_repo.index.product_index import GONE, ProductIndex, open_index
from feature_repo.index.production import find_production_folder
from feature_repo.index.rows import find_folder
from feature_repo.offline import delta, production, versions
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_ID

REFRESH_SECONDS = 5.0
"""Time between two looks at whether the index or the groups have changed."""
PICTURE_VECTOR = "image_vector"
"""Vector that a sent picture is compared with."""
_COLUMNS = (PRODUCT_ID, "title", "image", "category", "brand", "price", schema.SELLER_ID, "in_stock", "image_hash")


@dataclass(frozen=True)
class Product:
    """A product as the pages show it. None where the shop states nothing."""

    product_id: str
    title: str | None
    image: str | None
    """Path of the picture; None if the shop supplies bytes, or no picture."""
    category: str | None
    brand: str | None
    price: float | None
    seller_id: str | None
    in_stock: bool | None
    image_hash: bytes | None
    """Of the picture; None without a readable one."""
    is_gone: bool = False
    """Whether it has left the shop."""


class Shop:
    """Index, towers, products and groups of a deployment. Safe to share between threads.

    Args:
        settings: the deployment.
        towers: folder that `produce export` wrote; None: no search by a sentence or a picture.
        triton: address of a Triton server that serves the towers; None runs them in this process.
        calibration: file that `consume calibrate-search` wrote; None: default weights, and no cut-offs.

    Raises:
        NotFoundError: a file does not exist.
        CorruptDataError: a file is damaged.
        EncoderMismatchError: the calibration is not of the towers' encoder.
    """

    def __init__(
        self, settings: Settings, *, towers: Path | None, triton: str | None = None, calibration: Path | None
    ) -> None:
        self.settings = settings
        self.calibration_file = calibration
        self.encoder: ExportedEncoder | None = (
            None if towers is None else open_encoder(towers, threads=1, triton=triton)
        )
        self.calibration: SearchCalibration | None = None if calibration is None else read_calibration(calibration)
        versions_given = {one.encoder_version for one in (self.encoder, self.calibration) if one is not None}
        if len(versions_given) > 1:
            raise EncoderMismatchError(
                f"{calibration} and {towers} are of two encoders, {' and '.join(sorted(versions_given))}; give files "
                "of one encoder"
            )
        self._lock = threading.Lock()
        self._index: ProductIndex | None = None
        self._groups: GroupTable | None = None
        self._looked_at: dict[str, float] = {}

    def find_index(self) -> ProductIndex | None:
        """Return the index of the towers' encoder, else of the version in production; None if it is not built yet."""
        with self._lock:
            if self._is_due("index"):
                folder = self._find_index_folder()
                if folder is None or not (folder / FILE).is_file():
                    self._index = None
                elif (
                    self._index is None or self._index.folder != folder or self._index.manifest != read_manifest(folder)
                ):
                    self._index = open_index(folder)
            return self._index

    def require_index(self) -> ProductIndex:
        """Return the index. Raise NotFoundError if it is not built yet."""
        index = self.find_index()
        if index is None:
            raise NotFoundError("the products are not indexed yet; run: produce index")
        return index

    @property
    def takes_pictures(self) -> bool:
        """Whether pictures can be encoded, and the index has vectors to compare them with."""
        index = self.find_index()
        return (
            index is not None
            and PICTURE_VECTOR in index.vectors
            and self.encoder is not None
            and self.encoder.has_images
        )

    def find_groups(self) -> GroupTable | None:
        """Return the groups; None if `produce groups` has not run yet."""
        with self._lock:
            if self._is_due("groups"):
                version = delta.latest_version(self.settings.table(schema.GROUP_TABLE))
                if self._groups is None or self._groups.version != version:
                    self._groups = read_groups(self.settings)
            return self._groups

    def find_products(self, product_ids: Sequence[str]) -> dict[str, Product]:
        """Return the products that are known, by id: from the index, else from the catalogue.

        Args:
            product_ids: any texts; may repeat.
        """
        found: dict[str, Product] = {}
        index = self.find_index()
        if index is not None and product_ids:
            rows = index.find_rows(product_ids)
            rows = np.unique(rows[rows >= 0])
            gone = (index.flags[rows] & GONE) > 0
            for row, is_gone in zip(index.take(rows, _COLUMNS).to_pylist(), gone.tolist(), strict=True):
                found[row[PRODUCT_ID]] = Product(**row, is_gone=is_gone)
        missing = [one for one in dict.fromkeys(product_ids) if one not in found]
        return found | (self._read_catalogue(missing) if missing else {})

    def list_pictures(self, product_id: str) -> list[str]:
        """Return the paths of the further pictures of a product, as the catalogue has them."""
        path = self.settings.table(schema.CATALOGUE_TABLE)
        if not delta.exists(path):
            return []
        table = delta.open_dataset(path)
        if "images" not in table.schema.names:
            return []
        rows = _read_newest(table, [product_id], ["images"])
        return [one for one in (rows["images"][0].as_py() or []) if one] if len(rows) else []

    def _read_catalogue(self, product_ids: Sequence[str]) -> dict[str, Product]:
        path = self.settings.table(schema.CATALOGUE_TABLE)
        if not delta.exists(path):
            return {}
        table = delta.open_dataset(path)
        names = [name for name in _COLUMNS if name in table.schema.names]
        rows = _read_newest(table, product_ids, names).to_pylist()
        gone = set(versions.read_gone_products(self.settings.table(schema.ACTIVE_TABLE)).to_pylist()) if rows else set()
        empty = dict.fromkeys(_COLUMNS)
        return {row[PRODUCT_ID]: Product(**empty | row, is_gone=row[PRODUCT_ID] in gone) for row in rows}

    def _find_index_folder(self) -> Path | None:
        if self.encoder is not None:
            return find_folder(self.settings, self.encoder.encoder_version)
        try:
            return find_production_folder(self.settings.local, production.read_version(self.settings.offline))
        except (NotFoundError, InvalidInputError):  # there is none, or none is known to be the right one
            return None

    def _is_due(self, name: str) -> bool:
        """Return whether it is time to look whether something has changed, and note that it was looked at."""
        now = time.monotonic()
        if now - self._looked_at.get(name, -REFRESH_SECONDS) < REFRESH_SECONDS:
            return False
        self._looked_at[name] = now
        return True


def _read_newest(table: pyarrow.dataset.Dataset, product_ids: Sequence[str], columns: Sequence[str]) -> pa.Table:
    """Return the newest row of each of some products in the catalogue."""
    return versions.read_newest(
        table,
        list(columns),
        pc.field(PRODUCT_ID).isin(list(product_ids)),
        keys=[PRODUCT_ID],
        event_timestamp=EVENT_TIMESTAMP,
        created_timestamp=CREATED_TIMESTAMP,
    )
