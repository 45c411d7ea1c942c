"""mum_baby: purchases of mother-and-baby goods, and the birthdays of some of the children.

A purchase is an impression that was clicked, so there is no lift to measure; what the set is good for is the child's
age at the time of purchase. It has neither titles nor pictures, so no products. A day of China is dated to its first
instant, which never shows a purchase what happened later that day.

The set's published list of columns says: gender 0 is a girl, 1 a boy, 2 unknown.
"""

from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import schema
from feature_repo.offline import input_files, validation
from feature_repo.offline.quarantine import RejectedRow
from feature_repo.offline.validation import Check
from producers.datasets.imports import folder
from producers.datasets.imports.folder import ImportedTables
from producers.datasets.shop.people import age_months

CHILDREN, TRADES = "tianchi_mum_baby.csv", "tianchi_mum_baby_trade_history.csv"
CHILD_COLUMNS = ("user_id", "birthday", "gender")
TRADE_COLUMNS = ("user_id", "auction_id", "category_2", "category_1", "buy_mount", "day")
GENDERS = {"0": "girl", "1": "boy", "2": None}
CHINA = timezone(timedelta(hours=8))
MANY = 1_000
"""Pieces in one purchase from which on no household is buying."""

BAD_BIRTHDAY = "birthday is no date: set to null, row kept"
BAD_GENDER = "gender is none of 0, 1, 2: set to null, row kept"
TWICE = "user came before"
BAD_DAY = "day is no date"
BAD_AMOUNT = "amount is no whole number from 1 on"
TOO_MANY = f"amount is {MANY:,} or more: no household's purchase"
UNBORN = "child is not born yet at the purchase: age set to null, row kept"
GROWN = "child is 14 years or older at the purchase: age set to null, row kept"


def read(source: Path, now: datetime) -> ImportedTables:
    """Read the set; `amount` and `category` are context columns of the purchases."""
    del now  # a time in the future is for the reader of the impressions to refuse
    users, refused = _users(source / CHILDREN)
    file = source / TRADES
    trades = input_files.read_table(file, TRADE_COLUMNS)
    validation.require_columns(trades, TRADE_COLUMNS, file)
    ids = pc.binary_join_element_wise(trades["user_id"], trades["auction_id"], trades["day"], "-")
    names = validation.name_rows(ids)
    amounts = validation.parse_numbers(trades, "buy_mount", file).fill_null(np.nan).to_numpy()
    days = [_day(text) for text in trades["day"].to_pylist()]
    whole = np.isfinite(amounts) & (amounts >= 1) & (np.floor(amounts) == amounts)
    passed, left_out = validation.apply_checks(
        trades,
        names,
        [
            Check("day", BAD_DAY, np.array([day is None for day in days])),
            Check("buy_mount", BAD_AMOUNT, ~whole),
            Check("buy_mount", TOO_MANY, amounts >= MANY),
        ],
    )
    keep = pa.array(passed)
    kept, kept_names = trades.filter(keep), names.filter(keep)
    moments = pa.array([datetime(day.year, day.month, day.day, tzinfo=CHINA) for day in days if day]).cast(
        schema.TIMESTAMP
    )
    moments = moments.filter(keep.filter(pa.array([day is not None for day in days])))
    owner = pc.index_in(kept["user_id"], value_set=users[schema.USER_ID].combine_chunks())
    birthday = users["child_birthday"].take(owner)
    months = _months(birthday, moments)
    with np.errstate(invalid="ignore"):
        unborn, grown = months < 0, months >= schema.CHILD_AGE_MONTHS[-1]
    days_bought = kept.append_column("child_birthday", birthday)
    notes = validation.list_failures(days_bought, kept_names, Check("child_birthday", UNBORN, unborn))
    notes += validation.list_failures(days_bought, kept_names, Check("child_birthday", GROWN, grown))
    purchases = pa.table(
        {
            schema.IMPRESSION_ID: ids.filter(keep),
            schema.USER_ID: kept["user_id"],
            schema.PRODUCT_ID: kept["auction_id"],
            schema.EVENT_TIMESTAMP: moments,
            schema.CLICKED: pa.array(np.ones(len(moments), dtype=np.int8)),
            "child_age_months": pa.array(months.astype(np.float32), mask=np.isnan(months) | unborn | grown),
            "child_gender": users["child_gender"].take(owner),
            "amount": pa.array(amounts[passed].astype(np.int32)),
            "category": pc.binary_join_element_wise(kept["category_1"], kept["category_2"], schema.CATEGORY_SEPARATOR),
        }
    )
    return ImportedTables(
        {"impressions": purchases, "users": users},
        [*refused, *left_out, *notes],
        ["no titles, no pictures: no products; every row is a purchase, so all are clicked"],
    )


def _users(file: Path) -> tuple[pa.Table, list[RejectedRow]]:
    children = input_files.read_table(file, CHILD_COLUMNS)
    validation.require_columns(children, CHILD_COLUMNS, file)
    rows, refused = {}, []
    for row in children.to_pylist():
        user = row["user_id"]
        if user in rows:
            refused.append(RejectedRow(user, "user_id", TWICE, user))
            continue
        birthday = _day(row["birthday"])
        if birthday is None:
            refused.append(RejectedRow(user, "birthday", BAD_BIRTHDAY, row["birthday"]))
        if row["gender"] not in GENDERS:
            refused.append(RejectedRow(user, "gender", BAD_GENDER, row["gender"]))
        rows[user] = {"user_id": user, "child_birthday": birthday, "child_gender": GENDERS.get(row["gender"])}
    return pa.Table.from_pylist(list(rows.values()), schema=folder.USERS), refused


def _months(birthday: pa.ChunkedArray, moments: pa.Array) -> np.ndarray:
    """Age in months at each moment, NaN where the birthday is unknown; a child is born with its day in China."""
    born = pc.cast(birthday.cast(pa.int32()), pa.float64()).fill_null(np.nan).to_numpy()
    in_china = moments.cast(pa.int64()).to_numpy() + CHINA.utcoffset(None) // timedelta(microseconds=1)
    return age_months(born, in_china)


def _day(text: str | None) -> date | None:
    """The date that `20130411` writes; None for anything else."""
    try:
        return datetime.strptime(text or "", "%Y%m%d").replace(tzinfo=UTC).date()
    except ValueError:
        return None
