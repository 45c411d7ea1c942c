"""Read Parquet and CSV files that a shop supplies, and check files of impressions."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from feature_repo import schema
from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.offline import validation
from feature_repo.offline.quarantine import RejectedRow, count_by_reason
from feature_repo.offline.validation import RowCheck

CHILD_AGE = "child_age_months"
CHILD_GENDER = "child_gender"

NO_ID = "id is null or blank"
NOT_A_CLICK = "clicked is neither 0 nor 1"
DUPLICATE_ID = "impression id came before"
BAD_AGE = "child age is no number of months from 0 on: set to null, row kept"
BAD_GENDER = f"child gender is none of {', '.join(schema.CHILD_GENDERS)}: set to null, row kept"


@dataclass(frozen=True)
class CheckedImpressions:
    """The impressions of one file. Every row of the file is either in `table` or in `refused`."""

    table: pa.Table
    """Usable rows in the order of the file: the columns of schema.IMPRESSIONS, then the context columns."""
    refused: list[RejectedRow]
    """Each row that is not in `table` once, with the first fault found: fault by fault, each in the order of the
    file."""
    notes: list[RejectedRow]
    """Context values that were set to null: child ages, then child genders, each in the order of the file. Their rows
    are in `table`."""
    read: int
    """Number of rows in the file."""


def read_table(file: Path, text: Collection[str] = (), *, allow_invalid_utf8: bool = False) -> pa.Table:
    """Read a `.parquet` or `.csv` file, or a folder of Parquet files, into memory. A table without rows is no error.

    Rows keep their order; the files of a folder follow each other in the order of their names.

    Args:
        file: the file or folder. Upper and lower case of the suffix do not matter.
        text: columns that are read as text from a CSV, so that they can be checked row by row afterwards. The types of
            its other columns are inferred. An empty field of a CSV is null.
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
                _require_unique_names(file, pyarrow.parquet.read_schema(file).names)
            return pyarrow.parquet.read_table(file)
        if suffix == ".csv":
            table = pyarrow.csv.read_csv(
                file,
                parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types={name: pa.binary() if allow_invalid_utf8 else pa.string() for name in text},
                    strings_can_be_null=True,
                    null_values=[""],
                ),
            )
            _require_unique_names(file, table.column_names)
            for index, name in enumerate(table.column_names):
                if allow_invalid_utf8 and name in text:
                    chunks = [chunk.view(pa.string()) for chunk in table[name].chunks]
                    table = table.set_column(index, name, pa.chunked_array(chunks, pa.string()))
            return table
    raise InvalidInputError(f"{file}: expected a file name that ends in .parquet or .csv; convert or rename it")


def read_blocks(file: Path, rows: int, text: Collection[str] = ()) -> Iterator[pa.Table]:
    """Yield a file in order, in tables of at most `rows` rows. Yields at least one table, which may be empty.

    A single Parquet file is read block by block; all else is read into memory first. Text may hold invalid UTF-8.

    Args:
        file: a `.parquet` or `.csv` file, or a folder of Parquet files.
        rows: the largest number of rows per block.
        text: columns that are read as text from a CSV; the types of its other columns are inferred.

    Raises:
        NotFoundError: there is no such file.
        InvalidInputError: it has another suffix, it cannot be read, or two columns have one name. The error may come
            after some blocks.
    """
    if not file.is_file() or _file_suffix(file) != ".parquet":
        whole = read_table(file, text, allow_invalid_utf8=True)
        for start in range(0, max(1, whole.num_rows), rows):
            yield whole.slice(start, rows)
        return
    with _explain_errors(file, ".parquet"), pyarrow.parquet.ParquetFile(file) as parquet:
        _require_unique_names(file, parquet.schema_arrow.names)
        if not parquet.metadata.num_rows:
            yield parquet.schema_arrow.empty_table()
        for batch in parquet.iter_batches(batch_size=rows):
            yield pa.Table.from_batches([batch])


def read_column(file: Path, name: str, rows: int) -> Iterator[pa.ChunkedArray]:
    """Yield one column of a single Parquet file in order, in pieces of at most `rows` rows.

    Args:
        file: a `.parquet` file that has the column.
        name: name of the column.
        rows: the largest number of rows of a piece.

    Raises:
        InvalidInputError: the file cannot be read.
    """
    with _explain_errors(file, ".parquet"), pyarrow.parquet.ParquetFile(file) as parquet:
        for batch in parquet.iter_batches(batch_size=rows, columns=[name]):
            yield pa.chunked_array([batch.column(0)])


