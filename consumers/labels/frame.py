"""The pairs that can be drawn for judging: each product as an anchor, with the products that were recalled for it."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import NotFoundError
from feature_repo.offline import delta, versions
from feature_repo.schema import (
    CATEGORY_SEPARATOR,
    CREATED_TIMESTAMP,
    EVENT_TIMESTAMP,
    PRODUCT_ID,
    PRODUCT_ID_L,
    PRODUCT_ID_R,
)

NO_CATEGORY = "(none)"


@dataclass(frozen=True)
class SamplingFrame:
    """m directed pairs of n products: an anchor and a product that was recalled for it. Each pair is in it twice."""

    product_ids: list[str]
    """[n]"""
    category: list[str]
    """[n], first level of the category; NO_CATEGORY if the shop states none."""
    title: list[str]
    image: list[str]
    anchor: NDArray[np.int64]
    """[m], rows of the products, ascending."""
    recalled: NDArray[np.int64]
    rank: NDArray[np.int64]
    """[m], from 1, by probability among the products recalled for the anchor."""
    probability: NDArray[np.float64]
    """[m], that both are the same product."""
    in_one_group: NDArray[np.bool_]
    """[m]"""


def read_frame(settings: Settings, at: datetime) -> SamplingFrame:
    """Return the pairs of the newest verifier, of products that are on sale.

    Args:
        settings: the deployment.
        at: the time, with a time zone.

    Raises:
        NotFoundError: there are no scored pairs.
    """
    path = settings.table(schema.PAIR_TABLE)
    if not delta.exists(path):
        raise NotFoundError("there are no scored pairs; run `produce groups` first")
    pairs = versions.read_newest(
        delta.open_dataset(path),
        [PRODUCT_ID_L, PRODUCT_ID_R, "probability", "verifier_version", CREATED_TIMESTAMP],
        None,
        keys=[PRODUCT_ID_L, PRODUCT_ID_R],
        event_timestamp=CREATED_TIMESTAMP,
        created_timestamp=CREATED_TIMESTAMP,
    )
    if not len(pairs):
        raise NotFoundError("`produce groups` found no two products that could be the same; there is nothing to judge")
    newest = pairs.sort_by([(CREATED_TIMESTAMP, "descending")])["verifier_version"][0]
    groups = _read_newest(settings, schema.GROUP_TABLE, ["group_id"])
    catalogue = _read_newest(settings, schema.CATALOGUE_TABLE, ["category", "title", "image"])
    active = versions.read_active_products(
        settings.table(schema.CATALOGUE_TABLE), settings.table(schema.ACTIVE_TABLE), at
    )
    groups = groups.filter(pc.is_in(groups[PRODUCT_ID], value_set=active)).sort_by(PRODUCT_ID)
    ids = groups[PRODUCT_ID].combine_chunks()
    catalogue = catalogue.take(pc.index_in(ids, value_set=catalogue[PRODUCT_ID].combine_chunks()))
    pairs = pairs.filter((pc.field("verifier_version") == newest) & (pc.field("probability") > 0))
    left, right = (
        pc.index_in(pairs[name], value_set=ids).fill_null(-1).to_numpy().astype(np.int64)
        for name in (PRODUCT_ID_L, PRODUCT_ID_R)
    )
    is_known = (left >= 0) & (right >= 0)
    left, right = left[is_known], right[is_known]
    probability = np.tile(pairs["probability"].to_numpy()[is_known].astype(np.float64), 2)
    anchor, recalled = np.concatenate([left, right]), np.concatenate([right, left])
    order = np.lexsort((recalled, -probability, anchor))
    anchor, recalled, probability = anchor[order], recalled[order], probability[order]
    rank = np.arange(len(anchor)) - np.searchsorted(anchor, anchor) + 1
    group = groups["group_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    paths = catalogue["category"].to_pylist()
    return SamplingFrame(
        ids.to_pylist(),
        [NO_CATEGORY if not path else path.split(CATEGORY_SEPARATOR)[0] for path in paths],
        [title or "" for title in catalogue["title"].to_pylist()],
        [image or "" for image in catalogue["image"].to_pylist()],
        anchor,
        recalled,
        rank,
        probability,
        group[anchor] == group[recalled],
    )


def _read_newest(settings: Settings, table: str, columns: list[str]) -> pa.Table:
    return versions.read_newest(
        delta.open_dataset(settings.table(table)),
        [PRODUCT_ID, *columns],
        None,
        keys=[PRODUCT_ID],
        event_timestamp=EVENT_TIMESTAMP,
        created_timestamp=CREATED_TIMESTAMP,
    )
