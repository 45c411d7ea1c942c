"""Feast's views and `FileSource`s as offline tables: paths, columns, reading and appending.

Paths are relative to `offline_store.path`, which is relative to the folder of feature_store.yaml. Producers write Delta
tables; Parquet files and folders can be read and appended to as well.
"""

import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
from feast import FeatureView, FileSource, RepoConfig
from feast.data_format import DeltaFormat
from feast.data_source import DataSource
from feast.types import from_feast_to_pyarrow_type

from feature_repo import location, schema
from feature_repo.bucket_url import is_url
from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.files.atomic_write import replace_atomically
from feature_repo.location import Location, parse_location
from feature_repo.offline import delta, production, retention
from feature_repo.offline.training_set import ViewTable
from feature_repo.stores.feast_compat import DUMMY_ENTITY_ID, parse_feature_ref


def resolve_path(config: RepoConfig, path: str) -> Location:
    """Return the location of a source, a saved data set or a log. Nothing needs to exist there.

    Args:
        config: the deployment.
        path: a path in `offline_store.path`, or an absolute path or URL, which is kept. A URL of another bucket is
            opened with the storage options of the deployment.

    Raises:
        InvalidInputError: the path or URL cannot be used.
    """
    store = config.offline_store
    root = parse_location(store.path, Path(config.repo_path or "."), store.storage_options)
    return parse_location(path, root, store.storage_options if is_url(path) else None)


def find_local_folder(config: RepoConfig) -> Path:
    """Return the folder of what stays on this machine beside the tables (`Settings.local`)."""
    repo = Path(config.repo_path or ".")
    return location.find_local_folder(resolve_path(config, "."), repo, config.offline_store.local_path)


def require_folder(where: Location, what: str) -> Path:
    """Return a location on disk.

    Args:
        where: of something that can only be on disk.
        what: its name, for the message.

    Raises:
        InvalidInputError: it is in a bucket.
    """
    if not isinstance(where, Path):
        raise InvalidInputError(
            f"{what} at {where}: only Delta tables are kept in a bucket; declare it with DeltaFormat(), or give it an "
            "absolute path on disk"
        )
    return where


def is_delta(source: FileSource) -> bool:
    """Return whether the source is declared as a Delta table. Without a declared format it is Parquet, as in Feast."""
    return isinstance(source.file_format, DeltaFormat)


def require_file_source(source: DataSource | None, owner: str) -> FileSource:
    """Return the source if it is a `FileSource`.

    Args:
        source: any source of Feast, or None.
        owner: what has the source, for the error message: "feature view `x`" for example.

    Raises:
        InvalidInputError: there is no source, or it is of another kind.
    """
    if not isinstance(source, FileSource):
        raise InvalidInputError(f"{owner}: DeltaOfflineStore needs a FileSource, this one has {type(source).__name__}")
    return source


def exists(config: RepoConfig, source: FileSource) -> bool:
    """Return whether the source's Delta table, Parquet file or folder exists. An empty Parquet folder does.

    Raises:
        InvalidInputError: the source is Parquet and its path is in a bucket.
    """
    path = resolve_path(config, source.path)
    return delta.exists(path) if is_delta(source) else _require_parquet(path, source).exists()


def open_table(config: RepoConfig, source: FileSource) -> pyarrow.dataset.Dataset:
    """Return the table as it is now, with its own column names. Rows that are appended later are not in it.

    Raises:
        NotFoundError: there is no such table.
        InvalidInputError: the source is Parquet and its path is in a bucket.
    """
    path = resolve_path(config, source.path)
    if is_delta(source):
        return delta.open_dataset(path)
    path = _require_parquet(path, source)
    if not path.exists():
        raise NotFoundError(f"no Parquet file or folder at {path}, which source `{source.name}` names")
    return pyarrow.dataset.dataset(path, format="parquet")


