"""Feast's batch engine on Arrow (`batch_engine: {type: feature_repo.stores.engine.ColumnarEngine}`).

`feast materialize-incremental` writes what is not online yet: rows of event times since the last run and, however old
their event times, rows that came late. `feast materialize START END` writes that window once more, whatever has been
written, unless it was killed while doing so: then the same command goes on. Feast's own watermark moves once all is
written. What is where, and why, is in tables/materialize.py and tables/written.py. Where `offline_store.ray` names a
cluster, it does the work (tables/on_ray/).
"""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any, Literal

from feast import FeatureView, FileSource
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel

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
from feature_repo.stores.view_tables import whole_view_table

log = logging.getLogger(__name__)


class ColumnarEngineConfig(FeastConfigBaseModel):
    """`batch_engine` in feature_store.yaml."""

    type: Literal["feature_repo.stores.engine.ColumnarEngine"] = "feature_repo.stores.engine.ColumnarEngine"


class ColumnarEngine(LocalComputeEngine):
    """Takes Arrow batches from the offline tables to packed rows, without a Python object per value.

    Views that are computed on the way (a transformation, a source that is another view, `offline=True`), and all views
    where the online store is not one of ours, are left to Feast's local engine.
    """

    def _materialize_one(
        self, registry: BaseRegistry, task: MaterializationTask, **kwargs: Any
    ) -> LocalMaterializationJob:
        view = task.feature_view
        computed = has_transformation(view) or getattr(view, "source_views", None) or getattr(view, "offline", False)
        if computed or not isinstance(self.online_store, PackedOnlineStore):
            return super()._materialize_one(registry, task, **kwargs)
        job_id = f"{view.name}-{task.start_time}-{task.end_time}"
        try:
            self._write(self.online_store, task)
        except Exception as error:
            return LocalMaterializationJob(job_id=job_id, status=MaterializationJobStatus.ERROR, error=error)
        return LocalMaterializationJob(job_id=job_id, status=MaterializationJobStatus.SUCCEEDED)

    def _write(self, store: PackedOnlineStore, task: MaterializationTask) -> None:
        config, view = self.repo_config, task.feature_view
        source = sources.file_source(view.batch_source, f"feature view `{view.name}`")
        if not sources.exists(config, source):
            # A shop without labels has no tags, and its other views are to be served all the same.
            place = sources.location(config, source.path)
            log.warning("%s: there is no table at %s yet, nothing to write", view.name, place)
            return
        table = whole_view_table(config, view)
        online = store.online_table(config)
        stored = online.catalog.register_view(views.stored_view(config, view))
        window, again = _window(view, task.start_time, task.end_time)
        with ExitStack() as shown:

            def begin(rows: int) -> Callable[[int], object]:
                return shown.enter_context(task.tqdm_builder(rows)).update if task.tqdm_builder else lambda done: None

            write, rows_per_entry = self._writer(store, view)
            materialize(
                OfflineSource(
                    table.table,
                    _columns(source, table),
                    list(table.keys.values()),
                    table.event_timestamp,
                    table.created_timestamp,
                ),
                MaterializationLog(online, stored, window if again else None, clock=lambda: datetime.now(UTC)),
                window,
                write=write,
                start_progress=begin,
                rows_per_entry=rows_per_entry,
            )

    def _writer(self, store: PackedOnlineStore, view: FeatureView) -> tuple[WriteGroup, int | None]:
        """Who writes rows of a view, and how many at most between two entries in the ledger."""
        config = self.repo_config
        online, packer = store.online_table(config), store.packer(config, view)
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
    """The event times of which everything is to be online after the run, and whether to write it once more.

    An incremental run begins where the last one ended: everything since the first of them is to be online then.
    """
    last = view.most_recent_end_time
    again = last is not None and _aware(last) != _aware(start)
    begins = [start] if again else [start, *(interval[0] for interval in view.materialization_intervals)]
    return TimeWindow(min(map(_aware, begins)), _aware(end)), again


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _columns(source: FileSource, table: ViewTable) -> dict[str, str]:
    """The columns that `Packer.pack` asks for, and where the table has them."""
    stamps = {source.timestamp_field: table.event_timestamp}
    if table.created_timestamp:
        stamps[source.created_timestamp_column] = table.created_timestamp
    return {**table.keys, **table.features, **stamps}
