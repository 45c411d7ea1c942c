"""Training sets and stretches of history for Feast: the jobs that compute the result."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
from feast import OnDemandFeatureView, RepoConfig
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.saved_dataset import SavedDatasetStorage

from feature_repo.arrow.timestamps import as_utc
from feature_repo.errors import InvalidInputError
from feature_repo.offline import delta, production, training_set, training_set_on_disk
from feature_repo.offline.training_set import Lookup, TrainingSet, ViewTable
from feature_repo.offline.training_set_on_disk import TrainingSetOnDisk
from feature_repo.schema import ENCODER_VERSION
from feature_repo.stores import sources
from feature_repo.stores.entity_rows import EntityRows


class TableRetrievalJob(RetrievalJob):
    """A job whose result is one table.

    Args:
        config: the deployment.
        table: computes the result, each time it is needed.
        full_feature_names: whether features are called view__feature.
        on_demand_feature_views: the views that Feast computes from the result.
        metadata: Feast's description of the result.
    """

    def __init__(
        self,
        config: RepoConfig,
        table: Callable[[], pa.Table],
        *,
        full_feature_names: bool = False,
        on_demand_feature_views: list[OnDemandFeatureView] | None = None,
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        self._config = config
        self._table = table
        self._full_feature_names = full_feature_names
        self._on_demand_feature_views = on_demand_feature_views or []
        self._metadata = metadata

    @property
    def full_feature_names(self) -> bool:
        """Whether features are called view__feature in the result."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """The on-demand views that Feast computes from the result; empty if there are none."""
        return self._on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """Feast's description of the result; None if there is none."""
        return self._metadata

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._table()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._table().to_pandas()

    def persist(
        self, storage: SavedDatasetStorage, allow_overwrite: bool | None = False, timeout: int | None = None
    ) -> None:
        """Write the result, on-demand features included, as a Delta table, a Parquet file or a Parquet folder.

        A Parquet folder gets one file. The result is computed first, so nothing at the path changes if that fails.
        Missing parent folders are created.

        Args:
            storage: a `SavedDatasetFileStorage`. Without the Delta format, a path with a suffix is a Parquet file,
                another one a folder. A relative path starts at `offline_store.path`.
            allow_overwrite: whether what is at the path is replaced. A Delta table gets a new version; otherwise a
                folder is deleted with everything in it.
            timeout: not used.

        Raises:
            SavedDatasetLocationAlreadyExists: there is something at the path, and `allow_overwrite` is false.
            InvalidInputError: `storage` is of another type.
        """
        if not isinstance(storage, SavedDatasetFileStorage):
            raise InvalidInputError(
                f"a training set is saved to a SavedDatasetFileStorage, not to {type(storage).__name__}"
            )
        source = sources.require_file_source(storage.to_data_source(), "the saved data set")
        path = sources.resolve_path(self._config, source.path)
        is_there = sources.exists(self._config, source) or (isinstance(path, Path) and path.exists())
        if is_there and not allow_overwrite:
            raise SavedDatasetLocationAlreadyExists(location=str(path))
        result = self.to_arrow(timeout=timeout)
        if sources.is_delta(source):
            delta.overwrite(path, result)
            return
        path = sources.require_folder(path, "the saved data set")
        if path.is_dir():
            shutil.rmtree(path)
        if not path.suffix:
            path.mkdir(parents=True)
            path = path / "part-0.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(result, path)


@dataclass(frozen=True)
class TrainingRequest:
    """Entity rows, and the views to join."""

    entity_rows: EntityRows
    """The rows to join features to."""
    views: Sequence[ViewTable]
    """The views to join, in the order of the result's columns."""
    created_by_then: bool = False
    """Whether a row sees only versions that had been created by its own time, inclusive. Views without a created
    timestamp are not affected."""
    created_before: datetime | None = None
    """Only versions that had been created before it, exclusive, are seen; None: no limit."""
    find: Lookup | None = None
    """Looks up the rows of the views; None: in this process."""

    def join(self) -> TrainingSet:
        """Return the training set in memory: every row in its order, matched or not.

        Raises:
            NotFoundError: the rows lack a join key.
            InvalidInputError: a column cannot be joined or would be in the result twice; or versions that the join
                would need may have been dropped by the retention.
        """
        rows = self.entity_rows.rows
        return training_set.join(
            rows if isinstance(rows, pa.Table) else rows.to_table(),
            self.entity_rows.event_timestamp,
            self.views,
            created_by_then=self.created_by_then,
            created_before=self.created_before,
            find=self.find,
        )

    def write(self, folder: Path) -> TrainingSetOnDisk:
        """Write the training set to a folder, in bounded memory. The folder appears complete or not at all.

        Args:
            folder: the folder to create; it must not exist.

        Raises:
            ConflictError: the folder exists.
            NotFoundError: the rows lack a join key.
            InvalidInputError: a column cannot be joined or would be in the result twice; or versions that the join
                would need may have been dropped by the retention.
        """
        rows = self.entity_rows.rows
        return training_set_on_disk.write(
            pyarrow.dataset.dataset(rows) if isinstance(rows, pa.Table) else rows,
            self.entity_rows.event_timestamp,
            self.views,
            folder,
            created_by_then=self.created_by_then,
            created_before=self.created_before,
            find=self.find,
        )