def list_columns(config: RepoConfig, source: FileSource) -> list[tuple[str, str]]:
    """Return name and Arrow type of each column, in the table's order, spelled as Feast's type inference expects them.

    Large lists and lists of fixed length are spelled as plain lists, the only ones that it knows.

    Raises:
        NotFoundError: there is no such table.
        InvalidInputError: the source is Parquet and its path is in a bucket.
    """
    return [(field.name, str(_as_plain_list(field.type))) for field in open_table(config, source).schema]


def append(config: RepoConfig, source: FileSource, rows: pa.Table) -> None:
    """Append rows in one atomic step. The first rows create a missing table.

    A Parquet folder gets a new file; a single Parquet file is written again, with the old rows before the new ones.

    Args:
        config: the deployment.
        source: the table's source.
        rows: columns in any order, under the table's names, of any type that can be cast to the table's. A missing
            column is null. Rows that the table has already are appended again.

    Raises:
        InvalidInputError: the rows have a column that the table does not have, or one that cannot be cast to its type.
    """
    path = resolve_path(config, source.path)
    table = open_table(config, source) if exists(config, source) else None
    rows = rows if table is None else _cast(rows, table.schema, source.name)
    if is_delta(source):
        delta.append(path, rows)
        return
    path = _require_parquet(path, source)
    if path.is_dir() or (table is None and not path.suffix):
        _write_parquet(rows, path / f"{uuid.uuid4().hex}.parquet")
    else:
        _write_parquet(rows if table is None else pa.concat_tables([table.to_table(), rows]), path)


def append_log(folder: Path, rows: pa.Table, partition_by: list[str] | None) -> None:
    """Add files of rows to a Parquet folder, which is created if it is missing. Files in it stay.

    Args:
        folder: the folder.
        rows: the rows.
        partition_by: columns; each combination of their values gets a subfolder, which is named by the values alone
            (`2024-01-01`, not `day=2024-01-01`). The files do not have these columns. None: no subfolders.
    """
    pyarrow.dataset.write_dataset(
        rows,
        base_dir=folder,
        basename_template=f"{uuid.uuid4().hex}-{{i}}.parquet",
        partitioning=partition_by,
        format="parquet",
        existing_data_behavior="overwrite_or_ignore",
    )


def requested_view_tables(
    config: RepoConfig, feature_views: list[FeatureView], feature_refs: list[str], full_feature_names: bool
) -> list[ViewTable]:
    """Return the table and columns of each feature view of a request, in the order of the views.

    References to on-demand views are ignored: Feast computes those from the other features. Whether the tables have the
    columns is not checked.

    Args:
        config: the deployment.
        feature_views: the views, as the request calls them.
        feature_refs: references `view:feature`; a repeated one counts once. A view's features are in their order.
        full_feature_names: whether features are called view__feature.

    Raises:
        NotFoundError: a view's table does not exist.
        InvalidInputError: a view's source is not a `FileSource`, or has no `timestamp_field`.
    """
    version = read_production_version(config)
    return [
        _view_table(config, view, _features_of(view, feature_refs), full_feature_names, version)
        for view in feature_views
    ]


def whole_view_table(config: RepoConfig, view: FeatureView, encoder_version: str | None) -> ViewTable:
    """Return the table of a feature view with all of its features, under their own names.

    Whether the table has the columns is not checked.

    Args:
        config: the deployment.
        view: the view.
        encoder_version: the version whose rows to use, if they are derived from an encoder; None: all rows.

    Raises:
        NotFoundError: the table does not exist.
        InvalidInputError: the view's source is not a `FileSource`, or has no `timestamp_field`.
    """
    features = [feature.name for feature in view.features]
    return _view_table(config, view, features, full_feature_names=False, encoder_version=encoder_version)


def read_production_version(config: RepoConfig) -> str | None:
    """Return the encoder version in production; None if none is recorded."""
    return production.read_version(resolve_path(config, "."))


def is_of_encoder(config: RepoConfig, source: FileSource) -> bool:
    """Return whether a source is one of the deployment's tables whose rows are derived from an encoder."""
    paths = [resolve_path(config, name) for name in schema.ENCODER_TABLES]
    return is_delta(source) and resolve_path(config, source.path) in paths


