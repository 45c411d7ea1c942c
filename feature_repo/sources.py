"""Where each view's history lies: a Delta table under `offline_store.path`."""

from feast import FileSource
from feast.data_format import DeltaFormat

from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP


def delta_source(table: str) -> FileSource:
    """The Delta table `table`; its path is relative to the offline store's."""
    return FileSource(
        name=table,
        path=table,
        file_format=DeltaFormat(),
        timestamp_field=EVENT_TIMESTAMP,
        created_timestamp_column=CREATED_TIMESTAMP,
    )
