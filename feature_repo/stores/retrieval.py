"""What the offline store hands out: a training set or a stretch of history, computed when asked for."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
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

from feature_repo.errors import VitrineError
from feature_repo.offline import delta, training_set, training_set_on_disk
from feature_repo.offline.training_set import Lookup, TrainingSet, ViewTable
from feature_repo.offline.training_set_on_disk import TrainingSetOnDisk
from feature_repo.stores import sources


class TableRetrievalJob(RetrievalJob):
    """A job whose answer is one table."""

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
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return self._on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        return self._metadata

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._table()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._table().to_pandas()

    def persist(
        self, storage: SavedDatasetStorage, allow_overwrite: bool | None = False, timeout: int | None = None
    ) -> None:
        """Write the answer, on-demand features included, as a Delta table, a Parquet file or a folder of them."""
        if not isinstance(storage, SavedDatasetFileStorage):
            raise VitrineError(f"a training set is saved to a SavedDatasetFileStorage, not to {type(storage).__name__}")
        source = sources.file_source(storage.to_data_source(), "the saved data set")
        path = sources.location(self._config, source.path)
        if path.exists() and not allow_overwrite:
            raise SavedDatasetLocationAlreadyExists(location=str(path))
        answer = self.to_arrow(timeout=timeout)
        if sources.is_delta(source):
            delta.overwrite(path, answer)
            return
        if path.is_dir():
            shutil.rmtree(path)
        if not path.suffix:
            path.mkdir(parents=True)
            path = path / "part-0.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(answer, path)


@dataclass(frozen=True)
class TrainingRequest:
    """What a training set is made of: rows in memory or a data set too large for it, and the views to join."""

    rows: pa.Table | pyarrow.dataset.Dataset
    event_timestamp: str
    views: Sequence[ViewTable]
    created_by_then: bool = False
    created_before: datetime | None = None
    find: Lookup | None = None

    def join(self) -> TrainingSet:
        """The training set in memory."""
        rows = self.rows if isinstance(self.rows, pa.Table) else self.rows.to_table()
        return training_set.join(
            rows,
            self.event_timestamp,
            self.views,
            created_by_then=self.created_by_then,
            created_before=self.created_before,
            find=self.find,
        )

    def write(self, folder: Path) -> TrainingSetOnDisk:
        """The training set in a folder."""
        rows = pyarrow.dataset.dataset(self.rows) if isinstance(self.rows, pa.Table) else self.rows
        return training_set_on_disk.write(
            rows,
            self.event_timestamp,
            self.views,
            folder,
            created_by_then=self.created_by_then,
            created_before=self.created_before,
            find=self.find,
        )


class TrainingRetrievalJob(TableRetrievalJob):
    """A training set: `to_arrow()` and `to_df()` as Feast has them, and the forms that do not copy vectors per row."""

    def __init__(self, config: RepoConfig, request: TrainingRequest, **described: Any) -> None:
        super().__init__(config, lambda: request.join().to_table(), **described)
        self._request = request
        self._described = described

    def created_before(self, moment: datetime) -> "TrainingRetrievalJob":
        """The same training set from what had been computed before `moment`: as it was made then, whatever has been
        written or corrected since, for as long as `offline_store.retention_days` keeps corrected rows.

        Args:
            moment: without a zone it is UTC.

        Raises:
            VitrineError: it is no datetime.
        """
        if not isinstance(moment, datetime) or pd.isna(moment):
            raise VitrineError(f"created_before: {moment!r} is no moment; wanted a datetime with its zone")
        return TrainingRetrievalJob(self._config, replace(self._request, created_before=moment), **self._described)

    def to_normalised(self) -> TrainingSet:
        """Entity rows in their order and, per feature view, a row number into its distinct versions.

        `job.to_normalised().views["product_embedding"]` has `row_index` (int64 [rows], -1 where the view has nothing)
        and `versions` (the table of distinct versions in use, columns named as in `to_arrow()`). On-demand features
        are not in it: they are functions of a whole row.
        """
        return self._request.join()

    def to_folder(self, folder: str | Path) -> TrainingSetOnDisk:
        """The normalised form on disk, made in bounded memory; entity rows may be a `pyarrow.dataset.Dataset`."""
        return self._request.write(Path(folder))

    def to_batches(self, *, rows: int = 65_536) -> Iterator[pa.Table]:
        """The training set in pieces of at most `rows` rows, on-demand features included.

        Raises:
            VitrineError: `rows` is less than 1.
        """
        if rows < 1:
            raise VitrineError(f"to_batches: rows is {rows}; wanted 1 or more in each piece")
        return self._pieces(rows)

    def _pieces(self, rows: int) -> Iterator[pa.Table]:
        for piece in self._request.join().to_batches(rows=rows):
            yield TableRetrievalJob(
                self._config,
                partial(_itself, piece),
                full_feature_names=self._full_feature_names,
                on_demand_feature_views=self._on_demand_feature_views,
                metadata=self._metadata,
            ).to_arrow()


def _itself(table: pa.Table) -> pa.Table:
    return table
