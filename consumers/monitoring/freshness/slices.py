"""Slices of the active products: all, the new ones, each top-level category."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import pandas as pd
import pyarrow as pa

from feature_repo.config import Settings
from feature_repo.offline import delta
from feature_repo.schema import CATALOGUE_TABLE, CATEGORY_SEPARATOR, CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_ID

ALL, NEW = "all", "new products"
CATEGORY = "category "
"""Prefix of the names of category slices."""
COLUMNS = [PRODUCT_ID, EVENT_TIMESTAMP, CREATED_TIMESTAMP, "category"]


@dataclass(frozen=True)
class ActiveProducts:
    """The active products at one time, and the catalogue's events up to then."""

    now: datetime
    """The time, with a UTC offset."""
    products: pd.DataFrame
    """One row for each active product, indexed by id: `first` (first event), `category` (top level, of the newest
    version that has one).

    Both are missing for a product that is not in the catalogue; `category` also for one without a category.
    """
    events: pd.DataFrame
    """Columns `product` (id) and `event` (timestamp, UTC): every version of an active product up to now, each once."""

    @classmethod
    def read(cls, settings: Settings, now: datetime, active: pa.Array | None = None) -> "ActiveProducts":
        """Read the active products from the catalogue. Rows without an id or an event timestamp are skipped.

        Args:
            settings: the deployment.
            now: with a UTC offset. Later events are ignored.
            active: distinct ids of the products on sale, which need not be in the catalogue; None takes every product
                of the catalogue.

        Raises:
            NotFoundError: there is no catalogue, or it lacks a column.
        """
        rows = delta.read(settings.table(CATALOGUE_TABLE), COLUMNS).to_pandas()
        rows = rows.dropna(subset=[PRODUCT_ID, EVENT_TIMESTAMP])
        rows = rows[rows[EVENT_TIMESTAMP] <= pd.Timestamp(now)]
        if active is not None:
            rows = rows[rows[PRODUCT_ID].isin(set(active.to_pylist()))]
        rows = rows.sort_values([EVENT_TIMESTAMP, CREATED_TIMESTAMP], kind="stable")
        by_product = rows.groupby(PRODUCT_ID, sort=False)
        products = pd.DataFrame({"first": by_product[EVENT_TIMESTAMP].min(), "category": by_product["category"].last()})
        products["category"] = products["category"].str.split(CATEGORY_SEPARATOR, n=1).str[0]
        if active is not None:  # adds products that are on sale and not in the catalogue
            products = products.reindex(pd.Index(active.to_pylist(), name=PRODUCT_ID))
        events = rows[[PRODUCT_ID, EVENT_TIMESTAMP]].drop_duplicates()
        return cls(now, products, events.set_axis(["product", "event"], axis=1))

    def slices(self, new_for: timedelta, max_categories: int) -> dict[str, pd.Index]:
        """Return the product ids of each slice by name: "all", "new products", then "category NAME" for categories.

        A product can be in several slices. One without a category is in no category slice, and one that is not in the
        catalogue is not new. "all" and "new products" are always there, even if they are empty.

        Args:
            new_for: time after its first event for which a product is new, exclusive.
            max_categories: largest number of category slices; the largest categories come first.
        """
        slices = {ALL: self.products.index}
        slices[NEW] = self.products.index[self.products["first"] > pd.Timestamp(self.now - new_for)]
        for category in self.products["category"].value_counts().index[:max_categories]:
            slices[CATEGORY + category] = self.products.index[self.products["category"] == category]
        return slices
