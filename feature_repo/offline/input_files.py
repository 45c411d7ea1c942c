"""Tables that others hand in, in Parquet or CSV: read whole or block by block; impressions are also checked."""

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
from feature_repo.errors import VitrineError
from feature_repo.offline import validation
from feature_repo.offline.quarantine import RejectedRow, count_by_reason
from feature_repo.offline.validation import Check

CHILD_AGE = "child_age_months"
CHILD_GENDER = "child_gender"

NO_ID = "id is null or blank"
NOT_A_CLICK = "clicked is neither 0 nor 1"
DUPLICATE_ID = "impression id came before"
BAD_AGE = "child age is no number of months from 0 on: set to null, row kept"
BAD_GENDER = f"child gender is none of {', '.join(schema.CHILD_GENDERS)}: set to null, row kept"


@dataclass(frozen=True)
class CheckedImpressions:
    """What came of one file: `read` rows are those of `table` and those of `refused`, nothing else."""

    table: pa.Table
    """schema.IMPRESSIONS and then the context columns, in the order of the file."""
    refused: list[RejectedRow]
    notes: list[RejectedRow]
    """Context values that were set to null; their rows are in `table`."""
    read: int


def read_table(file: Path, text: Collection[str] = (), *, misspelt: bool = False) -> pa.Table:
    """Read a table from a `.parquet` or `.csv` file, or from a folder of Parquet parts.

    Args:
        file: its suffix says what it is.
        text: columns that a CSV gives as text, whatever they look like, to be checked row by row afterwards; the types
            of its others are inferred. An empty field of a CSV is null.
        misspelt: let those columns hold bytes that are not UTF-8, as Parquet's always may, for `checks.spelt` to find;
            else a CSV with such bytes is an error.

    Raises:
        VitrineError: there is no such file, its suffix is another, it cannot be read, or two columns have one name.
    """
    suffix = _suffix(file)
    with _explained(file, suffix):
        if suffix == ".parquet":
            if file.is_file():
                _refuse_doubles(file, pyarrow.parquet.read_schema(file).names)
            return pyarrow.parquet.read_table(file)
        if suffix == ".csv":
            table = pyarrow.csv.read_csv(
                file,
                parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types={name: pa.binary() if misspelt else pa.string() for name in text},
                    strings_can_be_null=True,
                    null_values=[""],
                ),
            )
            _refuse_doubles(file, table.column_names)
            for place, name in enumerate(table.column_names):
                if misspelt and name in text:
                    chunks = [chunk.view(pa.string()) for chunk in table[name].chunks]
                    table = table.set_column(place, name, pa.chunked_array(chunks, pa.string()))
            return table
    raise VitrineError(f"{file}: a table's name ends in .parquet or .csv; convert or rename it")


def read_blocks(file: Path, rows: int, text: Collection[str] = ()) -> Iterator[pa.Table]:
    """The same, in order, in tables of `rows` rows or fewer; of Parquet only those being read are in memory.

    There is at least one block, be it empty. Text may be misspelt.

    Raises:
        VitrineError: as `read` does, maybe after some blocks.
    """
    if not file.is_file() or _suffix(file) != ".parquet":
        whole = read_table(file, text, misspelt=True)
        for start in range(0, max(1, whole.num_rows), rows):
            yield whole.slice(start, rows)
        return
    with _explained(file, ".parquet"), pyarrow.parquet.ParquetFile(file) as opened:
        _refuse_doubles(file, opened.schema_arrow.names)
        if not opened.metadata.num_rows:
            yield opened.schema_arrow.empty_table()
        for batch in opened.iter_batches(batch_size=rows):
            yield pa.Table.from_batches([batch])


