"""Feast's batch engine on Arrow (`batch_engine: {type: feature_repo.stores.engine.ColumnarEngine}`).

`feast materialize-incremental` writes the rows that are not online yet: those with event times since the last run, and
rows that arrived late, however old their event times are. `feast materialize START END` writes all rows of that window
again; if it is killed, the same command continues. Feast's own watermark moves when everything is written.
feature_repo/online/materialize.py and materialization_log.py describe what is recorded and why. If
`offline_store.ray` names a cluster, feature_repo/distributed does the work.
"""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any, Literal

from feast import FeatureView, FileSource, RepoConfig
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel

from feature_repo.arrow.timestamps import as_utc
from feature_repo.distributed import cluster
from feature_repo.offline.training_set import ViewTable
from feature_repo.online.materialization_log import MaterializationLog, TimeWindow
from feature_repo.online.materialize import OfflineSource, WriteGroup, make_writer, materialize
from feature_repo.stores import sources
from feature_repo.stores.feast_compat import (
    LocalComputeEngine,
    LocalMaterializationJob,
    MaterializationJobStatus,
    MaterializationTask,
    has_transformation,
)
from feature_repo.stores.online import views
from feature_repo.stores.online.packed import PackedOnlineStore

log = logging.getLogger(__name__)


class ColumnarEngineConfig(FeastConfigBaseModel):
    """`batch_engine` in feature_store.yaml. Its only key is `type`."""

    type: Literal["feature_repo.stores.engine.ColumnarEngine"] = "feature_repo.stores.engine.ColumnarEngine"


class ColumnarEngine(LocalComputeEngine):
    """Writes Arrow batches of the offline tables as packed rows, without a Python object per value.

    A view whose table does not exist yet is skipped with a warning. A failure of one view is the error of its job.

    Feast's local engine still materializes computed views (with a transformation, another view as source, or
    `offline=True`), and all views of an online store that is not ours.
    """

    def _materialize_one(
        self, registry: BaseRegistry, task: MaterializationTask, **kwargs: Any
    ) -> LocalMaterializationJob:
        """Write the rows of one view; return a job that has succeeded or holds the error."""
        view = task.feature_view
        computed = has_transformation(view) or getattr(view, "source_views", None) or getattr(view, "offline", False)
        if computed or not isinstance(self.online_store, PackedOnlineStore):
            return super()._materialize_one(registry, task, **kwargs)
        job_id = f"{view.name}-{task.start_time}-{task.end_time}"
        try:
            self._write(self.online_store, task, registry)
        except Exception as error:
            return LocalMaterializationJob(job_id=job_id, status=MaterializationJobStatus.ERROR, error=error)
        return LocalMaterializationJob(job_id=job_id, status=MaterializationJobStatus.SUCCEEDED)

    def _write(self, store: PackedOnlineStore, task: MaterializationTask, registry: BaseRegistry) -> None:
        """Write the rows that must be online after the task; no rows, with a warning, if there is no table.

        The store gets all views and services first: it may be new, or have lost its data.
        """
        config, view = self.repo_config, task.feature_view
        views.publish_catalog(store.online_table(config).catalog, config, registry)
        window, rewrites = _window(view, task.start_time, task.end_time)
        with ExitStack() as progress_bars:

            def start_progress(rows: int) -> Callable[[int], object]:
                if task.tqdm_builder is None:
                    return lambda done: None
                return progress_bars.enter_context(task.tqdm_builder(rows)).update

            materialize_view(config, store, view, window, rewrites=rewrites, start_progress=start_progress)


def materialize_view(
    config: RepoConfig,
    store: PackedOnlineStore,
    view: FeatureView,
    window: TimeWindow,
    *,
    rewrites: bool = False,
    encoder_version: str | None = None,
    start_progress: Callable[[int], Callable[[int], object]] = lambda rows: lambda done: None,
) -> None:
    """Write the rows of a view that are not online yet. A view without a table is skipped with a warning.

    Args:
        config: the deployment.
        store: its online store.
        view: the view.
        window: the event times that must be online.
        rewrites: whether rows that are online already are written again.
        encoder_version: for a view that is derived from an encoder, the version whose rows to write. Rows of another
            version than the one in production get keys of their own. None: the version in production.
        start_progress: called with the number of rows to process; returns a function that is called with the rows
            processed since its last call.

    Raises:
        InvalidInputError: a row cannot be packed.
        ConflictError: the view was dropped or changed meanwhile.
        UnavailableError: the store does not answer.
    """
    source = sources.require_file_source(view.batch_source, f"feature view `{view.name}`")
    if not sources.exists(config, source):
        # A shop without labels has no tags. Its other views must be served nevertheless.
        path = sources.resolve_path(config, source.path)
        log.warning("%s: there is no table at %s yet; nothing to write", view.name, path)
        return
    online, version = store.online_table(config), encoder_version
    if not sources.is_of_encoder(config, source):
        version = None
    elif version is None:  # the store is asked first: its views hold the version that it names
        version = online.catalog.reload().production_version or sources.read_production_version(config)
    table = sources.whole_view_table(config, view, version)
    stored = online.catalog.register_view(views.stored_view(config, view), version)
    write, rows_per_entry = _make_writer(config, store, view, version)
    materialize(
        OfflineSource(
            table.table,
            _columns(source, table),
            list(table.keys.values()),
            table.event_timestamp,
            table.created_timestamp,
            table.encoder_version,
            sources.resolve_path(config, source.path) if sources.is_delta(source) else None,
        ),
        MaterializationLog(online, stored, window if rewrites else None, clock=lambda: datetime.now(UTC)),
        window,
        write=write,
        start_progress=start_progress,
        rows_per_entry=rows_per_entry,
    )


def _make_writer(
    config: RepoConfig, store: PackedOnlineStore, view: FeatureView, encoder_version: str | None
) -> tuple[WriteGroup, int | None]:
    """Return the writer of a view's rows, and the most rows between two entries in the materialization log."""
    online, packer = store.online_table(config), store.packer(config, view, encoder_version)
    address = getattr(config.offline_store, "ray", None)
    if address is None:
        return make_writer(
            pack=lambda rows: packer.pack(online, rows),
            put=lambda keys, rows: online.store.write(keys, rows, packer.view.ttl_us),
        ), None
    cluster.connect(address)
    from feature_repo.distributed import materialize as on_ray

    return on_ray.make_writer(online.store, online.project, packer), on_ray.ROWS_PER_ENTRY


def _window(view: FeatureView, start: datetime, end: datetime) -> tuple[TimeWindow, bool]:
    """Return the event times that must be online after the run, and whether they are all written again.

    An incremental run starts where the last one ended. All rows since the start of the first run must be online then.
    """
    last = view.most_recent_end_time
    rewrites = last is not None and as_utc(last) != as_utc(start)
    starts = [start] if rewrites else [start, *(interval[0] for interval in view.materialization_intervals)]
    return TimeWindow(min(map(as_utc, starts)), as_utc(end)), rewrites


def _columns(source: FileSource, table: ViewTable) -> dict[str, str]:
    """Return the table's columns by the names that `Packer.pack` expects."""
    timestamps = {source.timestamp_field: table.event_timestamp}
    if table.created_timestamp:
        timestamps[source.created_timestamp_column] = table.created_timestamp
    return {**table.keys, **table.features, **timestamps}
