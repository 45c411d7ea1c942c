"""Feast sources: Delta tables under `offline_store.path`."""

from feast import FileSource
from feast.data_format import DeltaFormat

from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP


def delta_source(table: str) -> FileSource:
    """Return Feast's source for the Delta table `table`, which need not exist yet.

    The source has the table's name. Its path is relative to `offline_store.path`.
    """
    return FileSource(
        name=table,
        path=table,
        file_format=DeltaFormat(),
        timestamp_field=EVENT_TIMESTAMP,
        created_timestamp_column=CREATED_TIMESTAMP,
        description=f"Delta table {table}: every version of every row.",
    )
