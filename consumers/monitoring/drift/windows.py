"""The products of the recent window and of the time before it, and their rows in each view."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo.config import Settings
from feature_repo.offline import delta, production
from feature_repo.schema import CATALOGUE_TABLE, CATEGORY_SEPARATOR, CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_ID

KEY = [PRODUCT_ID, EVENT_TIMESTAMP]
NO_CATEGORY = ""


@dataclass(frozen=True)
class ProductWindows:
    """n products, each with its newest version in the recent window, or else in the time before it."""

    products: pd.DataFrame
    """One row for each product, the recent ones first. Columns:

    `product_id`.
    `event_timestamp`: that of the version, UTC.
    `category`: top level; "" if unknown.
    `new`: whether it is the product's first version.
    """
    now: NDArray[np.bool_]
    """[n], whether the product is in the recent window."""
    counts: list[int]
    """Number of products with a version in the recent window, then in each earlier window of the same length.

    Counts all products, not only the sample. Windows that begin before the catalogue does are left out.
    """

    @property
    def stratum(self) -> NDArray[np.int64]:
        """[n], one code from 0 for each combination of category and new. Labels are permuted only within one code."""
        return self.products.groupby(["category", "new"], sort=True).ngroup().to_numpy(np.int64)

    @property
    def newness(self) -> NDArray[np.int64]:
        """[n], 1 for new products, else 0. Labels for statistics of the categories are permuted only within one."""
        return self.products["new"].to_numpy(np.int64)

    @classmethod
    def read(
        cls, settings: Settings, now: datetime, *, window: timedelta, before: timedelta, sample: int, seed: int
    ) -> "ProductWindows":
        """Read the products with catalogue versions in (now - window, now] and in the time `before` that.

        A product with versions in both belongs to the recent window. Of versions with the same event timestamp, the
        last created counts. Rows without an id or an event timestamp are skipped. There may be no product at all.

        Args:
            settings: the deployment.
            now: end of the recent window, inclusive, with a UTC offset.
            window: length of the recent window.
            before: length of the time before it.
            sample: largest number of products on each side, selected by hash of the id; all of them if there are fewer.
            seed: seed of the sample; another seed selects other products.

        Raises:
            NotFoundError: there is no catalogue, or it lacks a column.
        """
        rows = delta.read(settings.table(CATALOGUE_TABLE), [*KEY, CREATED_TIMESTAMP, "category"]).to_pandas()
        rows = rows.dropna(subset=KEY).sort_values([EVENT_TIMESTAMP, CREATED_TIMESTAMP], kind="stable")
        first = rows.groupby(PRODUCT_ID)[EVENT_TIMESTAMP].transform("min")
        rows["new"] = rows[EVENT_TIMESTAMP] == first
        rows["category"] = rows["category"].str.split(CATEGORY_SEPARATOR, n=1).str[0].fillna(NO_CATEGORY)
        end, start = pd.Timestamp(now), pd.Timestamp(now - window)
        in_windows = rows[(rows[EVENT_TIMESTAMP] <= end) & (rows[EVENT_TIMESTAMP] > start - before)]
        newest = in_windows.drop_duplicates(PRODUCT_ID, keep="last")
        is_recent = newest[EVENT_TIMESTAMP] > start
        products = pd.concat([_sample(newest[is_recent], sample, seed), _sample(newest[~is_recent], sample, seed)])
        products = products.drop(columns=CREATED_TIMESTAMP).reset_index(drop=True)
        windows_ago = (end - in_windows[EVENT_TIMESTAMP]) // window
        covered = (min(window + before, end - rows[EVENT_TIMESTAMP].min()) // window) if len(rows) else 0
        counts = in_windows.groupby(windows_ago)[PRODUCT_ID].nunique().reindex(range(max(covered, 1)), fill_value=0)
        return cls(products, (products[EVENT_TIMESTAMP] > start).to_numpy(), counts.tolist())

    def read_view(self, settings: Settings, view: str, columns: list[str]) -> "ProductRows | None":
        """Return all rows of the products in a view, whatever their time.

        Args:
            settings: the deployment.
            view: name of the view.
            columns: the columns to read, besides the product id and both timestamps.

        Returns:
            None if there is no table or it lacks one of the columns.
        """
        path = settings.table(view)
        if not delta.exists(path):
            return None
        schema = delta.open_dataset(path).schema
        if not {*KEY, CREATED_TIMESTAMP, *columns} <= set(schema.names):
            return None
        ids = pa.array(self.products[PRODUCT_ID], schema.field(PRODUCT_ID).type)
        where, in_production = pc.field(PRODUCT_ID).isin(ids), production.rows_filter(path)
        where = where if in_production is None else where & in_production
        rows = delta.read(path, [*KEY, CREATED_TIMESTAMP, *columns], where=where)
        index = rows.select([*KEY, CREATED_TIMESTAMP]).to_pandas()
        numbers = pd.Series(np.arange(len(self.products)), index=self.products[PRODUCT_ID])
        index["n"] = index[PRODUCT_ID].map(numbers)
        index["version"] = index["n"].map(self.products[EVENT_TIMESTAMP])
        return ProductRows(rows, index.sort_values([EVENT_TIMESTAMP, CREATED_TIMESTAMP], kind="stable"))


@dataclass(frozen=True)
class ProductRows:
    """The rows of n products in one view. A product may have several, or none."""

    rows: pa.Table
    """The rows, in no particular order."""
    index: pd.DataFrame
    """One entry for each row, ordered by event and created timestamp and labelled with the row's position in `rows`.

    Columns: the product id, both timestamps, `n` (the product's position in `ProductWindows.products`, from 0) and
    `version` (the event timestamp of the product's version there).
    """

    def find_newest(self, n: int) -> NDArray[np.int64]:
        """Return [n], the position in `rows` of each product's row; -1 if there is none.

        It is the row with the event timestamp of the product's version, the last created of several. A product whose
        rows all have other event timestamps has -1. Only rows in `index` count.

        Args:
            n: number of products.
        """
        return self._last_of_each(n, self.index[self.index[EVENT_TIMESTAMP] == self.index["version"]])

    def find_previous(self, newest: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return [n], the position in `rows` of the row before each product's newest one; -1 if there is none.

        Rows are ordered by event timestamp, then created timestamp. Only rows in `index` count.

        Args:
            newest: [n], the positions that `find_newest` returned. A product with -1 has no row before it.
        """
        rank = pd.Series(np.arange(len(self.index)), index=self.index.index)
        limit = self.index["n"].map(pd.Series(np.where(newest >= 0, rank.reindex(newest).to_numpy(), -1)))
        return self._last_of_each(len(newest), self.index[rank.to_numpy() < limit.to_numpy()])

    def filter(self, is_kept: NDArray[np.bool_]) -> "ProductRows":
        """Return the same with an index of some rows only. The table `rows` is the same, so positions in it stay.

        Args:
            is_kept: [rows], whether to keep the row at each position of `rows`.
        """
        return ProductRows(self.rows, self.index[is_kept[self.index.index]])

    def _last_of_each(self, n: int, index: pd.DataFrame) -> NDArray[np.int64]:
        last = np.full(n, -1, np.int64)
        last[index["n"].to_numpy(np.int64)] = index.index.to_numpy(np.int64)
        return last


def _sample(products: pd.DataFrame, size: int, seed: int) -> pd.DataFrame:
    """Return at most `size` of the products, those with the smallest hashes, in their order."""
    if len(products) <= size:
        return products
    hashes = pd.util.hash_array(products[PRODUCT_ID].to_numpy(object), hash_key=f"{seed % 10**16:016d}")
    return products.iloc[np.sort(np.argsort(hashes, kind="stable")[:size])]