class TrainingRetrievalJob(TableRetrievalJob):
    """A training set: Feast's `to_arrow()` and `to_df()`, and forms that hold each vector once.

    Args:
        config: the deployment.
        request: the entity rows and views.
        described: `full_feature_names`, `on_demand_feature_views` and `metadata`, as `TableRetrievalJob` takes them.
    """

    def __init__(self, config: RepoConfig, request: TrainingRequest, **described: Any) -> None:
        super().__init__(config, lambda: request.join().to_table(), **described)
        self._request = request
        self._described = described

    def with_encoder_version(self, encoder_version: str) -> "TrainingRetrievalJob":
        """Return the same training set from the rows of another encoder version, such as the candidate of an upgrade.

        Without this call it is the version in production. Views that are not derived from an encoder are not affected.

        Args:
            encoder_version: `name@fingerprint`; a version without rows gives nulls.
        """
        views = [
            replace(view, encoder_version=encoder_version) if ENCODER_VERSION in view.table.schema.names else view
            for view in self._request.views
        ]
        return self._with_request(replace(self._request, views=views))

    def created_before(self, time: datetime) -> "TrainingRetrievalJob":
        """Return the same training set as it would have been made at `time`.

        Versions that were created at `time` or later are not seen, and versions that have been corrected since are.
        The encoder version is the one that was in production then; call `with_encoder_version` afterwards for another.
        This reaches as far back as `offline_store.retention_days` keeps corrected versions. Views without a created
        timestamp are not affected.

        Args:
            time: a datetime; without a time zone it is UTC.

        Raises:
            InvalidInputError: `time` is not a datetime.
        """
        if not isinstance(time, datetime) or pd.isna(time):
            raise InvalidInputError(f"created_before: {time!r} is not a time; expected a datetime with its time zone")
        folder = sources.resolve_path(self._config, ".")
        version = production.read_version(folder, at=as_utc(time))
        views = [
            view if view.encoder_version is None else replace(view, encoder_version=version)
            for view in self._request.views
        ]
        return self._with_request(replace(self._request, views=views, created_before=time))

    def _with_request(self, request: TrainingRequest) -> "TrainingRetrievalJob":
        return TrainingRetrievalJob(self._config, request, **self._described)

    def to_normalised(self) -> TrainingSet:
        """Return the entity rows in their order and, for each feature view, row indices into its distinct versions.

        `job.to_normalised().views["product_embedding"]` has `row_index` (int64 [rows], -1 where the view has no
        version) and `versions` (the distinct versions in use, with the column names of `to_arrow()`). On-demand
        features are not in it: Feast computes them from whole rows.

        Raises:
            NotFoundError: the entity rows lack a join key.
            InvalidInputError: a column cannot be joined or would be in the result twice; or versions that the join
                would need may have been dropped by the retention.
        """
        return self._request.join()

    def to_folder(self, folder: str | Path) -> TrainingSetOnDisk:
        """Write what `to_normalised` returns to a folder, in bounded memory, and return it opened from there.

        The folder appears complete or not at all. Entity rows may be a `pyarrow.dataset.Dataset`.

        Args:
            folder: the folder to create; it must not exist.

        Raises:
            ConflictError: the folder exists.
            NotFoundError: the entity rows lack a join key.
            InvalidInputError: a column cannot be joined or would be in the result twice; or versions that the join
                would need may have been dropped by the retention.
        """
        return self._request.write(Path(folder))

    def to_batches(self, *, rows: int = 65_536) -> Iterator[pa.Table]:
        """Yield the training set in tables of at most `rows` rows, in their order, on-demand features included.

        Only the last table may have fewer rows. Nothing is yielded if there are no rows. The join runs when the first
        table is taken.

        Args:
            rows: rows of a table, at least 1.

        Raises:
            InvalidInputError: `rows` is less than 1; this is raised at once.
        """
        if rows < 1:
            raise InvalidInputError(f"to_batches: rows is {rows}; expected at least 1")
        return self._iterate_batches(rows)

    def _iterate_batches(self, rows: int) -> Iterator[pa.Table]:
        """Join the rows, then yield them piece by piece with on-demand features."""
        for batch in self._request.join().to_batches(rows=rows):
            yield self._add_on_demand_features(batch)

    def _add_on_demand_features(self, batch: pa.Table) -> pa.Table:
        """Return rows of the training set with the features that Feast computes from them."""
        return TableRetrievalJob(
            self._config,
            lambda: batch,
            full_feature_names=self._full_feature_names,
            on_demand_feature_views=self._on_demand_feature_views,
            metadata=self._metadata,
        ).to_arrow()
