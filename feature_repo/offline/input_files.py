"""Read Parquet and CSV files that a shop supplies."""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet

from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.offline.csv_files import read_csv
from feature_repo.offline.quarantine import RejectedRow
from feature_repo.table_format import DEFAULT_FORMAT, TableFormat

logger = logging.getLogger(__name__)

CSV_SUFFIXES = (".csv", ".tsv")
BLOCK_BYTES = 32 << 20
"""Bytes of a block, by the mean of the rows of the file: images in a column make blocks of fewer rows."""


def warn_of_rows(rows: Sequence[RejectedRow]) -> None:
    """Log one warning that names the first of some refused rows, for commands without a quarantine."""
    if rows:
        logger.warning("%d rows are left out, such as %s: %s", len(rows), rows[0].row_id, rows[0].reason)


def read_table(
    file: Path,
    text: Collection[str] = (),
    *,
    table_format: TableFormat = DEFAULT_FORMAT,
    on_refused: Callable[[Sequence[RejectedRow]], None] = warn_of_rows,
    allow_invalid_utf8: bool = False,
) -> pa.Table:
    """Read a `.parquet`, `.csv` or `.tsv` file, or a folder of Parquet files, into memory.

    Rows keep their order; the files of a folder follow each other in the order of their names. A table without rows is
    no error. Columns have our names, without white space at both ends.

    Args:
        file: the file or folder. Upper and lower case of the suffix do not matter.
        text: columns that are read as text from a CSV, so that they can be checked row by row afterwards. The types of
            its other columns are inferred. An empty field of a CSV is null.
        table_format: what the user says about the file.
        on_refused: called once with the rows of a CSV that do not fit its header; none of a Parquet file.
        allow_invalid_utf8: let the text columns of a CSV hold bytes that are not UTF-8, for
            `validation.null_invalid_utf8` to find; otherwise such a CSV is an error. Parquet is never checked.

    Raises:
        NotFoundError: there is no such file.
        InvalidInputError: it has another suffix, it cannot be read, or two columns have one name.
    """
    suffix = _file_suffix(file)
    with _explain_errors(file, suffix):
        if suffix == ".parquet":
            if file.is_file():
                _require_unique_names(file, table_format.rename(pyarrow.parquet.read_schema(file).names))
            table = pyarrow.parquet.read_table(file).replace_schema_metadata()
            return table.rename_columns(table_format.rename(table.column_names))
        if suffix in CSV_SUFFIXES:
            table, refused = read_csv(file, table_format, frozenset(text), as_bytes=allow_invalid_utf8)
            _require_unique_names(file, table.column_names)
            if refused and not table.num_rows:
                first = refused[0]
                raise InvalidInputError(
                    f"{file}: none of its {len(refused):,} rows can be read; {first.row_id}, "
                    f"`{first.value or '':.80}`: {first.reason}; check its quotes and its separator (--delimiter)"
                )
            on_refused(refused)
            for index, column in enumerate(table.columns):
                if allow_invalid_utf8 and table.column_names[index] in text:
                    chunks = [chunk.view(pa.string()) for chunk in column.chunks]
                    table = table.set_column(index, table.column_names[index], pa.chunked_array(chunks, pa.string()))
            return table
    raise InvalidInputError(f"{file}: expected a file name that ends in .parquet or .csv; convert or rename it")


def read_blocks(
    file: Path,
    rows: int,
    text: Collection[str] = (),
    *,
    table_format: TableFormat = DEFAULT_FORMAT,
    on_refused: Callable[[Sequence[RejectedRow]], None] = warn_of_rows,
) -> Iterator[pa.Table]:
    """Yield a file in order, in tables of at most `rows` rows. Yields at least one table, which may be empty.

    Parquet is read block by block, in blocks of about BLOCK_BYTES at most; a CSV is read into memory first. Text may
    hold invalid UTF-8.

    Args:
        file: a `.parquet`, `.csv` or `.tsv` file, or a folder of Parquet files.
        rows: the largest number of rows per block.
        text: columns that are read as text from a CSV; the types of its other columns are inferred.
        table_format: what the user says about the file.
        on_refused: called before the first block with the rows of a CSV that do not fit its header.

    Raises:
        NotFoundError: there is no such file.
        InvalidInputError: it has another suffix, it cannot be read, or two columns have one name. The error may come
            after some blocks.
    """
    if not is_parquet(file):
        whole = read_table(file, text, table_format=table_format, on_refused=on_refused, allow_invalid_utf8=True)
        for start in range(0, max(1, whole.num_rows), rows):
            yield whole.slice(start, rows)
        return
    with _explain_errors(file, ".parquet"):
        names: list[str] | None = None
        for block in _read_parquet(file, rows):
            if names is None:
                names = table_format.rename(block.column_names)
                _require_unique_names(file, names)
            yield block.rename_columns(names)


