"""Reads the impression log: which product each user was shown when, and whether they clicked it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo.config import Settings
from feature_repo.offline import key_encoding, quarantine
from feature_repo.offline.impressions import load_impressions
from feature_repo.schema import CLICKED, EVENT_TIMESTAMP, PRODUCT_ID, USER_ID
from feature_repo.table_format import DEFAULT_FORMAT, TableFormat

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class ImpressionLog:
    """n impressions, sorted by time, then by product id. Rows that are equal in both are in the order of the file.

    Users and products are coded: a code is an index into `user_ids` or `product_ids`. A longer file may give other
    codes, but it does not change the order of these rows.
    """

    user_ids: pa.Array
    """The user ids, each once and without null: the id of code c is `user_ids[c]`."""
    product_ids: pa.Array
    """The product ids, each once: the id of code c is `product_ids[c]`."""
    user: NDArray[np.int32]
    """[n], the code of the user of each impression; -1 where it has none."""
    product: NDArray[np.int32]
    """[n], the code of the product of each impression."""
    timestamp_us: Int64
    """[n], microseconds since 1970 UTC."""
    is_clicked: NDArray[np.bool_]
    """[n], whether the impression was clicked."""
    covered_us: tuple[int, int]
    """Times of the first and the last usable impression of the file, clicked or not, microseconds since 1970 UTC."""
    refused: Mapping[str, int]
    """The number of refused rows by reason, the most frequent first; those without a click count too. The rows are in
    the quarantine."""
    remarks: tuple[str, ...]
    """What the user should know of the rows that were kept, one line each."""

    def __len__(self) -> int:
        """Return the number of impressions."""
        return len(self.timestamp_us)


def read_log(
    settings: Settings,
    file: Path,
    *,
    step: str,
    now: datetime,
    clicks_only: bool,
    table_format: TableFormat = DEFAULT_FORMAT,
    max_lost_share: float = 1.0,
) -> ImpressionLog:
    """Read and check a log.

    Refused rows go to the quarantine with the reason. Of rows with the same impression id and product the first usable
    one is used, and the others are refused.

    Args:
        settings: the deployment whose quarantine is used.
        file: Parquet or CSV with the columns of schema.IMPRESSIONS, in any order of rows; further columns are ignored.
        step: the name of the calling command, which the quarantine stores.
        now: later impressions are refused; also the created timestamp in the quarantine. With a time zone.
        clicks_only: leave out impressions without a click or without a user, and users and products without a click.
            The log may then be empty.
        table_format: what the user says about the file.
        max_lost_share: the largest share of the rows that may be refused because of one column.

    Raises:
        NotFoundError: the file does not exist.
        InvalidInputError: the file cannot be read, lacks a column, is empty, has a column of a wrong type, none of its
            rows is usable, or a larger share than `max_lost_share` was refused.
    """
    impressions = load_impressions(
        settings, file, step=step, now=now, table_format=table_format, max_lost_share=max_lost_share
    )
    table = impressions.table.select([USER_ID, PRODUCT_ID, EVENT_TIMESTAMP, CLICKED])
    refused, remarks = quarantine.count_by_reason(impressions.refused), impressions.remarks
    del impressions  # frees the columns that are not used
    covered_us = pc.min_max(table[EVENT_TIMESTAMP].cast(pa.int64())).as_py()
    if clicks_only:
        table = table.filter(pc.and_(pc.equal(table[CLICKED], 1), pc.is_valid(table[USER_ID])))
    is_clicked = table[CLICKED].to_numpy() == 1
    timestamp_us = table[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy()
    users, user = key_encoding.encode([table[USER_ID]], len(timestamp_us))
    products, product = key_encoding.encode([table[PRODUCT_ID]], len(timestamp_us))
    # Sorted by product id and not by code, because codes depend on what else is in the file.
    product_ids = products.values[0]
    rank = np.empty(len(product_ids), np.int64)
    rank[np.argsort(product_ids.to_numpy(zero_copy_only=False), kind="stable")] = np.arange(len(product_ids))
    order = np.lexsort((rank[product], timestamp_us))
    return ImpressionLog(
        user_ids=users.values[0],
        product_ids=product_ids,
        user=user.astype(np.int32)[order],
        product=product.astype(np.int32)[order],
        timestamp_us=timestamp_us[order],
        is_clicked=is_clicked[order],
        covered_us=(covered_us["min"], covered_us["max"]),
        refused=refused,
        remarks=remarks,
    )
