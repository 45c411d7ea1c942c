"""What is known of products: the versions in the catalogue, by digests alone, and which of them held at a time.

Read are ids, times and digests, 70 bytes a version: no title, no picture. Ten million versions take six seconds and
one gigabyte.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.offline import delta
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_ID
from producers.catalogue import row_hash
from producers.catalogue.row_hash import Digests

Int64 = NDArray[np.int64]
COLUMNS = [PRODUCT_ID, EVENT_TIMESTAMP, CREATED_TIMESTAMP, "fingerprint", "image_hash", "image_stat"]


@dataclass(frozen=True)
class Known:
    """Versions sorted by product, then event time, then created time; of one moment the last created is valid."""

    products: Digests
    """[products], of their ids, ascending."""
    starts: Int64
    """[products + 1]: product k has the versions [starts[k], starts[k + 1])."""
    event: Int64
    """[versions], microseconds."""
    fingerprint: Digests
    image_hash: Digests
    """[versions], zeros where there is none."""
    image_stat: Digests
    row: Int64
    """[versions]: their place in `ids`."""
    ids: pa.ChunkedArray
    """[versions], in the catalogue's own order."""

    def find(self, products: Digests) -> Int64:
        """Which product each is; -1 for one that is not known."""
        return row_hash.find(products, self.products)

    def valid(self, product: Int64, at: Int64) -> Int64:
        """The version of each product that held at a time (inclusive); -1 where none did, or product is -1."""
        known = product >= 0
        low, high = (np.where(known, self.starts[product + step], 0) for step in (0, 1))
        first = low.copy()
        while (low < high).any():  # the first version that begins after `at` is in [low, high]
            middle = (low + high) // 2
            held = (low < high) & (self.event[np.minimum(middle, len(self.event) - 1)] <= at)
            low, high = np.where(held, middle + 1, low), np.where(held, high, middle)
        return np.where(low > first, low - 1, -1)

    def newest(self, product: Int64) -> Int64:
        """The newest version of each known product; -1 where it is -1."""
        return np.where(product >= 0, self.starts[product + 1] - 1, -1)

    def names(self, product: Int64) -> pa.ChunkedArray:
        """The ids of products."""
        return self.ids.take(pa.array(self.row[self.starts[product]]))


def read(path: Path) -> Known:
    """The versions of a catalogue; none if there is no such table."""
    if delta.exists(path):
        rows = delta.read(path, COLUMNS)
    else:
        empty = {name: pa.array([], pa.binary()) for name in COLUMNS[3:]}
        times = {name: pa.array([], pa.int64()) for name in COLUMNS[1:3]}
        rows = pa.table({PRODUCT_ID: pa.array([], pa.string()), **times, **empty})
    products = row_hash.of_texts(rows[PRODUCT_ID])
    event, created = (rows[name].cast(pa.int64()).to_numpy() for name in (EVENT_TIMESTAMP, CREATED_TIMESTAMP))
    order = row_hash.order_of(products, event, created)
    ends = row_hash.lasts_of(products, order) + 1
    fingerprint, image_hash, image_stat = (row_hash.from_arrow(rows[name])[order] for name in COLUMNS[3:])
    return Known(
        products=products[order[ends - 1]],
        starts=np.append(0, ends),
        event=event[order],
        fingerprint=fingerprint,
        image_hash=image_hash,
        image_stat=image_stat,
        row=order,
        ids=rows[PRODUCT_ID],
    )
