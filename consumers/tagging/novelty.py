"""How new the labelled products are: whether the encoder was trained on them, and in which week they arrived.

Vectors of products that the encoder was not trained on may be worse, and most products that a shop adds are such. A
figure over products that the encoder has seen flatters.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from consumers.tagging import metrics
from consumers.tagging.estimates import Estimate, make_estimate
from consumers.tagging.metrics import Ints
from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.offline import delta, training_products
from feature_repo.schema import EVENT_TIMESTAMP, PRODUCT_ID

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class LabelledProducts:
    """n labelled products, and how new they are."""

    encoder_version: str | None
    """The encoder of the vectors that the tags are predicted from; None if no tag of this tagger is stored."""
    product_ids: pa.Array
    """[n], each product once."""
    is_seen: Mask | None
    """[n], whether the encoder was trained on a product of the same group; None if that is not known."""
    week: NDArray[np.datetime64]
    """datetime64[D] [n], the Monday of the week in which the product was first listed (UTC); NaT if unknown."""

    def find(self, product_ids: pa.Array | pa.ChunkedArray) -> Ints:
        """Return the position of each product, which must be one of these."""
        positions: Ints = pc.index_in(product_ids, value_set=self.product_ids).to_numpy(zero_copy_only=False)
        return positions.astype(np.int64)


@dataclass(frozen=True)
class PartShare:
    """The share of right answers among some of the products."""

    products: int
    """Number of these products."""
    share: Estimate
    """Share of them with a right answer; undefined if there are none."""


@dataclass(frozen=True)
class SeenComparison:
    """The share of right answers for products that the encoder has not seen, beside that for products it has."""

    unseen: PartShare
    """Products whose whole group is new to the encoder: it was trained on none of its products."""
    seen: PartShare
    """All others."""
    difference: Estimate
    """Share of `seen` minus that of `unseen`: how much figures on seen products flatter. Undefined if a part is
    empty."""


@dataclass(frozen=True)
class WeekShare:
    """The share of right answers among the products that arrived in one week."""

    week: str
    """The Monday of the week (UTC), such as 2026-01-05."""
    products: int
    """Number of products that were first listed in it."""
    unseen: int | None
    """Number of these that the encoder has not seen; None if that is not known."""
    share: Estimate
    """Share of the products with a right answer."""


def read_labelled_products(settings: Settings, predictions: pa.Table) -> LabelledProducts:
    """Find out how new the products of some tag predictions are.

    Args:
        settings: the deployment.
        predictions: rows of schema.TAG_PREDICTIONS of one tagger version, at least one.
    """
    by_product = predictions.group_by(PRODUCT_ID).aggregate([("group", "min")])
    ids, groups = by_product[PRODUCT_ID].combine_chunks(), by_product["group_min"]
    encoder = _find_encoder(settings, predictions["tagger_version"][0].as_py())
    trained = training_products.read(settings, encoder)
    is_seen = None
    if trained is not None:
        seen_groups = groups.filter(pc.is_in(ids, value_set=trained.combine_chunks()))
        is_seen = pc.is_in(groups, value_set=seen_groups.combine_chunks()).to_numpy()
    return LabelledProducts(encoder, ids, is_seen, _find_weeks(settings, ids))


def compare_seen(
    is_right: Mask, group: Ints, weights: Ints, products: LabelledProducts, row: Ints
) -> SeenComparison | None:
    """Compare products that the encoder has seen with those that it has not; None if that is not known.

    Args:
        is_right: whether the answer for each of m products is right [m].
        group: the group of each, a column of `weights` [m].
        weights: how often each group was drawn in each replicate, int [1 + replicates, groups].
        products: the labelled products.
        row: the position of each of the m products among them [m].
    """
    if products.is_seen is None:
        return None
    is_seen = products.is_seen[row]
    shares = [metrics.compute_share(is_right[part], group[part], weights) for part in (~is_seen, is_seen)]
    unseen, seen = (
        PartShare(int(part.sum()), make_estimate(share))
        for part, share in zip((~is_seen, is_seen), shares, strict=True)
    )
    return SeenComparison(unseen, seen, make_estimate(shares[1] - shares[0]))


def share_by_week(is_right: Mask, group: Ints, weights: Ints, products: LabelledProducts, row: Ints) -> list[WeekShare]:
    """Return the share of right answers by week of arrival, in the order of time; weeks without products are left out.

    The arguments are those of `compare_seen`.
    """
    week = products.week[row]
    result = []
    for monday in np.unique(week[~np.isnat(week)]):
        part = week == monday
        unseen = None if products.is_seen is None else int((~products.is_seen[row[part]]).sum())
        share = make_estimate(metrics.compute_share(is_right[part], group[part], weights))
        result.append(WeekShare(str(monday), int(part.sum()), unseen, share))
    return result


def _find_encoder(settings: Settings, tagger_version: str) -> str | None:
    """Return the encoder of the vectors that a tagger reads, from the tags that it wrote; None without any."""
    path = settings.table(schema.TAGS_TABLE)
    if not delta.exists(path):
        return None
    versions = delta.read(path, ["encoder_version"], where=pc.field("tagger_version") == tagger_version)
    return versions["encoder_version"][0].as_py() if len(versions) else None


def _find_weeks(settings: Settings, product_ids: pa.Array) -> NDArray[np.datetime64]:
    """Return the Monday of the week of each product's first version in the catalogue, NaT without one."""
    weeks = np.full(len(product_ids), np.datetime64("NaT", "D"))
    path = settings.table(schema.CATALOGUE_TABLE)
    if delta.exists(path):
        versions = delta.read(path, [PRODUCT_ID, EVENT_TIMESTAMP])
        versions = versions.filter(pc.is_in(versions[PRODUCT_ID], value_set=product_ids))
        first = versions.group_by(PRODUCT_ID).aggregate([(EVENT_TIMESTAMP, "min")])
        mondays = pc.floor_temporal(first[f"{EVENT_TIMESTAMP}_min"].cast(pa.timestamp("us")), unit="week")
        row = pc.index_in(first[PRODUCT_ID], value_set=product_ids).to_numpy(zero_copy_only=False)
        weeks[row] = mondays.to_numpy().astype("datetime64[D]")
    return weeks
