"""Feast's offline store on Delta tables (`offline_store.type: feature_repo.stores.offline.DeltaOfflineStore`).

A thin adapter: it resolves Feast's views to tables and columns, and feature_repo/offline does the work.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.dataset
from feast import FeatureView, OnDemandFeatureView, RepoConfig
from feast.data_source import DataSource
from feast.feature_logging import LoggingConfig, LoggingSource
from feast.infra.offline_stores.file_source import FileLoggingDestination
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel

from feature_repo.distributed import cluster
from feature_repo.errors import InvalidInputError
from feature_repo.offline import versions
from feature_repo.offline.training_set import Lookup
from feature_repo.stores import sources
from feature_repo.stores.entity_rows import EntityRows
from feature_repo.stores.feast_compat import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feature_repo.stores.retrieval import TableRetrievalJob, TrainingRequest, TrainingRetrievalJob


class DeltaOfflineStoreConfig(FeastConfigBaseModel):
    """`offline_store` in feature_store.yaml."""

    type: Literal["feature_repo.stores.offline.DeltaOfflineStore"] = "feature_repo.stores.offline.DeltaOfflineStore"
    path: str = "offline"
    """The folder of all tables, relative to the folder of feature_store.yaml, or the URL of a prefix in a bucket. Paths
    of sources are relative to it."""
    storage_options: dict[str, str | int | float | bool] | None = None
    """Options of a bucket, by the names of `location.OPTIONS`. None: all come from the environment and the machine."""
    local_path: str | None = None
    """The folder of what stays on this machine if the tables are in a bucket, and only then: locks, caches, indexes."""
    pictures: str | None = None
    """The URL of the prefix of a bucket whose pictures are read. None: pictures are files, or bytes in a table."""
    retention_days: float = 365
    """Days that a row is kept after it has been corrected, and so how far `created_before` can go back."""
    ray: str | None = None
    """The Ray cluster that joins and materializes: `local` for one on this machine, else an address for `ray.init`.
    None: this process does. Tables and results do not depend on it."""


class DeltaOfflineStore(OfflineStore):
    """Feast's offline store: joins by key and time, reads each vector once, and keeps every entity row in its order."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | pa.Table | pyarrow.dataset.Dataset | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        *,
        filter_by_created_timestamp: bool = False,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> TrainingRetrievalJob:
        """Return a training set: the entity rows in their order, each with the features as of its own time.

        A row sees a version whose event timestamp is in [row time - ttl, row time], without a TTL any version up to the
        row time; of several, the one with the latest event timestamp and, for equal ones, the latest created timestamp.
        A row without such a version, or with a null key or time, gets nulls. Repeated rows are kept. The tables are
        opened now: the job does not see rows that are appended later.

        Args:
            config: the deployment.
            feature_views: the views to join.
            feature_refs: references to their features, `view:feature`.
            entity_df: the rows: join keys and a time. Rows too many for memory come as a `pyarrow.dataset.Dataset`, and
                the job's `to_folder` joins them. None: a row for each key and event time of the views between
                `start_date` and `end_date`.
            registry: has the on-demand views that are named in `feature_refs`.
            project: the project's name in the registry.
            full_feature_names: whether features are called view__feature.
            filter_by_created_timestamp: whether a row sees only versions that had been created by its own time,
                inclusive. Views without a created timestamp are not affected.
            start_date: the first event time, inclusive; only without `entity_df`.
            end_date: the last event time, inclusive; only without `entity_df`.

        Raises:
            InvalidInputError: the entity rows are a SQL string or have no usable time, or a source is not a FileSource.
            NotFoundError: a table does not exist.
        """
        views = sources.requested_view_tables(config, feature_views, feature_refs, full_feature_names)
        if entity_df is None:
            rows = EntityRows.from_views(views, feature_views, start_date, end_date)
        else:
            rows = EntityRows.from_caller(entity_df)
        return TrainingRetrievalJob(
            config,
            TrainingRequest(
                rows, views, created_by_then=filter_by_created_timestamp, find=_connect_lookup(config.offline_store.ray)
            ),
            full_feature_names=full_feature_names,
            on_demand_feature_views=OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            metadata=rows.metadata(feature_refs),
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Return the newest row of each key with an event timestamp in [start_date, end_date]; None is unbounded.

        The newest row is the one with the latest event timestamp and, for equal ones, the latest created timestamp,
        then the last one in the table. Rows with a null key or event timestamp are left out. The result is in the
        table's order. Rows that are appended after this call are not in it.

        Args:
            config: the deployment.
            data_source: the source of the table, a FileSource.
            join_key_columns: the table's columns with the key; if empty, all rows are of one entity, and the result has
                Feast's dummy key.
            feature_name_columns: the columns to return beside keys and timestamps; empty: all columns of the table.
            timestamp_field: the table's column with the event timestamp.
            created_timestamp_column: the table's column with the created timestamp; None or "" if there is none.
            start_date: the first event timestamp, inclusive; without a time zone it is UTC.
            end_date: the last event timestamp, inclusive; without a time zone it is UTC.

        Raises:
            InvalidInputError: the source is not a FileSource.
            NotFoundError: the table does not exist; or, when the job runs, it lacks a key or feature column.
        """
        created = created_timestamp_column or None
        version = _encoder_version(config, data_source)

        def read_newest(table: pyarrow.dataset.Dataset, columns: list[str]) -> pa.Table:
            return versions.read_newest(
                table,
                columns,
                versions.window_filter(table, timestamp_field, start_date, end_date, encoder_version=version),
                keys=join_key_columns,
                event_timestamp=timestamp_field,
                created_timestamp=created,
            )

        columns = [*join_key_columns, *feature_name_columns, timestamp_field, *([created] if created else [])]
        return _pull(
            config, data_source, columns if feature_name_columns else None, bool(join_key_columns), read_newest
        )

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Return all rows with an event timestamp in [start_date, end_date], in the table's order; None is unbounded.

        Every version of a key is in it. Rows with a null event timestamp are in it only if both bounds are None. Rows
        that are appended after this call are not in it.

        Args:
            config: the deployment.
            data_source: the source of the table, a FileSource.
            join_key_columns: the table's columns with the key; if empty, the result has Feast's dummy key.
            feature_name_columns: the columns to return beside keys and timestamps; empty: all columns of the table.
            timestamp_field: the table's column with the event timestamp.
            created_timestamp_column: the table's column with the created timestamp; None or "" if there is none.
            start_date: the first event timestamp, inclusive; without a time zone it is UTC.
            end_date: the last event timestamp, inclusive; without a time zone it is UTC.

        Raises:
            InvalidInputError: the source is not a FileSource.
            NotFoundError: the table does not exist; or, when the job runs, it lacks a column.
        """
        created = created_timestamp_column or None
        version = _encoder_version(config, data_source)

        def read_all(table: pyarrow.dataset.Dataset, columns: list[str]) -> pa.Table:
            versions.require_columns(table, [timestamp_field])
            where = versions.window_filter(table, timestamp_field, start_date, end_date, encoder_version=version)
            return versions.read_all(table, columns, where)

        columns = [*join_key_columns, *feature_name_columns, timestamp_field, *([created] if created else [])]
        wanted = columns if feature_name_columns else None
        return _pull(config, data_source, wanted, bool(join_key_columns), read_all)

    @staticmethod
    def offline_write_batch(
        config: RepoConfig,
        feature_view: FeatureView,
        table: pa.Table,
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Append rows to the view's table in one commit. Columns may be in any order and are cast to the table's types.

        The first rows create a missing table. Rows that the table has already are appended again.

        Args:
            config: the deployment.
            feature_view: the view, whose batch source is a FileSource.
            table: the rows; columns are named after the features. A missing column is null.
            progress: called once, with the number of rows, when they are written; None: nothing is called.

        Raises:
            InvalidInputError: a column is unknown or cannot be cast, or the view has no FileSource.
        """
        source = sources.require_file_source(feature_view.batch_source, f"feature view `{feature_view.name}`")
        columns_by_feature = {feature: column for column, feature in source.field_mapping.items()}
        rows = table.rename_columns([columns_by_feature.get(name, name) for name in table.column_names])
        sources.append(config, source, rows)
        if progress:
            progress(len(rows))

    @staticmethod
    def write_logged_features(
        config: RepoConfig,
        data: pa.Table | Path,
        source: LoggingSource,
        logging_config: LoggingConfig,
        registry: BaseRegistry,
    ) -> None:
        """Add logged features to the Parquet folder of the logging destination. Files in the folder stay.

        Args:
            config: the deployment; a relative destination starts at its `offline_store.path`.
            data: the logged rows, or a folder or file of Parquet that has them.
            source: not used.
            logging_config: its destination names the folder, which is created if it is missing, and the columns by
                which rows are put into subfolders. A subfolder is named by the values alone, and its files lack the
                columns.
            registry: not used.

        Raises:
            InvalidInputError: the destination is not a FileLoggingDestination.
        """
        destination = logging_config.destination
        if not isinstance(destination, FileLoggingDestination):
            raise InvalidInputError(
                f"features are logged to a FileLoggingDestination, not to {type(destination).__name__}"
            )
        log = data if isinstance(data, pa.Table) else pyarrow.dataset.dataset(data, format="parquet").to_table()
        folder = sources.require_folder(sources.resolve_path(config, destination.path), "the log of features")
        sources.append_log(folder, log, destination.partition_by)

    def validate_data_source(self, config: RepoConfig, data_source: DataSource) -> None:
        """Check that the source's table has the timestamp columns, if there is a table yet.

        Definitions may be applied before the first producer has run, so a missing table is no error. Columns of
        features and keys are not checked.

        Args:
            config: the deployment.
            data_source: the source to check.

        Raises:
            InvalidInputError: the source is not a FileSource.
            NotFoundError: the table has no such timestamp column.
        """
        source = sources.require_file_source(data_source, f"source `{data_source.name}`")
        if sources.exists(config, source):
            columns_by_feature = {feature: column for column, feature in source.field_mapping.items()}
            stamps = [source.timestamp_field, source.created_timestamp_column]
            versions.require_columns(
                sources.open_table(config, source), [columns_by_feature.get(name, name) for name in stamps if name]
            )

    def get_table_column_names_and_types_from_data_source(
        self, config: RepoConfig, data_source: DataSource
    ) -> Iterable[tuple[str, str]]:
        """Return column names and Arrow types in the table's order, spelled as Feast's type inference expects them.

        Raises:
            InvalidInputError: the source is not a FileSource.
            NotFoundError: the table does not exist.
        """
        return sources.list_columns(config, sources.require_file_source(data_source, f"source `{data_source.name}`"))


def _encoder_version(config: RepoConfig, data_source: DataSource) -> str | None:
    """Return the version in production if the source's rows are derived from an encoder, else None."""
    source = sources.require_file_source(data_source, f"source `{data_source.name}`")
    return sources.read_production_version(config) if sources.is_of_encoder(config, source) else None


def _connect_lookup(ray: str | None) -> Lookup | None:
    """Return the lookup of rows on a Ray cluster; None for a lookup in this process."""
    if ray is None:
        return None
    cluster.connect(ray)
    from feature_repo.distributed import join

    return join.look_up_rows


def _pull(
    config: RepoConfig,
    data_source: DataSource,
    columns: list[str] | None,
    has_keys: bool,
    read: Callable[[pyarrow.dataset.Dataset, list[str]], pa.Table],
) -> RetrievalJob:
    """Return a job that reads columns (None: all) of a source as it is now; without keys it adds Feast's dummy key."""
    table = sources.open_table(config, sources.require_file_source(data_source, f"source `{data_source.name}`"))
    wanted = list(dict.fromkeys(columns)) if columns is not None else table.schema.names

    def pull() -> pa.Table:
        rows = read(table, wanted)
        if has_keys:
            return rows
        return rows.append_column(DUMMY_ENTITY_ID, pa.array([DUMMY_ENTITY_VAL] * len(rows), pa.string()))

    return TableRetrievalJob(config, pull)
