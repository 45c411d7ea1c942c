"""Draws pairs to be judged, each with the probability with which it was drawn.

Anchors are drawn by category, so that small categories have figures too. Then the recalled products of each anchor are
drawn: all in its group, the first ones of its list, and a share of the others by score. A product has one random number
for all weeks (permanent random numbers: Ohlsson, 1995): with the same rates the same anchors are drawn each week, and
weeks are compared on the same products. Some pairs are asked a second time, with the sides exchanged and another id, to
measure how far labellers agree with themselves and each other.
"""

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from consumers.labels.frame import SamplingFrame
from feature_repo.schema import PAIR_LABEL

SCORE_BINS = (0.0, 0.1, 0.5, 0.9, 1.01)
"""Bounds of the strata of recalled products."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SamplingRates:
    """The sizes of a sample."""

    anchors: int
    """Expected anchors of each category, all of them if it has fewer."""
    depth: int
    """First recalled products of an anchor that are always drawn."""
    tail: float
    """Expected pairs of each score stratum and anchor beyond them, relative to the stratum's size: in [0, 1]."""
    repeats: float
    """Share of the pairs that are asked a second time, in [0, 1]."""


def draw_pairs(frame: SamplingFrame, rates: SamplingRates, *, week: str, seed: int) -> pa.Table:
    """Return the drawn pairs as schema.PAIR_LABEL with null labels, in random order.

    `product_id_l` is the anchor. A repeat has the sides exchanged.

    Args:
        frame: what can be drawn.
        rates: how much is drawn.
        week: name of the sample.
        seed: one seed for all weeks that are to be compared.
    """
    anchor_rate = _rate_anchors(frame, rates.anchors)
    product_number = np.array([draw_number(f"{seed} {name}") for name in frame.product_ids])
    is_drawn = product_number < anchor_rate
    rows = np.flatnonzero(is_drawn[frame.anchor])
    is_certain = (frame.rank[rows] <= rates.depth) | frame.in_one_group[rows]
    rate = np.where(is_certain, 1.0, rates.tail * _rate_scores(frame.probability[rows]))
    ids = frame.product_ids
    names = [f"{ids[frame.anchor[row]]} {ids[frame.recalled[row]]}" for row in rows]
    kept = np.array([draw_number(f"{seed} pair {name}") for name in names]) < rate
    drawn = [
        {
            "pair_id": make_pair_id(week, ids[frame.anchor[row]], ids[frame.recalled[row]]),
            "product_id_l": ids[frame.anchor[row]],
            "product_id_r": ids[frame.recalled[row]],
            "inclusion_probability": float(anchor_rate[frame.anchor[row]] * chance),
            "week": week,
            "category": frame.category[frame.anchor[row]],
            "probability": float(frame.probability[row]),
            "rank": int(frame.rank[row]),
            "in_one_group": bool(frame.in_one_group[row]),
            "is_repeat": False,
        }
        for row, name, chance, is_kept in zip(rows, names, rate, kept, strict=True)
        if is_kept
    ]
    rng = np.random.default_rng([seed, *week.encode()])
    repeated = [drawn[i] for i in np.flatnonzero(rng.random(len(drawn)) < rates.repeats)]
    drawn += [
        {
            **row,
            "pair_id": make_repeat_id(row["pair_id"]),
            "product_id_l": row["product_id_r"],
            "product_id_r": row["product_id_l"],
            "is_repeat": True,
        }
        for row in repeated
    ]
    return pa.Table.from_pylist([drawn[i] for i in rng.permutation(len(drawn))], schema=PAIR_LABEL)


def draw_number(name: str) -> float:
    """Return the permanent random number of a name, uniform in [0, 1)."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest()) / 2**64


def make_pair_id(week: str, left: str, right: str) -> str:
    """Return the id of a pair in the sample of a week: 12 hex digits."""
    return _hash_to_id(f"{week} {left} {right}")


def make_repeat_id(pair_id: str) -> str:
    """Return the id of the repeat of a pair, which does not tell a labeller that it is one: 12 hex digits."""
    return _hash_to_id(f"repeat {pair_id}")


def _hash_to_id(name: str) -> str:
    return blake2b(name.encode(), digest_size=6).hexdigest()


def _rate_anchors(frame: SamplingFrame, anchors: int) -> Floats:
    """Return the probability of each product to be an anchor, [n]; 0 for a product for which nothing was recalled."""
    has_recalled = np.zeros(len(frame.product_ids), bool)
    has_recalled[frame.anchor] = True
    category = np.array(frame.category)
    sizes = {name: int(has_recalled[category == name].sum()) for name in np.unique(category)}
    rate = np.array([min(1.0, anchors / max(1, sizes[name])) for name in frame.category])
    return np.where(has_recalled, rate, 0.0)


def _rate_scores(probability: Floats) -> Floats:
    """Return relative rates that give each of the strata of SCORE_BINS the same expected number of pairs, [m]."""
    stratum = np.digitize(probability, SCORE_BINS) - 1
    sizes = np.bincount(stratum, minlength=len(SCORE_BINS))
    smallest = min((size for size in sizes.tolist() if size), default=1)
    return np.minimum(1.0, smallest / np.maximum(1, sizes[stratum]))
