"""Which products are in one group, and the journal of a group."""

from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.offline import delta, versions
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_ID


@dataclass(frozen=True)
class GroupTable:
    """The groups of a deployment at one version of the table."""

    version: int
    product_ids: pa.Array
    """[n], each once."""
    group_ids: pa.Array
    """[n]"""

    def find_group(self, product_id: str) -> str | None:
        """Return the group of a product; None if it has none."""
        row = pc.index(self.product_ids, product_id).as_py()
        return None if row < 0 else self.group_ids[row].as_py()

    def list_members(self, group_id: str) -> list[str]:
        """Return the products of a group, sorted."""
        return sorted(self.product_ids.filter(pc.equal(self.group_ids, group_id)).to_pylist())


@dataclass(frozen=True)
class GroupChange:
    """A line of the journal: the group of a product changed."""

    product_id: str
    change: str
    """joined, merged, split, gone or returned."""
    from_group_id: str | None
    to_group_id: str | None
    at: datetime


def read_groups(settings: Settings) -> GroupTable | None:
    """Return the newest group of every product; None without groups."""
    path = settings.table(schema.GROUP_TABLE)
    version = delta.latest_version(path)
    if version is None:
        return None
    rows = versions.read_newest(
        delta.open_dataset(path),
        [PRODUCT_ID, "group_id"],
        None,
        keys=[PRODUCT_ID],
        event_timestamp=EVENT_TIMESTAMP,
        created_timestamp=CREATED_TIMESTAMP,
    )
    return GroupTable(version, rows[PRODUCT_ID].combine_chunks(), rows["group_id"].combine_chunks())


def read_journal(settings: Settings, group_id: str, limit: int) -> list[GroupChange]:
    """Return the last changes of a group, newest first, at most `limit`."""
    path = settings.table(schema.GROUP_JOURNAL_TABLE)
    if not delta.exists(path):
        return []
    is_of_group = (pc.field("from_group_id") == group_id) | (pc.field("to_group_id") == group_id)
    columns = [PRODUCT_ID, "change", "from_group_id", "to_group_id", CREATED_TIMESTAMP]
    rows = delta.read(path, columns, where=is_of_group)
    rows = rows.sort_by([(CREATED_TIMESTAMP, "descending"), (PRODUCT_ID, "ascending")]).slice(0, limit)
    return [GroupChange(*row.values()) for row in rows.to_pylist()]
