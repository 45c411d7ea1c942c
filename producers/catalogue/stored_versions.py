"""The stored versions of products: their hashes, and which version is valid at a time.

Only ids, timestamps and hashes are read, 70 bytes a version, and neither titles nor images. Ten million versions take
six seconds and one gigabyte of memory.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.location import Location
from feature_repo.offline import delta
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_ID
from producers.catalogue import row_hash
from producers.catalogue.row_hash import RowHashes

Int64 = NDArray[np.int64]
COLUMNS = [PRODUCT_ID, EVENT_TIMESTAMP, CREATED_TIMESTAMP, "fingerprint", "image_hash", "image_stat"]


@dataclass(frozen=True)
class StoredVersions:
    """All stored versions of all products, sorted by product, then event timestamp, then created timestamp.

    Of several versions with one event timestamp, the one created last is valid. A product number is an index into
    `products`; a version number is an index into the arrays of length `versions`.
    """

    products: RowHashes
    """[products, 2], hashes of the product ids, distinct, ascending."""
    starts: Int64
    """[products + 1]: product k has the versions [starts[k], starts[k + 1])."""
    event_timestamps_us: Int64
    """[versions], microseconds since 1970 UTC."""
    fingerprints: RowHashes
    """[versions, 2]"""
    image_hashes: RowHashes
    """[versions, 2], zeros for a version without an image hash."""
    image_stats: RowHashes
    """[versions, 2], zeros for a version without an image file."""
    row_index: Int64
    """[versions], the row of `product_ids` that holds the version's product id."""
    product_ids: pa.ChunkedArray
    """[versions], one id for each row of the Delta table, in the table's order."""

    def find_products(self, products: RowHashes) -> Int64:
        """Return the product number of each of n ids, given by its hash; -1 for a product without a version.

        Args:
            products: [n, 2], from `row_hash.hash_texts`, in any order; an id may be repeated.
        """
        return row_hash.find_positions(products, self.products)

    def find_valid(self, product: Int64, timestamp_us: Int64) -> Int64:
        """Return for each of n products the version number that is valid at a time: int64 [n].

        This is the newest version whose event timestamp is not later than the time. -1 if the product has none by
        then, or if the product number is -1.

        Args:
            product: [n], product numbers, or -1.
            timestamp_us: [n], microseconds since 1970 UTC, one time for each product.
        """
        is_stored = product >= 0
        low, high = (np.where(is_stored, self.starts[product + step], 0) for step in (0, 1))
        first = low.copy()
        while (low < high).any():  # binary search: the first later version is in [low, high]
            middle = (low + high) // 2
            event_us = self.event_timestamps_us[np.minimum(middle, len(self.event_timestamps_us) - 1)]
            is_valid = (low < high) & (event_us <= timestamp_us)
            low, high = np.where(is_valid, middle + 1, low), np.where(is_valid, high, middle)
        return np.where(low > first, low - 1, -1)

    def find_newest(self, product: Int64) -> Int64:
        """Return for each of n products the version number with the latest event timestamp: int64 [n].

        Of several versions with this event timestamp it is the one created last.

        Args:
            product: [n], product numbers; -1 gives -1.
        """
        return np.where(product >= 0, self.starts[product + 1] - 1, -1)

    def take_product_ids(self, product: Int64) -> pa.ChunkedArray:
        """Return the product ids of n products as text, in their order.

        Args:
            product: [n], product numbers, none of them -1; a number may be repeated.
        """
        return self.product_ids.take(pa.array(self.row_index[self.starts[product]]))


def read_versions(path: Location) -> StoredVersions:
    """Read all versions of the Delta table `product_catalogue`, also those of products that are gone.

    Args:
        path: the table's folder. If there is no table, the result has no products and no versions.

    Raises:
        CorruptDataError: the table is damaged.
    """
    if delta.exists(path):
        rows = delta.read(path, COLUMNS)
    else:
        hashes = {name: pa.array([], pa.binary()) for name in COLUMNS[3:]}
        timestamps = {name: pa.array([], pa.int64()) for name in COLUMNS[1:3]}
        rows = pa.table({PRODUCT_ID: pa.array([], pa.string()), **timestamps, **hashes})
    products = row_hash.hash_texts(rows[PRODUCT_ID])
    event_us, created_us = (rows[name].cast(pa.int64()).to_numpy() for name in (EVENT_TIMESTAMP, CREATED_TIMESTAMP))
    order = row_hash.sort_order(products, event_us, created_us)
    ends = row_hash.find_last_positions(products, order) + 1
    fingerprints, image_hashes, image_stats = (row_hash.from_arrow(rows[name])[order] for name in COLUMNS[3:])
    return StoredVersions(
        products=products[order[ends - 1]],
        starts=np.append(0, ends),
        event_timestamps_us=event_us[order],
        fingerprints=fingerprints,
        image_hashes=image_hashes,
        image_stats=image_stats,
        row_index=order,
        product_ids=rows[PRODUCT_ID],
    )
