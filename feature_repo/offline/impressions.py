"""Read a log of impressions: the one way in for interests, neighbours, training sets, freshness and alignment.

A row is one product in one impression: an id may name a whole page of products. A row without a user counts for its
product (`anonymous_users.py` says which ids are nobody).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import schema
from feature_repo.arrow import text
from feature_repo.config import Settings
from feature_repo.errors import InvalidInputError
from feature_repo.offline import csv_files, quarantine, validation
from feature_repo.offline.anonymous_users import find_guests, find_shared_users
from feature_repo.offline.input_files import read_table
from feature_repo.offline.lost_share import require_kept
from feature_repo.offline.quarantine import RejectedRow, count_by_reason
from feature_repo.offline.validation import RowCheck
from feature_repo.schema import CLICKED, EVENT_TIMESTAMP, IMPRESSION_ID, PRODUCT_ID, USER_ID
from feature_repo.table_format import DEFAULT_FORMAT, TableFormat

CHILD_AGE = "child_age_months"
CHILD_GENDER = "child_gender"

NO_ID = "id is null or blank"
NOT_A_CLICK = "clicked is none of 1, 0, true, false, yes, no"
DUPLICATE_ID = "impression id and product came before"
BAD_AGE = "child age is no number of months from 0 on: dropped, row kept"
BAD_GENDER = f"child gender is none of {', '.join(schema.CHILD_GENDERS)}: dropped, row kept"
SHARED_USER = "user id has an improbable share of the log: its rows count for products only, rows kept"


@dataclass(frozen=True)
class CheckedImpressions:
    """The impressions of one file. Every row of the file is either in `table` or in `refused`."""

    table: pa.Table
    """Usable rows in the order of the file: the columns of schema.IMPRESSIONS, then the context columns. `user_id` is
    null where the row has no user."""
    refused: list[RejectedRow]
    """Each row that is not in `table` once, with the first fault found: rows that do not fit the header of a CSV, then
    fault by fault, each in the order of the file."""
    notes: list[RejectedRow]
    """Context values that were dropped: child ages, then child genders, each in the order of the file. Their rows
    are in `table`. Then one note for each user id that stands for many people, by falling number of rows."""
    read: int
    """Number of rows in the file."""
    remarks: tuple[str, ...]
    """What the user should know of the rows that were kept, one line each: rows without a user, ids that stand for many
    people, ids that were normalized."""


def load_impressions(
    settings: Settings,
    file: Path,
    *,
    step: str,
    now: datetime,
    table_format: TableFormat = DEFAULT_FORMAT,
    max_lost_share: float = 1.0,
) -> CheckedImpressions:
    """Read and check a log as `read_impressions` does, and write refused rows and notes to the quarantine.

    Args:
        settings: the deployment whose quarantine is used.
        file: Parquet or CSV with the columns of schema.IMPRESSIONS.
        step: the name of the calling command, which the quarantine stores.
        now: later impressions are refused; also the created timestamp in the quarantine. With a time zone.
        table_format: what the user says about the file.
        max_lost_share: the largest share of the rows that may be refused because of one column.

    Raises:
        NotFoundError: the file does not exist.
        InvalidInputError: as `read_impressions`; or a larger share was refused, which the quarantine holds by then.
    """
    impressions = read_impressions(file, now=now, table_format=table_format)
    quarantine.add(settings, step, [*impressions.refused, *impressions.notes], now)
    require_kept(
        file, impressions.refused, impressions.read, max_lost_share, outcome="nothing was computed from the rest"
    )
    return impressions


def read_impressions(
    file: Path,
    *,
    now: datetime,
    table_format: TableFormat = DEFAULT_FORMAT,
    required: Sequence[str] = tuple(schema.IMPRESSIONS.names),
    allow_empty: bool = False,
) -> CheckedImpressions:
    """Read and check a file of impressions.

    A row is refused if it does not fit the header of a CSV, a text is not UTF-8, its impression id or product id is
    null or blank, the timestamp is missing, has no zone, cannot be parsed or is in the future, `clicked` is none of 1,
    0, true, false, yes and no, or an earlier row without these faults has the same impression id and product. Ids that
    are integers become text, and texts that look equal become equal. Context columns are kept as they are, except
    `child_age_months`, which becomes float32 (NaN becomes null), and `child_gender`, which becomes text. An invalid
    value of these two is dropped and noted.

    Args:
        file: a Parquet or CSV file with the columns of schema.IMPRESSIONS; all further columns are context.
        now: the current time, with a time zone; only later timestamps are in the future.
        table_format: what the user says about the file.
        required: the columns of schema.IMPRESSIONS that the file must have. The table lacks others that the file lacks.
        allow_empty: a file without rows is no error.

    Raises:
        NotFoundError: there is no such file.
        InvalidInputError: the file cannot be read, lacks a column, has a column twice, has no rows, has a column of a
            wrong type, or none of its rows is usable.
    """
    refused: list[RejectedRow] = []
    names = [*schema.IMPRESSIONS.names, CHILD_GENDER]
    table = read_table(file, names, table_format=table_format, on_refused=refused.extend, allow_invalid_utf8=True)
    rows = table.num_rows + len(refused)
    validation.require_columns(table, required, file, allow_empty=allow_empty)
    table, utf8_checks = validation.null_invalid_utf8(table, table.column_names)
    known = [name for name in schema.IMPRESSIONS.names if name in table.column_names]
    as_written = {
        name: validation.parse_text(table, name, file) for name in known if name in (IMPRESSION_ID, USER_ID, PRODUCT_ID)
    }
    columns = {name: text.normalize_ids(ids) for name, ids in as_written.items()}
    ids = columns[IMPRESSION_ID if IMPRESSION_ID in known else PRODUCT_ID]
    row_ids = validation.name_rows(ids, lines=csv_files.find_lines(table))
    columns[EVENT_TIMESTAMP], timestamp_checks = validation.parse_timestamps(
        table, EVENT_TIMESTAMP, file, now, table_format.timezone
    )
    checks = [
        *utf8_checks,
        *(RowCheck(name, NO_ID, validation.is_blank(columns[name])) for name in as_written if name != USER_ID),
        *timestamp_checks,
    ]
    if CLICKED in known:
        columns[CLICKED] = validation.parse_booleans(table, CLICKED, file)
        checks.append(RowCheck(CLICKED, NOT_A_CLICK, validation.to_mask(pc.is_null(columns[CLICKED]))))
    passed, bad_rows = validation.apply_checks(table, row_ids, checks)
    refused += bad_rows
    if IMPRESSION_ID in known:
        keys = pc.binary_join_element_wise(columns[IMPRESSION_ID], columns[PRODUCT_ID], "\x1f")
        is_duplicate = validation.is_superseded(keys, -np.arange(table.num_rows), passed)
        duplicates = RowCheck(IMPRESSION_ID, DUPLICATE_ID, is_duplicate)
        passed, bad_rows = validation.apply_checks(table, row_ids, [duplicates], passed)
        refused += bad_rows
    if rows and not passed.any():
        raise InvalidInputError(f"{file}: none of its {rows:,} rows is usable: {_describe_reasons(refused)}")
    context, notes = _parse_context(table, row_ids, passed, file)
    kept = pa.table({**{name: columns[name] for name in known}, **context}).filter(pa.array(passed))
    remarks = [
        str(change)
        for name, ids in as_written.items()
        if (change := text.count_normalized(name, ids, columns[name])) is not None
    ]
    if USER_ID in known:
        kept, user_notes, user_remarks = _drop_anonymous_users(kept)
        notes, remarks = [*notes, *user_notes], [*remarks, *user_remarks]
    types = [
        (name, schema.IMPRESSIONS.field(name).type if name in known else kept[name].type) for name in kept.schema.names
    ]
    return CheckedImpressions(kept.cast(pa.schema(types)), refused, notes, rows, tuple(remarks))


def _drop_anonymous_users(table: pa.Table) -> tuple[pa.Table, list[RejectedRow], list[str]]:
    """Return the table with null for users who are nobody, a note for each id of many people, and lines about both."""
    notes, remarks = [], []
    user_ids = pc.if_else(pa.array(find_guests(table[USER_ID])), None, table[USER_ID])
    if user_ids.null_count:
        remarks.append(
            f"{user_ids.null_count:,} of {len(table):,} impressions have no user (the id is empty or a guest's): they "
            "count for products, not for users"
        )
    shared = find_shared_users(user_ids)
    for user in shared:
        notes.append(RejectedRow(user.user_id, USER_ID, SHARED_USER, f"{user.rows} of {len(table)} rows"))
        remarks.append(
            f"user {text.quote_text(user.user_id)} has {user.rows:,} of {len(table):,} impressions, too many for one "
            "person: they count for products, not for users"
        )
    if shared:
        ids = pa.array([user.user_id for user in shared], pa.string())
        user_ids = pc.if_else(pc.is_in(user_ids, value_set=ids), None, user_ids)
    return table.set_column(table.column_names.index(USER_ID), USER_ID, user_ids), notes, remarks


def _describe_reasons(refused: Sequence[RejectedRow]) -> str:
    """Return each reason with its number of rows and the first value."""
    first = {row.reason: row.value for row in reversed(refused)}
    return ", ".join(
        f"{rows:,} x {reason}" + (f", such as {text.quote_text(first[reason] or '')}" if first[reason] else "")
        for reason, rows in count_by_reason(refused).items()
    )


def _parse_context(
    table: pa.Table, names: pa.ChunkedArray, passed: validation.Mask, file: Path
) -> tuple[dict[str, pa.ChunkedArray], list[RejectedRow]]:
    """Return the context columns by name, and notes on the values that were dropped."""
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
