"""Feast's offline store on Delta tables (`offline_store.type: feature_repo.stores.offline.DeltaOfflineStore`).

A thin adapter: it says which columns of which table a feature view means, and leaves the work to `tables/`.
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
from feature_repo.errors import VitrineError
from feature_repo.offline import versions
from feature_repo.offline.training_set import Lookup
from feature_repo.stores import entity_rows, sources
from feature_repo.stores.feast_compat import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feature_repo.stores.retrieval import TableRetrievalJob, TrainingRequest, TrainingRetrievalJob
from feature_repo.stores.view_tables import requested_view_tables


class DeltaOfflineStoreConfig(FeastConfigBaseModel):
    """The `offline_store` part of feature_store.yaml."""

    type: Literal["feature_repo.stores.offline.DeltaOfflineStore"] = "feature_repo.stores.offline.DeltaOfflineStore"
    path: str = "offline"
    """The folder of all tables; relative to the folder of feature_store.yaml. A source's relative path starts here."""
    retention_days: float = 365
    """How long rows that were corrected are kept, and so how far back `created_before` can reach."""
    ray: str | None = None
    """The Ray cluster that joins and materializes: `local` for one on this machine, else as `ray.init` takes it. It is
    an option and no other store: which tables there are, and what a join gives, does not depend on it."""


class DeltaOfflineStore(OfflineStore):
    """Joins by key and time first and gathers vectors once; keeps every entity row, in its order."""

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
        """Join entity rows with features as of each row's own time.

        A version is seen if `row time - ttl <= its event timestamp <= row time`; of several the newest by event, then
        created timestamp. The tables are opened here: what is appended later is not seen, however late the job runs.
        Entity rows too many for memory come as a `pyarrow.dataset.Dataset`, and the job's `to_folder` joins them.
        Without entity rows, every key and event time of the views between `start_date` and `end_date` (inclusive) is
        a row.

        Raises:
            VitrineError: the entity rows are a SQL string or have no usable time; a table or a column is missing; a
                column would stand twice.
        """
        views = requested_view_tables(config, feature_views, feature_refs, full_feature_names)
        if entity_df is None:
            rows, column = entity_rows.from_views(views, feature_views, start_date, end_date)
        else:
            rows, column = entity_rows.from_caller(entity_df)
        return TrainingRetrievalJob(
            config,
            TrainingRequest(
                rows, column, views, created_by_then=filter_by_created_timestamp, find=_find(config.offline_store.ray)
            ),
            full_feature_names=full_feature_names,
            on_demand_feature_views=OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            metadata=entity_rows.metadata(rows, column, feature_refs),
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
        """The newest row of each key with an event timestamp in [start_date, end_date], by event then created."""
        created = created_timestamp_column or None

        def newest(table: pyarrow.dataset.Dataset, columns: list[str]) -> pa.Table:
            return versions.read_newest(
                table,
                columns,
                versions.window_filter(table, timestamp_field, start_date, end_date),
                keys=join_key_columns,
                event_timestamp=timestamp_field,
                created_timestamp=created,
            )

        columns = [*join_key_columns, *feature_name_columns, timestamp_field, *([created] if created else [])]
        return _pull(config, data_source, columns if feature_name_columns else None, bool(join_key_columns), newest)

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
        """All rows with an event timestamp in [start_date, end_date]."""
        created = created_timestamp_column or None

        def everything(table: pyarrow.dataset.Dataset, columns: list[str]) -> pa.Table:
            versions.require_columns(table, [timestamp_field])
            return versions.read_all(
                table, columns, versions.window_filter(table, timestamp_field, start_date, end_date)
            )

        columns = [*join_key_columns, *feature_name_columns, timestamp_field, *([created] if created else [])]
        return _pull(config, data_source, columns if feature_name_columns else None, bool(join_key_columns), everything)

    @staticmethod
    def offline_write_batch(
        config: RepoConfig,
        feature_view: FeatureView,
        table: pa.Table,
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Append rows to the view's table in one commit; columns in any order, cast to the table's types."""
        source = sources.file_source(feature_view.batch_source, f"feature view `{feature_view.name}`")
        physical = {feature: column for column, feature in source.field_mapping.items()}
        rows = table.rename_columns([physical.get(name, name) for name in table.column_names])
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
        """Add the log to the Parquet folder that the logging destination names."""
        destination = logging_config.destination
        if not isinstance(destination, FileLoggingDestination):
            raise VitrineError(f"features are logged to a FileLoggingDestination, not to {type(destination).__name__}")
        log = data if isinstance(data, pa.Table) else pyarrow.dataset.dataset(data, format="parquet").to_table()
        sources.append_log(sources.location(config, destination.path), log, destination.partition_by)

    def validate_data_source(self, config: RepoConfig, data_source: DataSource) -> None:
        """Check a source that has a table already: definitions may be applied before the first producer has run.

        Raises:
            VitrineError: this store cannot read the source, or its table lacks a timestamp column.
        """
        source = sources.file_source(data_source, f"source `{data_source.name}`")
        if sources.exists(config, source):
            physical = {feature: column for column, feature in source.field_mapping.items()}
            stamps = [source.timestamp_field, source.created_timestamp_column]
            versions.require_columns(
                sources.open_table(config, source), [physical.get(name, name) for name in stamps if name]
            )

    def get_table_column_names_and_types_from_data_source(
        self, config: RepoConfig, data_source: DataSource
    ) -> Iterable[tuple[str, str]]:
        """Names and Arrow types, in the spelling of Feast's type inference."""
        return sources.columns_and_types(config, sources.file_source(data_source, f"source `{data_source.name}`"))


def _find(ray: str | None) -> Lookup | None:
    """Who looks rows up: this process, or a cluster."""
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
    """A job that reads `columns` (None: all) of a source as it is now; without join keys it adds Feast's dummy one."""
    table = sources.open_table(config, sources.file_source(data_source, f"source `{data_source.name}`"))
    wanted = list(dict.fromkeys(columns)) if columns is not None else table.schema.names

    def pull() -> pa.Table:
        rows = read(table, wanted)
        if has_keys:
            return rows
        return rows.append_column(DUMMY_ENTITY_ID, pa.array([DUMMY_ENTITY_VAL] * len(rows), pa.string()))

    return TableRetrievalJob(config, pull)