def read_column(
    file: Path, name: str, rows: int, *, table_format: TableFormat = DEFAULT_FORMAT
) -> Iterator[pa.ChunkedArray]:
    """Yield one column of a Parquet file, or of a folder of them, in order, in pieces of at most `rows` rows.

    Args:
        file: Parquet that has the column.
        name: our name of the column.
        rows: the largest number of rows of a piece; pieces are of about BLOCK_BYTES at most.
        table_format: what the user says about the file.

    Raises:
        InvalidInputError: the file cannot be read.
    """
    with _explain_errors(file, ".parquet"):
        for block in _read_parquet(file, rows, lambda names: names[table_format.rename(names).index(name)]):
            yield block.column(0)


def is_parquet(file: Path) -> bool:
    """Return whether a file is Parquet by its name, or a folder of Parquet files.

    Raises:
        NotFoundError: there is no such file.
    """
    return _file_suffix(file) == ".parquet"


def _read_parquet(file: Path, rows: int, choose_column: Callable[[list[str]], str] | None = None) -> Iterator[pa.Table]:
    """Yield the rows of a Parquet file, or of the files of a folder in the order of their names; at least one table.

    Columns of a folder are those of its first file, and of names of folders such as `day=1`. Files are mapped into
    memory, so that the system may drop what was read. Arrow's scanner of datasets reads ahead by row groups instead.

    Args:
        file: the file or folder.
        rows: the largest number of rows of a table.
        choose_column: returns the only column to read, given all names; None reads all columns.
    """
    columns: pa.Schema | None = None
    pieces: list[tuple[str, dict[str, Any]]] = [(str(file), {})]
    if file.is_dir():
        dataset = pyarrow.dataset.dataset(file, format="parquet", partitioning="hive")
        columns = dataset.schema
        pieces = [
            (fragment.path, pyarrow.dataset.get_partition_keys(fragment.partition_expression))
            for fragment in dataset.get_fragments()
        ]
    names = columns.names if columns is not None else pyarrow.parquet.read_schema(file).names
    wanted = names if choose_column is None else [choose_column(names)]
    empty = True
    for path, partition in pieces:
        with pyarrow.parquet.ParquetFile(path, memory_map=True) as parquet:
            columns = columns or parquet.schema_arrow
            stored = [name for name in wanted if name in parquet.schema_arrow.names]
            chosen = None if choose_column is None else stored
            for batch in parquet.iter_batches(_count_block_rows(parquet.metadata, rows), columns=chosen):
                empty = False
                yield _conform(batch, columns, wanted, partition)
    if empty and columns is not None:
        yield pa.schema([columns.field(columns.names.index(name)) for name in wanted]).empty_table()


def _conform(batch: pa.RecordBatch, columns: pa.Schema, wanted: list[str], partition: dict[str, Any]) -> pa.Table:
    """Return a batch with the columns `wanted`: constants of its folder's name, and null where its file lacks one."""
    table = pa.Table.from_batches([batch]).replace_schema_metadata()
    if table.column_names == wanted and not partition:
        fields = [field for field in columns if field.name in wanted]
        return table if table.schema.types == [field.type for field in fields] else table.cast(pa.schema(fields))
    arrays = [
        table[name].cast(columns.field(name).type)
        if name in table.column_names
        else pa.chunked_array([pa.repeat(pa.scalar(partition.get(name), columns.field(name).type), len(table))])
        for name in wanted
    ]
    return pa.table(arrays, names=wanted)


def _count_block_rows(metadata: pyarrow.parquet.FileMetaData, rows: int) -> int:
    """Return how many rows of a file make a block: at most `rows`, and about BLOCK_BYTES of its widest row group."""
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    row_bytes = max((group.total_byte_size / group.num_rows for group in groups if group.num_rows), default=1.0)
    return max(1, min(rows, int(BLOCK_BYTES / max(row_bytes, 1.0))))


def _file_suffix(file: Path) -> str:
    if not file.exists():
        raise NotFoundError(f"{file}: no such file; expected a table in Parquet or CSV")
    return ".parquet" if file.is_dir() else file.suffix.lower()


def _require_unique_names(file: Path, names: Sequence[str]) -> None:
    """Raise InvalidInputError if two columns have one name. Columns without a name are left to the caller."""
    repeated = [name for name in dict.fromkeys(names) if name and names.count(name) > 1]
    if repeated:
        raise InvalidInputError(
            f"{file}: there is more than one column {', '.join(repeated)}; remove or rename all but one"
        )


@contextmanager
def _explain_errors(file: Path, suffix: str) -> Iterator[None]:
    """Raise InvalidInputError with one line for what Arrow reports about a broken file."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        message = " ".join(str(error).split())
        raise InvalidInputError(
            f"{file}: cannot be read as {suffix[1:]} ({message}); write it again or convert it"
        ) from error
