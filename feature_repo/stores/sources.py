"""A Feast `FileSource` as a table: where it lies, what it holds, how rows are added.

Paths are relative to `offline_store.path`, which is itself relative to the folder of feature_store.yaml. Delta tables
are the rule; Parquet files and folders are read and appended to as well.
"""

import uuid
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
from feast import FileSource, RepoConfig
from feast.data_format import DeltaFormat
from feast.data_source import DataSource

from feature_repo.atomic_write import replace_atomically
from feature_repo.errors import VitrineError
from feature_repo.offline import delta, retention


def location(config: RepoConfig, path: str) -> Path:
    """Where `path` of a source, a saved data set or a log lies."""
    if "://" in path:
        raise VitrineError(f"source {path}: DeltaOfflineStore reads local folders only; mount the bucket, or copy it")
    root = Path(config.repo_path or ".") / config.offline_store.path
    return (root / path).resolve()


def is_delta(source: FileSource) -> bool:
    """Whether the source says it is a Delta table; Feast takes a source that says nothing for Parquet."""
    return isinstance(source.file_format, DeltaFormat)


def file_source(source: DataSource | None, owner: str) -> FileSource:
    """The source, if this store can read it.

    Raises:
        VitrineError: it is none, or of another kind; the message names `owner`.
    """
    if not isinstance(source, FileSource):
        raise VitrineError(f"{owner}: DeltaOfflineStore needs a FileSource, this one has {type(source).__name__}")
    return source


def exists(config: RepoConfig, source: FileSource) -> bool:
    """Whether there is anything at the source's path."""
    path = location(config, source.path)
    return delta.exists(path) if is_delta(source) else path.exists()


def open_table(config: RepoConfig, source: FileSource) -> pyarrow.dataset.Dataset:
    """The table as it is now: rows appended later are not seen through what this returns.

    Raises:
        VitrineError: there is no such table.
    """
    path = location(config, source.path)
    if is_delta(source):
        return delta.open_dataset(path)
    if not path.exists():
        raise VitrineError(f"no Parquet file or folder at {path}, which source `{source.name}` names")
    return pyarrow.dataset.dataset(path, format="parquet")


def kept_since(config: RepoConfig, source: FileSource) -> datetime | None:
    """Since when every row that was corrected is still there; asked after `open_table`, never before."""
    return retention.read_kept_since(location(config, source.path)) if is_delta(source) else None


def columns_and_types(config: RepoConfig, source: FileSource) -> list[tuple[str, str]]:
    """Column names and Arrow types in the spelling that Feast's type inference knows."""
    return [(field.name, str(_feast_spelling(field.type))) for field in open_table(config, source).schema]


def append(config: RepoConfig, source: FileSource, rows: pa.Table) -> None:
    """Add rows in one step that is visible whole or not at all; a Delta table is created by the first.

    Columns may come in any order and in any type that can be cast to the table's; a column of a nullable table that
    the rows lack is null in them.

    Raises:
        VitrineError: the rows have a column that the table has not, or one that cannot be cast to its type.
    """
    path = location(config, source.path)
    if not exists(config, source):
        if is_delta(source):
            delta.append(path, rows)
        else:
            _write_parquet(rows, path / f"{uuid.uuid4().hex}.parquet" if not path.suffix else path)
        return
    table = open_table(config, source)
    fitted = fit(rows, table.schema, source.name)
    if is_delta(source):
        delta.append(path, fitted)
    elif path.is_dir():
        _write_parquet(fitted, path / f"{uuid.uuid4().hex}.parquet")
    else:
        _write_parquet(pa.concat_tables([table.to_table(), fitted]), path)


def append_log(folder: Path, rows: pa.Table, partition_by: list[str] | None) -> None:
    """Add a file of rows to a Parquet folder, below one folder per value of each column of `partition_by`."""
    pyarrow.dataset.write_dataset(
        rows,
        base_dir=folder,
        basename_template=f"{uuid.uuid4().hex}-{{i}}.parquet",
        partitioning=partition_by,
        format="parquet",
        existing_data_behavior="overwrite_or_ignore",
    )


def fit(rows: pa.Table, schema: pa.Schema, name: str) -> pa.Table:
    """The rows in the columns, order and types of `schema`."""
    unknown = sorted(set(rows.column_names) - set(schema.names))
    if unknown:
        raise VitrineError(f"table `{name}` has no column {', '.join(unknown)}; it has {', '.join(schema.names)}")
    columns = []
    for field in schema:
        if field.name not in rows.column_names:
            columns.append(pa.nulls(len(rows), field.type))
            continue
        try:
            columns.append(rows[field.name].cast(field.type, safe=not pa.types.is_timestamp(field.type)))
        except pa.ArrowException as error:
            raise VitrineError(f"column `{field.name}` does not fit table `{name}`: {error}") from error
    return pa.table(columns, schema=pa.schema(list(schema)))


def _write_parquet(rows: pa.Table, path: Path) -> None:
    with replace_atomically(path, suffix=uuid.uuid4().hex) as unfinished:
        pyarrow.parquet.write_table(rows, unfinished)


def _feast_spelling(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_):
        return pa.list_(_feast_spelling(type_.value_type))
    return type_
