"""mum_baby: purchases of mother-and-baby products, and the birthdays of some of the children.

Every purchase becomes a clicked impression, so the set cannot measure lift; it shows the child's age at the time of
purchase. It has no titles and no images, and therefore no products. A purchase is dated to the start of its day in
China, so that it never follows something else of the same day.

The set's documentation defines gender 0 as girl, 1 as boy and 2 as unknown.
"""

from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import schema
from feature_repo.offline import input_files, validation
from feature_repo.offline.quarantine import RejectedRow
from feature_repo.offline.validation import RowCheck
from producers.datasets.imports import folder
from producers.datasets.imports.folder import ImportedTables
from producers.datasets.shop.people import age_months

CHILDREN, TRADES = "tianchi_mum_baby.csv", "tianchi_mum_baby_trade_history.csv"
CHILD_COLUMNS = ("user_id", "birthday", "gender")
TRADE_COLUMNS = ("user_id", "auction_id", "category_2", "category_1", "buy_mount", "day")
GENDERS = {"0": "girl", "1": "boy", "2": None}
CHINA = timezone(timedelta(hours=8))
WHOLESALE_AMOUNT = 1_000
"""A purchase of this many pieces or more is not a household's."""

INVALID_BIRTHDAY = "birthday is not a date: dropped, row kept"
INVALID_GENDER = "gender is not 0, 1 or 2: dropped, row kept"
DUPLICATE_USER = "user is repeated"
INVALID_DAY = "day is not a date"
INVALID_AMOUNT = "amount is not a whole number of at least 1"
WHOLESALE = f"amount is {WHOLESALE_AMOUNT:,} or more: not a household's purchase"
UNBORN = "child is not born at the time of purchase: age dropped, row kept"
GROWN = "child is 14 years or older at the time of purchase: age dropped, row kept"


def read(source: Path, now: datetime) -> ImportedTables:
    """Read the set's two CSV files. `amount` (pieces) and `category` are context columns of the purchases.

    A purchase is refused if its day is not a date, or if its amount is not a whole number in [1, WHOLESALE_AMOUNT). An
    impression's id is `USER-PRODUCT-DAY`, so it may be repeated. An age is null if the user's child is unknown, not yet
    born, or 14 years or older. Of a repeated user the first row is used. A purchase by a user who is not in CHILDREN is
    kept, with a null age and gender.

    Args:
        source: the folder with the files CHILDREN and TRADES.
        now: not used: the reader of impressions refuses times in the future.

    Returns:
        The tables `impressions` and `users`, both in the order of their files. The set has no `products`.

    Raises:
        NotFoundError: one of the files does not exist.
        InvalidInputError: one cannot be read, is empty, lacks a column or has a column of a wrong type.
    """
    del now  # the reader of impressions refuses times in the future
    users, refused = _read_users(source / CHILDREN)
    file = source / TRADES
    trades = input_files.read_table(file, TRADE_COLUMNS)
    validation.require_columns(trades, TRADE_COLUMNS, file)
    ids = pc.binary_join_element_wise(trades["user_id"], trades["auction_id"], trades["day"], "-")
    names = validation.name_rows(ids)
    amounts = validation.parse_numbers(trades, "buy_mount", file).fill_null(np.nan).to_numpy()
    days = [_parse_day(text) for text in trades["day"].to_pylist()]
    is_whole = np.isfinite(amounts) & (amounts >= 1) & (np.floor(amounts) == amounts)
    is_valid, rejected_rows = validation.apply_checks(
        trades,
        names,
        [
            RowCheck("day", INVALID_DAY, np.array([day is None for day in days])),
            RowCheck("buy_mount", INVALID_AMOUNT, ~is_whole),
            RowCheck("buy_mount", WHOLESALE, amounts >= WHOLESALE_AMOUNT),
        ],
    )
    keep = pa.array(is_valid)
    kept, kept_names = trades.filter(keep), names.filter(keep)
    timestamps = pa.array([datetime(day.year, day.month, day.day, tzinfo=CHINA) for day in days if day]).cast(
        schema.TIMESTAMP
    )
    timestamps = timestamps.filter(keep.filter(pa.array([day is not None for day in days])))
    owner = pc.index_in(kept["user_id"], value_set=users[schema.USER_ID].combine_chunks())
    birthday = users["child_birthday"].take(owner)
    months = _compute_months(birthday, timestamps)
    with np.errstate(invalid="ignore"):
        is_unborn, is_grown = months < 0, months >= schema.CHILD_AGE_MONTHS[-1]
    with_birthday = kept.append_column("child_birthday", birthday)
    repairs = validation.list_failures(with_birthday, kept_names, RowCheck("child_birthday", UNBORN, is_unborn))
    repairs += validation.list_failures(with_birthday, kept_names, RowCheck("child_birthday", GROWN, is_grown))
    purchases = pa.table(
        {
            schema.IMPRESSION_ID: ids.filter(keep),
            schema.USER_ID: kept["user_id"],
            schema.PRODUCT_ID: kept["auction_id"],
            schema.EVENT_TIMESTAMP: timestamps,
            schema.CLICKED: pa.array(np.ones(len(timestamps), dtype=np.int8)),
            "child_age_months": pa.array(months.astype(np.float32), mask=np.isnan(months) | is_unborn | is_grown),
            "child_gender": users["child_gender"].take(owner),
            "amount": pa.array(amounts[is_valid].astype(np.int32)),
            "category": pc.binary_join_element_wise(kept["category_1"], kept["category_2"], schema.CATEGORY_SEPARATOR),
        }
    )
    return ImportedTables(
        {"impressions": purchases, "users": users},
        [*refused, *rejected_rows, *repairs],
        ["no titles and no images, so no products; every row is a purchase and therefore clicked"],
    )


def _read_users(file: Path) -> tuple[pa.Table, list[RejectedRow]]:
    """Return the users, each once and in the order of the file, and the refused rows and repaired values."""
    children = input_files.read_table(file, CHILD_COLUMNS)
    validation.require_columns(children, CHILD_COLUMNS, file)
    rows, refused = {}, []
    for row in children.to_pylist():
        user = row["user_id"]
        if user in rows:
            refused.append(RejectedRow(user, "user_id", DUPLICATE_USER, user))
            continue
        birthday = _parse_day(row["birthday"])
        if birthday is None:
            refused.append(RejectedRow(user, "birthday", INVALID_BIRTHDAY, row["birthday"]))
        if row["gender"] not in GENDERS:
            refused.append(RejectedRow(user, "gender", INVALID_GENDER, row["gender"]))
        rows[user] = {"user_id": user, "child_birthday": birthday, "child_gender": GENDERS.get(row["gender"])}
    return pa.Table.from_pylist(list(rows.values()), schema=folder.USERS), refused


def _compute_months(birthday: pa.ChunkedArray, timestamps: pa.Array) -> np.ndarray:
    """Return the age in months at each time, NaN without a birthday. A birthday starts at midnight in China."""
    born = pc.cast(birthday.cast(pa.int32()), pa.float64()).fill_null(np.nan).to_numpy()
    in_china = timestamps.cast(pa.int64()).to_numpy() + CHINA.utcoffset(None) // timedelta(microseconds=1)
    return age_months(born, in_china)


def _parse_day(text: str | None) -> date | None:
    """Return the date of a text such as `20130411`; None for any other text."""
    try:
        return datetime.strptime(text or "", "%Y%m%d").replace(tzinfo=UTC).date()
    except ValueError:
        return None