def read_impressions(file: Path, *, now: datetime) -> CheckedImpressions:
    """Read and check a file of impressions.

    A row is refused if a text is not UTF-8, an id is null or blank, the timestamp is missing, has no zone, cannot be
    parsed or is in the future, `clicked` is neither 0 nor 1, or an earlier row without these faults has the same
    impression id. Ids that are integers become text. Context columns are kept as they are, except `child_age_months`,
    which becomes float32 (NaN becomes null), and `child_gender`, which becomes text. An invalid value of these two is
    set to null and noted.

    Args:
        file: a Parquet or CSV file with the columns of schema.IMPRESSIONS; all further columns are context.
        now: the current time, with a time zone; only later timestamps are in the future.

    Raises:
        NotFoundError: there is no such file.
        InvalidInputError: the file cannot be read, lacks a column, has a column twice, has no rows, has a column of a
            wrong type, or none of its rows is usable.
    """
    text = [*schema.IMPRESSIONS.names, CHILD_GENDER]
    table = read_table(file, text, allow_invalid_utf8=True)
    validation.require_columns(table, schema.IMPRESSIONS.names, file)
    table, utf8_checks = validation.null_invalid_utf8(table, table.column_names)
    ids = {
        name: validation.parse_text(table, name, file)
        for name in (schema.IMPRESSION_ID, schema.USER_ID, schema.PRODUCT_ID)
    }
    names = validation.name_rows(ids[schema.IMPRESSION_ID])
    timestamps, timestamp_checks = validation.parse_timestamps(table, schema.EVENT_TIMESTAMP, file, now)
    clicks = validation.parse_numbers(table, schema.CLICKED, file)
    is_click = validation.to_mask(pc.is_in(clicks, value_set=pa.array([0.0, 1.0])))
    passed, refused = validation.apply_checks(
        table,
        names,
        [
            *utf8_checks,
            *(RowCheck(name, NO_ID, validation.is_blank(values)) for name, values in ids.items()),
            *timestamp_checks,
            RowCheck(schema.CLICKED, NOT_A_CLICK, ~is_click),
        ],
    )
    latest_first = -np.arange(table.num_rows)
    is_duplicate = validation.is_superseded(ids[schema.IMPRESSION_ID], latest_first, passed)
    duplicates = RowCheck(schema.IMPRESSION_ID, DUPLICATE_ID, is_duplicate)
    passed, refused_duplicates = validation.apply_checks(table, names, [duplicates], passed)
    refused += refused_duplicates
    if not passed.any():
        reasons = ", ".join(f"{rows:,} x {reason}" for reason, rows in count_by_reason(refused).items())
        raise InvalidInputError(f"{file}: none of its {table.num_rows:,} rows is usable: {reasons}")
    context, notes = _parse_context(table, names, passed, file)
    columns = {**ids, schema.EVENT_TIMESTAMP: timestamps, schema.CLICKED: clicks, **context}
    kept = pa.table(columns).filter(pa.array(passed))
    typed = {name: kept[name].cast(schema.IMPRESSIONS.field(name).type) for name in schema.IMPRESSIONS.names}
    result = pa.table({**typed, **{name: kept[name] for name in context}})
    return CheckedImpressions(result, refused, notes, table.num_rows)


def _parse_context(
    table: pa.Table, names: pa.ChunkedArray, passed: validation.Mask, file: Path
) -> tuple[dict[str, pa.ChunkedArray], list[RejectedRow]]:
    """Return the context columns by name, and notes on the values that were set to null."""
    context = {name: table[name] for name in table.column_names if name not in schema.IMPRESSIONS.names}
    notes: list[RejectedRow] = []
    if CHILD_AGE in context:
        ages = validation.parse_numbers(table, CHILD_AGE, file)
        bad = validation.to_mask(pc.less(ages, 0.0)) | validation.to_mask(pc.is_inf(ages))
        notes += validation.list_failures(table, names, RowCheck(CHILD_AGE, BAD_AGE, bad & passed))
        context[CHILD_AGE] = pc.if_else(pc.or_(pa.array(bad), pc.is_nan(ages)), None, ages).cast(pa.float32())
    if CHILD_GENDER in context:
        genders = validation.parse_text(table, CHILD_GENDER, file)
        is_gender = validation.to_mask(pc.is_in(genders, value_set=pa.array(schema.CHILD_GENDERS)))
        bad = ~is_gender & validation.to_mask(pc.is_valid(genders))
        notes += validation.list_failures(table, names, RowCheck(CHILD_GENDER, BAD_GENDER, bad & passed))
        context[CHILD_GENDER] = pc.if_else(pa.array(bad), None, genders)
    return context, notes


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
