"""The log of impressions as codes and times: who was shown what, when, and what was clicked."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.config import Settings
from feature_repo.offline import key_encoding, quarantine
from feature_repo.offline.input_files import read_impressions
from feature_repo.schema import CLICKED, EVENT_TIMESTAMP, PRODUCT_ID, USER_ID

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Log:
    """n rows, by time, then product: the order of the file tells nothing, and a longer file none of it apart."""

    users: pa.Array
    """Ids of the codes in `user`."""
    products: pa.Array
    """Ids of the codes in `product`."""
    user: NDArray[np.int32]
    product: NDArray[np.int32]
    time: Int64
    """Microseconds since 1970 UTC."""
    clicked: NDArray[np.bool_]
    refused: Mapping[str, int]
    """Rows that are not here, by reason; they are in the quarantine."""

    def __len__(self) -> int:
        return len(self.time)

    def of(self, rows: NDArray[np.bool_]) -> "Log":
        """Some of the rows, in their order."""
        return Log(
            self.users,
            self.products,
            self.user[rows],
            self.product[rows],
            self.time[rows],
            self.clicked[rows],
            self.refused,
        )


def read(settings: Settings, file: Path, *, step: str, now: datetime, clicks_only: bool) -> Log:
    """Read and check a log; what is wrong with a row goes to the quarantine with its reason.

    Args:
        settings: whose quarantine.
        file: of schema.IMPRESSIONS and any context.
        step: the command that asks.
        now: later impressions are refused.
        clicks_only: leave out what was not clicked.

    Raises:
        VitrineError: as `read_impressions`.
    """
    came = read_impressions(file, now=now)
    quarantine.add(settings, step, came.refused, now)
    table = came.table.select([USER_ID, PRODUCT_ID, EVENT_TIMESTAMP, CLICKED])
    refused = quarantine.count_by_reason(came.refused)
    del came
    clicked = table[CLICKED].to_numpy() == 1
    if clicks_only:
        table, clicked = table.filter(pa.array(clicked)), clicked[clicked]
    time = table[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy()
    users, user = key_encoding.encode([table[USER_ID]], len(time))
    products, product = key_encoding.encode([table[PRODUCT_ID]], len(time))
    # By the products' names and not by their codes: those depend on what else is in the file.
    names = products.values[0]
    rank = np.empty(len(names), np.int64)
    rank[np.argsort(names.to_numpy(zero_copy_only=False), kind="stable")] = np.arange(len(names))
    order = np.lexsort((rank[product], time))
    return Log(
        users=users.values[0],
        products=names,
        user=user.astype(np.int32)[order],
        product=product.astype(np.int32)[order],
        time=time[order],
        clicked=clicked[order],
        refused=refused,
    )
