"""Writes rows online at once, and keeps them for the next commit to the offline tables.

A commit skips the rows that the table has already, by product or user, event timestamp and model versions (KEYS). For
that it reads these columns from the files that may have the same products. Small files of earlier commits are merged,
so that a commit takes as long after a day as at its beginning.
"""

import logging
from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import ConflictError
from feature_repo.offline import delta, delta_files, delta_log, retention
from feature_repo.online.catalog import View
from feature_repo.online.materialize import Packer
from feature_repo.online.table import OnlineTable

_log = logging.getLogger(__name__)

SERIES = "stream"
"""Name under which `delta.append_if_version` counts the commits of streams."""
PRODUCT_VERSION = (schema.PRODUCT_ID, schema.EVENT_TIMESTAMP)
"""The columns that identify a version of a product."""
KEYS: Mapping[str, tuple[str, ...]] = {
    schema.CATALOGUE_TABLE: PRODUCT_VERSION,
    schema.EMBEDDING_TABLE: (*PRODUCT_VERSION, "encoder_version"),
    schema.CODES_TABLE: (*PRODUCT_VERSION, "codebook_version"),
    schema.TAGS_TABLE: (*PRODUCT_VERSION, "tagger_version"),
    schema.NEIGHBOURS_TABLE: (*PRODUCT_VERSION, "encoder_version"),
    schema.INTEREST_TABLE: (schema.USER_ID, schema.EVENT_TIMESTAMP, "encoder_version", "clicks"),
    schema.FIRST_FEATURE_TABLE: PRODUCT_VERSION,
}
"""The columns that identify a row of each table. Tables are committed in this order."""
ONLINE_TABLES = tuple(name for name in KEYS if name != schema.FIRST_FEATURE_TABLE)
"""The tables whose rows are written to the online store too."""

COMMITS_PER_CHECK, COMMITS_PER_CHECKPOINT = 8, 64
"""The first commit of a run and every eighth one after it check whether a table has many small files. The log of a
table whose files are not small is shortened at every 64th."""


