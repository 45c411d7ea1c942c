"""The scored pairs of a catalogue, kept between runs in the table `product_pair`."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.offline import delta, versions
from feature_repo.schema import CREATED_TIMESTAMP, PRODUCT_ID_L, PRODUCT_ID_R, PRODUCT_PAIR, TIMESTAMP

Floats = NDArray[np.float32]
Int64 = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class ScoredPairs:
    """m pairs of n products; each once, with left < right, sorted by both."""

    left: Int64
    """[m], rows of products."""
    right: Int64
    """[m], likewise."""
    alone: Floats
    """[m], probability of the pair on its own."""
    probability: Floats
    """[m], probability with the context; NaN where it is not computed yet."""

    def touches(self, is_chosen: Bools) -> Bools:
        """Return whether a pair has a chosen product, bool [m]."""
        return is_chosen[self.left] | is_chosen[self.right]

    def replace_pairs(self, other: "ScoredPairs", products: int) -> "ScoredPairs":
        """Return these pairs and the other ones; of a pair in both, the other's."""
        left, right, alone, probability = (
            np.concatenate([getattr(other, name), getattr(self, name)])
            for name in ("left", "right", "alone", "probability")
        )
        _, first = np.unique(left * products + right, return_index=True)
        return ScoredPairs(left[first], right[first], alone[first], probability[first])

    def select(self, chosen: Bools) -> "ScoredPairs":
        """Return the chosen pairs."""
        return ScoredPairs(self.left[chosen], self.right[chosen], self.alone[chosen], self.probability[chosen])


def read_pairs(settings: Settings, product_ids: pa.Array, verifier_version: str) -> ScoredPairs:
    """Return the stored pairs of a verifier; those with a product that is not among the given ones are left out.

    Args:
        settings: the deployment.
        product_ids: [n], each once.
        verifier_version: pairs that another verifier scored are left out.
    """
    path = settings.table(schema.PAIR_TABLE)
    if not delta.exists(path):
        empty = np.empty(0, np.int64)
        return ScoredPairs(empty, empty, empty.astype(np.float32), empty.astype(np.float32))
    rows = versions.read_newest(
        delta.open_dataset(path),
        [PRODUCT_ID_L, PRODUCT_ID_R, "pair_probability", "probability"],
        pc.field("verifier_version") == verifier_version,
        keys=[PRODUCT_ID_L, PRODUCT_ID_R],
        event_timestamp=CREATED_TIMESTAMP,
        created_timestamp=CREATED_TIMESTAMP,
    )
    left, right = (
        pc.index_in(rows[name], value_set=product_ids).fill_null(-1).to_numpy().astype(np.int64)
        for name in (PRODUCT_ID_L, PRODUCT_ID_R)
    )
    alone, probability = (rows[name].to_numpy() for name in ("pair_probability", "probability"))
    left, right = np.minimum(left, right), np.maximum(left, right)
    kept = np.flatnonzero((left >= 0) & (alone > 0))
    order = kept[np.lexsort((right[kept], left[kept]))]
    return ScoredPairs(left[order], right[order], alone[order], probability[order])


def build_pair_rows(pairs: ScoredPairs, product_ids: pa.Array, verifier_version: str, now: datetime) -> pa.Table:
    """Return rows of schema.PRODUCT_PAIR, in the order of the pairs; the left id is the smaller one.

    Args:
        pairs: pairs whose rows are of `product_ids`.
        product_ids: [n].
        verifier_version: of the verifier that scored them.
        now: the created timestamp, with a time zone.
    """
    sides = [product_ids.take(pa.array(rows)) for rows in (pairs.left, pairs.right)]
    is_sorted = pc.less(*sides)
    return pa.table(
        {
            PRODUCT_ID_L: pc.if_else(is_sorted, *sides),
            PRODUCT_ID_R: pc.if_else(is_sorted, *sides[::-1]),
            "pair_probability": pa.array(pairs.alone),
            "probability": pa.array(pairs.probability),
            "verifier_version": pa.repeat(pa.scalar(verifier_version), len(pairs.left)),
            CREATED_TIMESTAMP: pa.repeat(pa.scalar(now, TIMESTAMP), len(pairs.left)),
        }
    ).cast(PRODUCT_PAIR)
