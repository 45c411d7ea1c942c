"""Impressions as a shop hands them in, checked: the usable rows, and each of the others with its reason."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import schema
from feature_repo.errors import VitrineError
from feature_repo.offline import files, validation
from feature_repo.offline.quarantine import Refused, counts
from feature_repo.offline.validation import Check

CHILD_AGE = "child_age_months"
CHILD_GENDER = "child_gender"

NO_ID = "id is null or blank"
NOT_A_CLICK = "clicked is neither 0 nor 1"
TWICE = "impression id came before"
BAD_AGE = "child age is no number of months from 0 on: set to null, row kept"
BAD_GENDER = f"child gender is none of {', '.join(schema.CHILD_GENDERS)}: set to null, row kept"


@dataclass(frozen=True)
class Impressions:
    """What came of one file: `read` rows are those of `table` and those of `refused`, nothing else."""

    table: pa.Table
    """schema.IMPRESSIONS and then the context columns, in the order of the file."""
    refused: list[Refused]
    notes: list[Refused]
    """Context values that were set to null; their rows are in `table`."""
    read: int


def read_impressions(file: Path, *, now: datetime) -> Impressions:
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
    table = files.read(file, text, misspelt=True)
    validation.require(table, schema.IMPRESSIONS.names, file)
    table, misspelt = validation.spelt(table, table.column_names)
    ids = {
        name: validation.as_text(table, name, file)
        for name in (schema.IMPRESSION_ID, schema.USER_ID, schema.PRODUCT_ID)
    }
    names = validation.row_names(ids[schema.IMPRESSION_ID])
    instants, bad_instants = validation.as_timestamps(table, schema.EVENT_TIMESTAMP, file, now)
    clicks = validation.as_numbers(table, schema.CLICKED, file)
    clicked = validation.mask(pc.is_in(clicks, value_set=pa.array([0.0, 1.0])))
    passed, refused = validation.sieve(
        table,
        names,
        [
            *misspelt,
            *(Check(name, NO_ID, validation.blank(values)) for name, values in ids.items()),
            *bad_instants,
            Check(schema.CLICKED, NOT_A_CLICK, ~clicked),
        ],
    )
    latest_first = -np.arange(table.num_rows)
    twice = validation.displaced(ids[schema.IMPRESSION_ID], latest_first, passed)
    passed, doubled = validation.sieve(table, names, [Check(schema.IMPRESSION_ID, TWICE, twice)], passed)
    refused += doubled
    if not passed.any():
        raise VitrineError(f"{file}: none of its {table.num_rows:,} rows is usable: {_by_reason(refused)}")
    context, notes = _context(table, names, passed, file)
    columns = {**ids, schema.EVENT_TIMESTAMP: instants, schema.CLICKED: clicks, **context}
    kept = pa.table(columns).filter(pa.array(passed))
    typed = {name: kept[name].cast(schema.IMPRESSIONS.field(name).type) for name in schema.IMPRESSIONS.names}
    return Impressions(pa.table({**typed, **{name: kept[name] for name in context}}), refused, notes, table.num_rows)


def _context(
    table: pa.Table, names: pa.ChunkedArray, passed: np.ndarray, file: Path
) -> tuple[dict[str, pa.ChunkedArray], list[Refused]]:
    context = {name: table[name] for name in table.column_names if name not in schema.IMPRESSIONS.names}
    notes: list[Refused] = []
    if CHILD_AGE in context:
        ages = validation.as_numbers(table, CHILD_AGE, file)
        bad = validation.mask(pc.less(ages, 0.0)) | validation.mask(pc.is_inf(ages))
        notes += validation.named(table, names, Check(CHILD_AGE, BAD_AGE, bad & passed))
        context[CHILD_AGE] = pc.if_else(pc.or_(pa.array(bad), pc.is_nan(ages)), None, ages).cast(pa.float32())
    if CHILD_GENDER in context:
        genders = validation.as_text(table, CHILD_GENDER, file)
        known = validation.mask(pc.is_in(genders, value_set=pa.array(schema.CHILD_GENDERS)))
        bad = ~known & validation.mask(pc.is_valid(genders))
        notes += validation.named(table, names, Check(CHILD_GENDER, BAD_GENDER, bad & passed))
        context[CHILD_GENDER] = pc.if_else(pa.array(bad), None, genders)
    return context, notes


def _by_reason(refused: list[Refused]) -> str:
    return ", ".join(f"{rows:,} x {reason}" for reason, rows in counts(refused).items())