class RowWriter:
    """Writes the rows of a run to the online store at once, and to the offline tables at each commit."""

    def __init__(self, settings: Settings, online: OnlineTable, fill_catalog: Callable[[], None]) -> None:
        """Start without rows.

        Args:
            settings: the deployment.
            online: the online store.
            fill_catalog: registers the deployment's views and services in the online store. Called when the store is
                found to have none.
        """
        self._settings = settings
        self._online = online
        self._fill_catalog = fill_catalog
        self._uncommitted: dict[str, list[pa.Table]] = {}
        self._commits = 0

    @property
    def uncommitted_rows(self) -> int:
        """Number of rows, of all tables, that wait for the next commit; repeated rows count each time."""
        return sum(len(part) for parts in self._uncommitted.values() for part in parts)

    def write(self, table: str, rows: pa.Table, *, is_in_production: bool = True) -> None:
        """Write rows to the online store, and keep them for the next commit.

        During an upgrade each encoder version has keys of its own. Rows of a version that has none yet are only kept.

        Args:
            table: a key of KEYS, which is also the name of the view. If the view is not applied, or the table is not in
                ONLINE_TABLES, the rows are only kept.
            rows: rows with the schema of the table, all of one encoder version; with none, nothing happens.
            is_in_production: whether this is the encoder version in production; True for rows without a version.

        Raises:
            VitrineError: the online store does not answer. The rows are not kept then.
        """
        if not len(rows):
            return
        view = self._find_view(table, rows, is_in_production) if table in ONLINE_TABLES else None
        if view is not None:
            packer = Packer(view, schema.EVENT_TIMESTAMP, schema.CREATED_TIMESTAMP)
            self._online.store.write(*packer.pack(self._online, rows), view.ttl_us)
        self._uncommitted.setdefault(table, []).append(rows)

    def drop_version(self, encoder_version: str) -> None:
        """Forget the uncommitted rows of an encoder version, for example because its rows are being deleted."""
        for table, parts in self._uncommitted.items():
            if table in schema.ENCODER_TABLES:
                parts[:] = [part for part in parts if _read_version(part) != encoder_version]

    def commit(self) -> dict[str, int]:
        """Append the uncommitted rows to their offline tables, one table after the other in the order of KEYS.

        Rows that a table has already, by its KEYS, are skipped; of rows with equal keys, the first one is added.

        Returns:
            Table name to the number of rows added, for each table that had uncommitted rows; 0 if it had all of them
            already. Empty if no rows were uncommitted.

        Raises:
            ConflictError: other writers committed first `delta.ATTEMPTS` times. The rows of this table and of those
                after it stay uncommitted; the tables before it have theirs.
        """
        added = {}
        for table, key in KEYS.items():
            parts = self._uncommitted.get(table)
            if parts:
                added[table] = self._append(table, key, pa.concat_tables(parts))
                del self._uncommitted[table]
        self._commits += bool(added)
        if self._commits % COMMITS_PER_CHECK == 1:
            for table in added:
                self._compact(table)
        return added

    def _find_view(self, table: str, rows: pa.Table, is_in_production: bool) -> View | None:
        """Return the view of the rows' version as the store has it now; None if it has none.

        A store without views is filled first.
        """
        catalog = self._online.catalog
        if not catalog.has_view(table) and not catalog.load().views:
            self._fill_catalog()
            _log.warning(
                "the online store had no views: it is new, or has lost its data; registered again: %s. Older rows are "
                "online after `feast materialize-incremental`",
                ", ".join(sorted(catalog.load().views)) or "none",
            )
        if table not in schema.ENCODER_TABLES:
            return catalog.load().find_view(table)
        if not is_in_production and not catalog.load().production_version:
            return None  # before the end of a backfill, or after a loss of data: all keys are of the one in production
        return catalog.load().views.get(catalog.load().find_stored_name(table, _read_version(rows)))

    def _append(self, table: str, key: tuple[str, ...], rows: pa.Table) -> int:
        path = self._settings.table(table)
        for _ in range(delta.ATTEMPTS):
            version, existing, opened = 0, None, None
            if delta.exists(path):
                opened = delta.open_table(path)  # once: each opening lists the log
                version = opened.transaction_version(SERIES) or 0
                dataset = delta_files.open_version(opened, path)
                existing = dataset.to_table(columns=list(key), filter=_select_candidates(rows, key))
            new = _select_new(rows, key, existing)
            if not len(new):
                return 0
            try:
                delta.append_if_version(path, new, SERIES, version, opened=opened, maintain_log=False)
                return len(new)
            except delta.CommitConflictError:
                continue
        raise ConflictError(
            f"table `{table}`: other writers committed first {delta.ATTEMPTS} times; start the stream again"
        )

    def _compact(self, table: str) -> None:
        """Merge small files, and shorten the log. A compaction that loses to deletions is tried again later."""
        path = self._settings.table(table)
        try:
            is_merged = retention.compact_small_files(path)
            if not is_merged and self._commits % COMMITS_PER_CHECKPOINT == 1:
                delta_log.shorten_log(path, delta_log.LOG_RETENTION)
        except ConflictError as error:
            _log.warning("%s; a later commit tries again", error)


def _read_version(rows: pa.Table) -> str | None:
    """Return the encoder version of rows, at least one, of a table of `schema.ENCODER_TABLES`."""
    return rows[schema.ENCODER_VERSION][0].as_py()


def _select_candidates(rows: pa.Table, key: tuple[str, ...]) -> pc.Expression:
    """Return the filter for existing rows of the same products or users in the same time range."""
    first, last = (bound(rows[schema.EVENT_TIMESTAMP]) for bound in (pc.min, pc.max))
    timestamp = pc.field(schema.EVENT_TIMESTAMP)
    return pc.field(key[0]).isin(pc.unique(rows[key[0]])) & (timestamp >= first) & (timestamp <= last)


def _select_new(rows: pa.Table, key: tuple[str, ...], existing: pa.Table | None) -> pa.Table:
    """Return the first row of each key that is not in `existing`."""
    numbered = rows.select(key).append_column("row", pa.array(np.arange(len(rows))))
    first = numbered.group_by(list(key)).aggregate([("row", "min")])
    if existing is not None and len(existing):
        first = first.join(existing, list(key), join_type="left anti")
    return rows.take(first["row_min"].combine_chunks().sort())
