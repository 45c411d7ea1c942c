"""Rows as a batch source names them, to keys and packed rows: what every writer of Arrow does, in whichever process."""

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from feature_repo.arrow import columns, timestamps
from feature_repo.arrow.columns import Column
from feature_repo.arrow.field import Field
from feature_repo.errors import VitrineError
from feature_repo.online import entity_keys
from feature_repo.online.catalog import View
from feature_repo.online.table import OnlineTable


@dataclass(frozen=True)
class Packer:
    """How rows of one view are packed."""

    view: View
    """As `StoredViews.register` gave it back."""
    event_timestamp: str
    """Column of the rows."""
    created_timestamp: str | None = None
    to_column: Callable[[Field, pa.ChunkedArray], Column] = columns.from_arrow
    """An Arrow column as the column of a feature."""

    def pack(self, online: OnlineTable, rows: pa.Table) -> tuple[list[bytes], list[bytes]]:
        """Keys and packed rows as the store takes them: of each entity the newest row alone.

        Raises:
            VitrineError: a column is missing or of another type than its feature.
        """
        fields, join_keys = self.view.layout.fields, [name for name, _ in self.view.join_keys]
        missing = {*(field.name for field in fields), *join_keys, self.event_timestamp} - set(rows.column_names)
        if missing:
            raise VitrineError(
                f"view `{self.view.name}`: no column {', '.join(sorted(missing))} in the rows; "
                f"they have {rows.column_names}"
            )
        return online.pack(
            self.view,
            online.keys(self.view, {name: entity_keys.arrow_values(rows[name]) for name in join_keys}, rows.num_rows),
            {field.name: self.to_column(field, rows[field.name]) for field in fields},
            timestamps.ticks(rows[self.event_timestamp], "us"),
            timestamps.ticks(rows[self.created_timestamp], "us") if self.created_timestamp else None,
        )
