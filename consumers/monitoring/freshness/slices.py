"""Which products are watched together: all, the new ones, each top category."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import pandas as pd
import pyarrow as pa

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.offline import delta
from feature_repo.schema import CATEGORY_SEPARATOR, CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_ID

ALL, NEW = "all", "new products"
CATEGORY = "category "
"""What the name of a category's slice begins with."""
COLUMNS = [PRODUCT_ID, EVENT_TIMESTAMP, CREATED_TIMESTAMP, "category"]


@dataclass(frozen=True)
class Shop:
    """The active products at one moment, and the catalogue's events up to it."""

    now: datetime
    products: pd.DataFrame
    """Of each active product, the index: `first` (its first event), `category` (top level; None if unknown)."""
    events: pd.DataFrame
    """`product` and `event`: every version of an active product up to now, each once."""

    @staticmethod
    def at(settings: Settings, now: datetime, active: pa.Array | None = None) -> "Shop":
        """The shop as the catalogue knows it.

        Args:
            now: with a time zone; what the catalogue says of later counts for nothing.
            active: ids of what is on sale; None: what the catalogue has.

        Raises:
            VitrineError: there is no catalogue.
        """
        rows = delta.read(settings.table(schema.CATALOGUE_TABLE), COLUMNS).to_pandas()
        rows = rows.dropna(subset=[PRODUCT_ID, EVENT_TIMESTAMP])
        rows = rows[rows[EVENT_TIMESTAMP] <= pd.Timestamp(now)]
        if active is not None:
            rows = rows[rows[PRODUCT_ID].isin(set(active.to_pylist()))]
        rows = rows.sort_values([EVENT_TIMESTAMP, CREATED_TIMESTAMP], kind="stable")
        by_product = rows.groupby(PRODUCT_ID, sort=False)
        products = pd.DataFrame({"first": by_product[EVENT_TIMESTAMP].min(), "category": by_product["category"].last()})
        products["category"] = products["category"].str.split(CATEGORY_SEPARATOR, n=1).str[0]
        if active is not None:  # on sale, and the catalogue has never heard of it
            products = products.reindex(pd.Index(active.to_pylist(), name=PRODUCT_ID))
        events = rows[[PRODUCT_ID, EVENT_TIMESTAMP]].drop_duplicates()
        return Shop(now, products, events.set_axis(["product", "event"], axis=1))

    def slices(self, new_for: timedelta, at_most: int) -> dict[str, pd.Index]:
        """Names and ids of the slices.

        Args:
            new_for: how long a product is new, from its first event on.
            at_most: so many categories, the largest first.
        """
        found = {ALL: self.products.index}
        found[NEW] = self.products.index[self.products["first"] > pd.Timestamp(self.now - new_for)]
        for category in self.products["category"].value_counts().index[:at_most]:
            found[CATEGORY + category] = self.products.index[self.products["category"] == category]
        return found