def read_impressions(file: Path, *, now: datetime) -> CheckedImpressions:
    """Read and check a file of impressions (Parquet or CSV).

    Refused, with its reason: a text that is not UTF-8; a null or blank id; a missing, naive, unparsable or future
    timestamp; a click that is neither 0 nor 1; an impression id that an earlier row has. Context columns are kept as
    they are, but `child_age_months` becomes float32 (NaN becomes null: unknown) and `child_gender` text, each null with
    a note where the value makes no sense.

    Args:
        file: with the columns of schema.IMPRESSIONS and any more.
        now: later timestamps are refused.

    Raises:
        VitrineError: the file cannot be read, lacks a column, is empty, has a column of a wrong type, or no row of it
            is usable.
    """
    text = [*schema.IMPRESSIONS.names, CHILD_GENDER]
    table = read_table(file, text, misspelt=True)
    validation.require_columns(table, schema.IMPRESSIONS.names, file)
    table, misspelt = validation.null_invalid_utf8(table, table.column_names)
    ids = {
        name: validation.parse_text(table, name, file)
        for name in (schema.IMPRESSION_ID, schema.USER_ID, schema.PRODUCT_ID)
    }
    names = validation.name_rows(ids[schema.IMPRESSION_ID])
    instants, bad_instants = validation.parse_timestamps(table, schema.EVENT_TIMESTAMP, file, now)
    clicks = validation.parse_numbers(table, schema.CLICKED, file)
    clicked = validation.to_mask(pc.is_in(clicks, value_set=pa.array([0.0, 1.0])))
    passed, refused = validation.apply_checks(
        table,
        names,
        [
            *misspelt,
            *(Check(name, NO_ID, validation.is_blank(values)) for name, values in ids.items()),
            *bad_instants,
            Check(schema.CLICKED, NOT_A_CLICK, ~clicked),
        ],
    )
    latest_first = -np.arange(table.num_rows)
    twice = validation.is_superseded(ids[schema.IMPRESSION_ID], latest_first, passed)
    passed, doubled = validation.apply_checks(table, names, [Check(schema.IMPRESSION_ID, DUPLICATE_ID, twice)], passed)
    refused += doubled
    if not passed.any():
        raise VitrineError(f"{file}: none of its {table.num_rows:,} rows is usable: {_by_reason(refused)}")
    context, notes = _context(table, names, passed, file)
    columns = {**ids, schema.EVENT_TIMESTAMP: instants, schema.CLICKED: clicks, **context}
    kept = pa.table(columns).filter(pa.array(passed))
    typed = {name: kept[name].cast(schema.IMPRESSIONS.field(name).type) for name in schema.IMPRESSIONS.names}
    return CheckedImpressions(
        pa.table({**typed, **{name: kept[name] for name in context}}), refused, notes, table.num_rows
    )


def _context(
    table: pa.Table, names: pa.ChunkedArray, passed: np.ndarray, file: Path
) -> tuple[dict[str, pa.ChunkedArray], list[RejectedRow]]:
    context = {name: table[name] for name in table.column_names if name not in schema.IMPRESSIONS.names}
    notes: list[RejectedRow] = []
    if CHILD_AGE in context:
        ages = validation.parse_numbers(table, CHILD_AGE, file)
        bad = validation.to_mask(pc.less(ages, 0.0)) | validation.to_mask(pc.is_inf(ages))
        notes += validation.list_failures(table, names, Check(CHILD_AGE, BAD_AGE, bad & passed))
        context[CHILD_AGE] = pc.if_else(pc.or_(pa.array(bad), pc.is_nan(ages)), None, ages).cast(pa.float32())
    if CHILD_GENDER in context:
        genders = validation.parse_text(table, CHILD_GENDER, file)
        known = validation.to_mask(pc.is_in(genders, value_set=pa.array(schema.CHILD_GENDERS)))
        bad = ~known & validation.to_mask(pc.is_valid(genders))
        notes += validation.list_failures(table, names, Check(CHILD_GENDER, BAD_GENDER, bad & passed))
        context[CHILD_GENDER] = pc.if_else(pa.array(bad), None, genders)
    return context, notes


def _by_reason(refused: list[RejectedRow]) -> str:
    return ", ".join(f"{rows:,} x {reason}" for reason, rows in count_by_reason(refused).items())


def _suffix(file: Path) -> str:
    if not file.exists():
        raise VitrineError(f"{file}: no such file; wanted a table in Parquet or CSV")
    return ".parquet" if file.is_dir() else file.suffix.lower()


def _refuse_doubles(file: Path, names: Sequence[str]) -> None:
    """Columns without a name are the caller's to look at."""
    twice = [name for name in dict.fromkeys(names) if name and names.count(name) > 1]
    if twice:
        raise VitrineError(f"{file}: there is more than one column {', '.join(twice)}; leave one or rename the others")


@contextmanager
def _explained(file: Path, suffix: str) -> Iterator[None]:
    """What Arrow says of a broken file, in one line."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        said = " ".join(str(error).split())
        raise VitrineError(f"{file}: cannot be read as {suffix[1:]} ({said}); write it again or convert it") from error