def _features_of(view: FeatureView, feature_refs: list[str]) -> list[str]:
    """Return the features that the references name of a view, in their order, without repeats."""
    features = []
    for reference in feature_refs:
        name, version, feature = parse_feature_ref(reference)
        if (name if version is None else f"{name}@v{version}") == view.projection.name_to_use():
            features.append(feature)
    return list(dict.fromkeys(features))


def _view_table(
    config: RepoConfig, view: FeatureView, features: list[str], full_feature_names: bool, encoder_version: str | None
) -> ViewTable:
    """Return the table of a view and its columns by their names in the result.

    `encoder_version` counts for a table whose rows are derived from an encoder.
    """
    source = require_file_source(view.batch_source, f"feature view `{view.name}`")
    if not source.timestamp_field:
        raise InvalidInputError(f"feature view `{view.name}`: its source `{source.name}` names no timestamp_field")
    table = _add_missing_columns(open_table(config, source), view)
    # Feast lets views share a source, so a mapping may name columns that this table does not have.
    columns = {feature: column for column, feature in source.field_mapping.items() if column in table.schema.names}
    prefix = view.projection.name_alias or view.name
    renamed = view.projection.join_key_map
    return ViewTable(
        name=view.projection.name_to_use(),
        table=table,
        keys={
            renamed.get(key.name, key.name): columns.get(key.name, key.name)
            for key in view.entity_columns
            if key.name != DUMMY_ENTITY_ID
        },
        features={
            f"{prefix}__{feature}" if full_feature_names else feature: columns.get(feature, feature)
            for feature in features
        },
        event_timestamp=columns.get(source.timestamp_field, source.timestamp_field),
        created_timestamp=columns.get(source.created_timestamp_column, source.created_timestamp_column) or None,
        ttl=view.ttl or None,
        # Read after the table is opened: a retention run in between must not promise more than the table has.
        kept_since=retention.read_kept_since(resolve_path(config, source.path)) if is_delta(source) else None,
        encoder_version=encoder_version if is_of_encoder(config, source) else None,
    )


def _add_missing_columns(table: pyarrow.dataset.Dataset, view: FeatureView) -> pyarrow.dataset.Dataset:
    """Return the table with a column of nulls for each feature with the tag `missing: null` that it lacks."""
    columns = table.schema
    for feature in view.features:
        if feature.tags.get("missing") == "null" and feature.name not in columns.names:
            columns = columns.append(pa.field(feature.name, from_feast_to_pyarrow_type(feature.dtype)))
    return table if columns is table.schema else table.replace_schema(columns)


def _cast(rows: pa.Table, schema: pa.Schema, name: str) -> pa.Table:
    """Return the rows with the columns, order and types of `schema`."""
    unknown = sorted(set(rows.column_names) - set(schema.names))
    if unknown:
        raise InvalidInputError(f"table `{name}` has no column {', '.join(unknown)}; it has {', '.join(schema.names)}")
    columns = []
    for field in schema:
        if field.name not in rows.column_names:
            columns.append(pa.nulls(len(rows), field.type))
            continue
        try:
            columns.append(rows[field.name].cast(field.type, safe=not pa.types.is_timestamp(field.type)))
        except pa.ArrowException as error:
            raise InvalidInputError(f"column `{field.name}` does not fit table `{name}`: {error}") from error
    return pa.table(columns, schema=pa.schema(list(schema)))


def _require_parquet(where: Location, source: FileSource) -> Path:
    return require_folder(where, f"source `{source.name}`")


def _write_parquet(rows: pa.Table, path: Path) -> None:
    """Write rows to a file, which appears complete or not at all; an existing one is replaced."""
    with replace_atomically(path, suffix=uuid.uuid4().hex) as unfinished:
        pyarrow.parquet.write_table(rows, unfinished)


def _as_plain_list(type_: pa.DataType) -> pa.DataType:
    """Return large and fixed-size lists as plain lists, the only ones that Feast's type inference knows."""
    if pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_):
        return pa.list_(_as_plain_list(type_.value_type))
    return type_
