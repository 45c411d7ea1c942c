"""The products of now and of before, side by side: one row a product, what each view says of it, and its stratum."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo.config import Settings
from feature_repo.offline import delta
from feature_repo.schema import CATALOGUE_TABLE, CATEGORY_SEPARATOR, CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_ID

KEY = [PRODUCT_ID, EVENT_TIMESTAMP]
NO_CATEGORY = ""


@dataclass(frozen=True)
class Weeks:
    """n products: each with its newest version in the window, or else in the time before the window."""

    products: pd.DataFrame
    """Columns `product_id`, `event_timestamp`, `category` (top level, "" if unknown), `new` (its first version)."""
    now: NDArray[np.bool_]
    """[n], whether the product is of the window."""
    counts: list[int]
    """Products with a version in the window, and in each earlier window as long; those that the catalogue is too young
    for are left out. Of all products, not of the sample."""

    @property
    def stratum(self) -> NDArray[np.int64]:
        """[n], codes of category x new: labels are permuted among products of one stratum alone."""
        return self.products.groupby(["category", "new"], sort=True).ngroup().to_numpy(np.int64)

    @property
    def newness(self) -> NDArray[np.int64]:
        """[n], codes of new: for what is asked of the categories themselves."""
        return self.products["new"].to_numpy(np.int64)

    @staticmethod
    def read(
        settings: Settings, now: datetime, *, window: timedelta, before: timedelta, sample: int, seed: int
    ) -> "Weeks":
        """The products that the catalogue has versions of in (now - window, now], and in the time `before` that.

        A product of both counts for the window alone. Of each side at most `sample` products, by hash.

        Raises:
            VitrineError: there is no catalogue.
        """
        rows = delta.read(settings.table(CATALOGUE_TABLE), [*KEY, CREATED_TIMESTAMP, "category"]).to_pandas()
        rows = rows.dropna(subset=KEY).sort_values([EVENT_TIMESTAMP, CREATED_TIMESTAMP], kind="stable")
        first = rows.groupby(PRODUCT_ID)[EVENT_TIMESTAMP].transform("min")
        rows["new"] = rows[EVENT_TIMESTAMP] == first
        rows["category"] = rows["category"].str.split(CATEGORY_SEPARATOR, n=1).str[0].fillna(NO_CATEGORY)
        start = pd.Timestamp(now - window)
        seen = rows[(rows[EVENT_TIMESTAMP] <= pd.Timestamp(now)) & (rows[EVENT_TIMESTAMP] > start - before)]
        newest = seen.drop_duplicates(PRODUCT_ID, keep="last")
        is_now = newest[EVENT_TIMESTAMP] > start
        kept = pd.concat([_sampled(newest[is_now], sample, seed), _sampled(newest[~is_now], sample, seed)])
        kept = kept.drop(columns=CREATED_TIMESTAMP).reset_index(drop=True)
        ago = (pd.Timestamp(now) - seen[EVENT_TIMESTAMP]) // window
        known = (min(window + before, pd.Timestamp(now) - rows[EVENT_TIMESTAMP].min()) // window) if len(rows) else 0
        counts = seen.groupby(ago)[PRODUCT_ID].nunique().reindex(range(max(known, 1)), fill_value=0)
        return Weeks(kept, (kept[EVENT_TIMESTAMP] > start).to_numpy(), counts.tolist())

    def rows_of(self, settings: Settings, view: str, columns: list[str]) -> "ProductRows | None":
        """What a view says of the products' versions; None if there is no table, or it lacks a column."""
        path = settings.table(view)
        if not delta.exists(path):
            return None
        schema = delta.open_dataset(path).schema
        if not {*KEY, CREATED_TIMESTAMP, *columns} <= set(schema.names):
            return None
        ids = pa.array(self.products[PRODUCT_ID], schema.field(PRODUCT_ID).type)
        rows = delta.read(path, [*KEY, CREATED_TIMESTAMP, *columns], where=pc.field(PRODUCT_ID).isin(ids))
        return ProductRows(rows, self._places(rows))

    def _places(self, rows: pa.Table) -> pd.DataFrame:
        """Of each row of a view: its row number, its product's number, its times; in the order of creation."""
        found = rows.select([*KEY, CREATED_TIMESTAMP]).to_pandas()
        number = pd.Series(np.arange(len(self.products)), index=self.products[PRODUCT_ID])
        found["n"] = found[PRODUCT_ID].map(number)
        found["wanted"] = found["n"].map(self.products[EVENT_TIMESTAMP])
        return found.sort_values([EVENT_TIMESTAMP, CREATED_TIMESTAMP], kind="stable")


@dataclass(frozen=True)
class ProductRows:
    """The rows of n products in one view."""

    rows: pa.Table
    places: pd.DataFrame
    """Its index are row numbers of `rows`, by event and creation; `n` is the product's number, `wanted` the event
    timestamp of its version."""

    def newest(self, n: int) -> NDArray[np.int64]:
        """[n], the row of each product's version, the last created of several; -1 if there is none."""
        return self._of(n, self.places[self.places[EVENT_TIMESTAMP] == self.places["wanted"]])

    def previous(self, newest: NDArray[np.int64]) -> NDArray[np.int64]:
        """[n], the last row of each product before its `newest` one; -1 if there is none."""
        rank = pd.Series(np.arange(len(self.places)), index=self.places.index)
        limit = self.places["n"].map(pd.Series(np.where(newest >= 0, rank.reindex(newest).to_numpy(), -1)))
        return self._of(len(newest), self.places[rank.to_numpy() < limit.to_numpy()])

    def only(self, allowed: NDArray[np.bool_]) -> "ProductRows":
        """The same with the rows `allowed` [rows] alone."""
        return ProductRows(self.rows, self.places[allowed[self.places.index]])

    def _of(self, n: int, places: pd.DataFrame) -> NDArray[np.int64]:
        found = np.full(n, -1, np.int64)
        found[places["n"].to_numpy(np.int64)] = places.index.to_numpy(np.int64)
        return found


def _sampled(products: pd.DataFrame, size: int, seed: int) -> pd.DataFrame:
    """At most `size` of the products, those with the smallest hashes, in the order of time."""
    if len(products) <= size:
        return products
    hashes = pd.util.hash_array(products[PRODUCT_ID].to_numpy(object), hash_key=f"{seed % 10**16:016d}")
    return products.iloc[np.sort(np.argsort(hashes, kind="stable")[:size])]
