"""The files of a Delta table: which paths can hold one, and the Parquet files of a version as an Arrow dataset."""

import re
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.dataset
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, DeltaProtocolError
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from feature_repo.errors import CorruptDataError, InvalidInputError

_REFUSED_IN_PATHS = re.compile(r"[\[\]^|\\]|%[0-9A-Fa-f]{2}|[\x00-\x1f]")
"""Delta Lake aborts the process at the first four characters and reads or writes another folder for the rest."""
_CACHED_FILES = 65_536
"""Number of files that the process remembers: whether their columns have view types."""


def to_uri(path: Path) -> str:
    """Return the path as deltalake takes it.

    Raises:
        InvalidInputError: the path has characters with which Delta Lake opens another folder, or none.
    """
    refused = _REFUSED_IN_PATHS.search(str(path.absolute()))
    if refused:
        raise InvalidInputError(
            f"{path}: Delta Lake cannot keep a table in a folder with {refused[0]!r} in its path; move it to a path "
            "without [ ] ^ | \\ and percent escapes such as %20"
        )
    return str(path)


def make_parent(path: Path) -> None:
    """Create the folder in which the table's folder is to be, if it does not exist.

    Raises:
        InvalidInputError: Delta Lake cannot keep a table at this path; no folder is created.
    """
    to_uri(path)
    path.parent.mkdir(parents=True, exist_ok=True)


def open_version(table: DeltaTable, path: Path) -> pyarrow.dataset.Dataset:
    """Open one version of a table as an Arrow dataset that reads the files itself.

    Whoever wrote a file, its columns have the types of the table's schema, in rows and in filters.

    Deltalake's own file system calls Python from Arrow's threads. A thread that is still running when the interpreter
    exits aborts the process: one command in fifteen ended with exit code 134 after its work was done.

    Args:
        table: the version.
        path: the table's folder.

    Raises:
        InvalidInputError: the table has a feature that is not read here, such as deletion vectors.
        CorruptDataError: a file of the version is missing or has another size than the log says.
    """
    files = list_files(table)
    for name, size in files.items():
        file = path / name
        if not file.is_file() or file.stat().st_size != size:
            raise CorruptDataError(
                f"table `{path.name}` under {path.parent} is damaged: its file {file.name} is missing or truncated; "
                f"restore {path} from a backup"
            )
    filesystem = SubTreeFileSystem(str(path), LocalFileSystem())
    try:
        dataset = table.to_pyarrow_dataset(filesystem=filesystem)
    except DeltaProtocolError as error:
        raise InvalidInputError(
            f"table `{path.name}` under {path.parent} cannot be read: {_describe_feature(table, error)}"
        ) from error
    fragments = [
        _decode_views(fragment, dataset.schema) if _has_views(path / fragment.path, files[fragment.path]) else fragment
        for fragment in dataset.get_fragments()
    ]
    return pyarrow.dataset.FileSystemDataset(fragments, dataset.schema, dataset.format, filesystem)


def list_files(table: DeltaTable) -> dict[str, int]:
    """Return the files of a version, relative to its folder, with their sizes in bytes.

    Files of an old version may have been removed by a vacuum.
    """
    actions = pa.table(table.get_add_actions())
    names, sizes = (actions[column].to_pylist() for column in ("path", "size_bytes"))
    return {unquote(name): size for name, size in zip(names, sizes, strict=True)}


def first_line(error: DeltaError) -> str:
    """Return Delta's message without the Rust stack trace that may follow it."""
    return str(error).splitlines()[0].removeprefix("Kernel error: ") if str(error) else type(error).__name__


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


@lru_cache(maxsize=_CACHED_FILES)
def _has_views(file: Path, size: int) -> bool:
    """Return whether the file's own Arrow schema has string or binary views. A file of a table never changes."""
    format_ = pyarrow.dataset.ParquetFileFormat()
    try:
        columns = format_.make_fragment(str(file), filesystem=LocalFileSystem(), file_size=size).physical_schema
    except pa.ArrowInvalid as error:
        raise CorruptDataError(f"{file} is damaged: {error}; restore it from a backup") from error
    return any(_is_view(column.type) for column in columns)


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
