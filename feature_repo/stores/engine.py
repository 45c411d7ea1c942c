"""Feast's batch engine on Arrow (`batch_engine: {type: feature_repo.stores.engine.ColumnarEngine}`)."""

from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from feast.infra.common.materialization_job import MaterializationJobStatus, MaterializationTask
from feast.infra.compute_engines.local.compute import LocalComputeEngine
from feast.infra.compute_engines.local.job import LocalMaterializationJob
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel

from feature_repo.stores import sources
from feature_repo.tables import gather, history


class ColumnarEngineConfig(FeastConfigBaseModel):
    """`batch_engine` in feature_store.yaml."""

    type: Literal["feature_repo.stores.engine.ColumnarEngine"] = "feature_repo.stores.engine.ColumnarEngine"


class ColumnarEngine(LocalComputeEngine):
    """Takes Arrow batches from the offline tables to packed rows, without a Python object per value."""

    def _materialize_one(
        self, registry: BaseRegistry, task: MaterializationTask, **kwargs: Any
    ) -> LocalMaterializationJob:
        view = task.feature_view
        source = sources.file_source(view.batch_source, f"feature view `{view.name}`")
        table = sources.open_table(self.repo_config, source)
        window = history.window(table, source.timestamp_field, task.start_time, task.end_time)
        for key in view.entity_columns:
            if key.name in table.schema.names:
                window = window & pc.field(key.name).is_valid()
        with task.tqdm_builder(table.count_rows(filter=window)) as bar:
            for batch in gather.scan(table, table.schema.names, window).to_batches():
                named = [source.field_mapping.get(name, name) for name in batch.schema.names]
                rows = pa.Table.from_batches([batch]).rename_columns(named)
                self.online_store.write_arrow(self.repo_config, view, rows)
                bar.update(batch.num_rows)
        return LocalMaterializationJob(job_id=view.name, status=MaterializationJobStatus.SUCCEEDED)
