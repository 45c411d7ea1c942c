"""Rows online at once, and kept for the next commit offline.

A version that a table has already, by product or user, event timestamp and versions of models, is not added again. That
costs a reading of those columns at each commit, of the files that may hold these products.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import VitrineError
from feature_repo.offline import delta
from feature_repo.online.materialize import Packer
from feature_repo.online.table import OnlineTable

SERIES = "stream"
PRODUCT = (schema.PRODUCT_ID, schema.EVENT_TIMESTAMP)
KEYS: Mapping[str, tuple[str, ...]] = {
    schema.CATALOGUE_TABLE: PRODUCT,
    schema.EMBEDDING_TABLE: (*PRODUCT, "encoder_version"),
    schema.CODES_TABLE: (*PRODUCT, "codebook_version"),
    schema.TAGS_TABLE: (*PRODUCT, "tagger_version"),
    schema.NEIGHBOURS_TABLE: (*PRODUCT, "encoder_version"),
    schema.INTEREST_TABLE: (schema.USER_ID, schema.EVENT_TIMESTAMP, "encoder_version", "clicks"),
    schema.FIRST_FEATURE_TABLE: PRODUCT,
}
"""What makes a row the same as another, in the order in which tables are committed."""
ONLINE = tuple(name for name in KEYS if name != schema.FIRST_FEATURE_TABLE)


class RowWriter:
    """Where the rows of a run go."""

    def __init__(self, settings: Settings, online: OnlineTable) -> None:
        self._settings = settings
        self._online = online
        self._waiting: dict[str, list[pa.Table]] = {}

    @property
    def waiting(self) -> int:
        """Rows that are not committed yet."""
        return sum(len(part) for parts in self._waiting.values() for part in parts)

    def put(self, table: str, rows: pa.Table) -> None:
        """Write rows online, where the view is applied, and keep them for the next commit."""
        if not len(rows):
            return
        view = self._online.catalog.load().views.get(table)
        if table in ONLINE and view is not None:
            packer = Packer(view, schema.EVENT_TIMESTAMP, schema.CREATED_TIMESTAMP)
            self._online.store.write(*packer.pack(self._online, rows), view.ttl_us)
        self._waiting.setdefault(table, []).append(rows)

    def commit(self) -> dict[str, int]:
        """Add what waits to the offline tables; returns the rows added to each."""
        added = {}
        for table, key in KEYS.items():
            parts = self._waiting.get(table)
            if parts:
                added[table] = self._append(table, key, pa.concat_tables(parts))
                del self._waiting[table]
        self._online.catalog.reload()  # views applied meanwhile, layouts changed
        return added

    def _append(self, table: str, key: tuple[str, ...], rows: pa.Table) -> int:
        path = self._settings.table(table)
        for _ in range(delta.ATTEMPTS):
            turn = delta.txn_version(path, SERIES)
            new = _without(rows, key, delta.read(path, key, where=_of(rows, key)) if delta.exists(path) else None)
            if not len(new):
                return 0
            try:
                delta.append_if_version(path, new, SERIES, turn)
                return len(new)
            except delta.CommitConflict:
                continue
        raise VitrineError(f"table `{table}`: others were quicker {delta.ATTEMPTS} times; start this again")


def _of(rows: pa.Table, key: tuple[str, ...]) -> pc.Expression:
    """Rows of the same products or users that may be the same."""
    least, most = (bound(rows[schema.EVENT_TIMESTAMP]) for bound in (pc.min, pc.max))
    moment = pc.field(schema.EVENT_TIMESTAMP)
    return pc.field(key[0]).isin(pc.unique(rows[key[0]])) & (moment >= least) & (moment <= most)


def _without(rows: pa.Table, key: tuple[str, ...], known: pa.Table | None) -> pa.Table:
    """The rows whose key is not known, of each key the first."""
    numbered = rows.select(key).append_column("row", pa.array(np.arange(len(rows))))
    first = numbered.group_by(list(key)).aggregate([("row", "min")])
    if known is not None and len(known):
        first = first.join(known, list(key), join_type="left anti")
    return rows.take(first["row_min"].combine_chunks().sort())
