"""The Parquet files of a version of a Delta table, as an Arrow dataset."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.dataset
from deltalake import DeltaTable
from deltalake.exceptions import DeltaProtocolError
from pyarrow.fs import FileType

from feature_repo.errors import CorruptDataError, InvalidInputError
from feature_repo.location import REQUESTS, Location
from feature_repo.offline.storage import Storage, first_line, open_storage, translate_errors

_CACHED_FILES = 65_536
"""Number of files that the process remembers: whether their columns have view types."""


def open_version(table: DeltaTable, path: Location) -> pyarrow.dataset.Dataset:
    """Open one version of a table as an Arrow dataset that reads the files itself.

    Whoever wrote a file, its columns have the types of the table's schema, in rows and in filters.

    Deltalake's own file system calls Python from Arrow's threads. A thread that is still running when the interpreter
    exits aborts the process: one command in fifteen ended with exit code 134 after its work was done.

    Args:
        table: the version.
        path: the table's location.

    Raises:
        InvalidInputError: the table has a feature that is not read here, such as deletion vectors.
        CorruptDataError: a file of the version is missing or has another size than the log says.
    """
    storage, files = open_storage(path), list_files(table)
    if not storage.is_remote:
        _check_sizes(storage, files)
    try:
        dataset = table.to_pyarrow_dataset(filesystem=storage.filesystem)
    except DeltaProtocolError as error:
        raise InvalidInputError(
            f"table `{path.name}` under {path.parent} cannot be read: {_describe_feature(table, error)}"
        ) from error
    has_views = _find_views(storage, files)
    fragments = [
        _decode_views(fragment, dataset.schema) if has_views[fragment.path] else fragment
        for fragment in dataset.get_fragments()
    ]
    return pyarrow.dataset.FileSystemDataset(fragments, dataset.schema, dataset.format, storage.filesystem)


def list_files(table: DeltaTable) -> dict[str, int]:
    """Return the files of a version, relative to its folder, with their sizes in bytes.

    Files of an old version may have been removed by a vacuum.
    """
    actions = pa.table(table.get_add_actions())
    names, sizes = (actions[column].to_pylist() for column in ("path", "size_bytes"))
    return {unquote(name): size for name, size in zip(names, sizes, strict=True)}


def _describe_feature(table: DeltaTable, error: DeltaProtocolError) -> str:
    """Return which feature of the table is not read, and what to do."""
    features = table.protocol().reader_features or []
    if "deletionVectors" in features:
        return (
            "another engine has given it deletion vectors, which are not read here; run in that engine ALTER TABLE ... "
            "SET TBLPROPERTIES (delta.enableDeletionVectors = false), REORG TABLE ... APPLY (PURGE), and ALTER TABLE "
            "... DROP FEATURE deletionVectors"
        )
    return f"{first_line(error)}; drop the feature in the engine that added it: ALTER TABLE ... DROP FEATURE ..."


def _check_sizes(storage: Storage, files: Mapping[str, int]) -> None:
    """Raise CorruptDataError if a file is missing or has another size than the log says.

    A bucket is not asked: a file appears in it whole, and a missing one is noticed when its columns are read.
    """
    for name, info in zip(files, storage.filesystem.get_file_info(list(files)), strict=True):
        if info.type != FileType.File or info.size != files[name]:
            raise _describe_damage(storage, name)


def _find_views(storage: Storage, files: Mapping[str, int]) -> dict[str, bool]:
    """Return for each file whether its columns have view types. Files in a bucket are asked at the same time."""
    if not storage.is_remote:
        return {name: _has_views(storage, name, size) for name, size in files.items()}
    with ThreadPoolExecutor(REQUESTS) as executor, translate_errors(storage.uri):
        results = executor.map(_has_views, [storage] * len(files), files, files.values())
        return dict(zip(files, results, strict=True))


@lru_cache(maxsize=_CACHED_FILES)
def _has_views(storage: Storage, name: str, size: int) -> bool:
    """Return whether the file's own Arrow schema has string or binary views. A file of a table never changes."""
    format_ = pyarrow.dataset.ParquetFileFormat()
    try:
        columns = format_.make_fragment(name, filesystem=storage.filesystem, file_size=size).physical_schema
    except (pa.ArrowInvalid, FileNotFoundError) as error:
        raise _describe_damage(storage, name) from error
    return any(_is_view(column.type) for column in columns)


def _describe_damage(storage: Storage, name: str) -> CorruptDataError:
    folder, _, table = storage.uri.rpartition("/")
    return CorruptDataError(
        f"table `{table}` under {folder} is damaged: its file {name} is missing or truncated; restore "
        f"{storage.uri} from a backup"
    )


def _is_view(type_: pa.DataType) -> bool:
    return pa.types.is_string_view(type_) or pa.types.is_binary_view(type_)


def _decode_views(
    fragment: pyarrow.dataset.ParquetFileFragment, columns: pa.Schema
) -> pyarrow.dataset.ParquetFileFragment:
    """Return the fragment with its texts and bytes read as dictionaries, which Arrow casts to the table's types.

    Rows that Delta rewrites (a deletion, a merge) are stored as views. Arrow cannot compare the statistics of such a
    file with a value of a filter: "Function 'equal' has no kernel matching input types (string, string_view)".
    """
    texts = [
        column.name
        for column in columns
        if any(is_type(column.type) for is_type in (pa.types.is_string, pa.types.is_binary))
    ]
    format_ = pyarrow.dataset.ParquetFileFormat(
        read_options=pyarrow.dataset.ParquetReadOptions(dictionary_columns=texts),
        default_fragment_scan_options=pyarrow.dataset.ParquetFragmentScanOptions(pre_buffer=True),
    )
    return format_.make_fragment(
        fragment.path, filesystem=fragment.filesystem, partition_expression=fragment.partition_expression
    )
