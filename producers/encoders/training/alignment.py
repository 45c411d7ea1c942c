"""Loss that pulls products together that one user clicked in one session, and the pairs of clicks that it uses.

In each batch a product must find its partner by fused vectors, as an image finds its title in CLIP. A popular product
is a frequent partner, but it is in the batch as often as it is a partner, so popularity cancels out in the softmax.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from producers.encoders.training.contrastive import share_targets

INITIAL_LOGIT_SCALE = 8.0
"""Factor of the cosines at the start of a training."""
MAX_LOGIT_SCALE = 50.0
"""Largest factor of the cosines."""
CO_CLICK_SHARE = 0.5
"""Share of the rows of each batch that are pairs of clicks; the other rows are in the usual order."""
SESSION_GAP_US = 30 * 60 * 1_000_000
"""A session ends when a user does not click for longer than this, in microseconds: 30 minutes."""


class AlignmentLoss(nn.Module):
    """The loss, with its own temperature, because products that are clicked together are similar, not equal.

    Its only weight is `logit_scale`, the logarithm of the factor of the cosines.
    """

    def __init__(self) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(math.log(INITIAL_LOGIT_SCALE)))

    def forward(
        self, image: torch.Tensor, text: torch.Tensor, rows: torch.Tensor, partners: torch.Tensor
    ) -> torch.Tensor:
        """Compute how badly the products find their partners in the batch by fused vectors (InfoNCE loss).

        Args:
            image: unit vectors of the images, float [n, d].
            text: unit vectors of the titles of the same products, float [n, d].
            rows: row of each product among all products, int64 [n]. A product is never compared with itself, also if it
                is in the batch twice. If the partner is in the batch twice, both are correct answers.
            partners: index in the batch of each row's partner, -1 for none, int64 [n].

        Returns:
            A scalar: the mean cross-entropy over the rows that have a partner; 0 if no row has one.
        """
        queries = torch.where(partners >= 0)[0]
        if not len(queries):
            return self.logit_scale * 0
        fused = functional.normalize(image + text)
        logits = fused[queries] @ fused.T * self.logit_scale.exp().clamp(max=MAX_LOGIT_SCALE)
        is_itself = rows[queries][:, None] == rows[None, :]
        return functional.cross_entropy(
            logits.masked_fill(is_itself, -1e4), share_targets(rows[partners[queries]], rows)
        )


@dataclass(frozen=True)
class ClickArrays:
    """n clicks of any users, in any order."""

    users: NDArray[np.int64]
    """A number that is equal for the clicks of one user [n]."""
    product_rows: NDArray[np.int64]
    """Row of the product among the titles, -1 for a product that is not among them [n]."""
    timestamps_us: NDArray[np.int64]
    """Microseconds since 1970 UTC [n]."""


@dataclass(frozen=True)
class CoClickPairs:
    """m pairs of different products that one user clicked one after the other in one session.

    A pair is there as often as it was clicked.
    """

    first: NDArray[np.int64]
    """Row among the titles of the product that was clicked first [m]."""
    second: NDArray[np.int64]
    """Row among the titles of the product that was clicked next [m]."""

    def mix_into_batch(
        self, rows: NDArray[np.int64], micro_batch_size: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Replace the first CO_CLICK_SHARE of the rows of each micro-batch with random pairs of clicks.

        The pairs are drawn with replacement. The number of pairs of a micro-batch is rounded down. In a micro-batch the
        first products of all pairs come first, then the second products in the same order, then the rows that are kept.

        Args:
            rows: product rows of the batch [n]; not changed.
            micro_batch_size: number of rows that are compared with each other. Both rows of a pair are put into the
                same micro-batch. The last micro-batch may be smaller.
            rng: source of the random numbers.

        Returns:
            The new rows, int64 [n], and the partner of each row as an index in its micro-batch, from 0, int64 [n]; -1
            for the rows that are kept.

        Raises:
            ValueError: there are no pairs to draw from, and a micro-batch has room for one.
        """
        rows, partners = rows.copy(), np.full(len(rows), -1)
        for start in range(0, len(rows), micro_batch_size):
            length = min(micro_batch_size, len(rows) - start)
            count = int(length * CO_CLICK_SHARE / 2)
            drawn = rng.integers(len(self.first), size=count)
            rows[start : start + count] = self.first[drawn]
            rows[start + count : start + 2 * count] = self.second[drawn]
            partners[start : start + count] = np.arange(count, 2 * count)
            partners[start + count : start + 2 * count] = np.arange(count)
        return rows, partners


def find_co_clicks(clicks: ClickArrays) -> CoClickPairs:
    """Return the pairs of consecutive clicks of one session, in the order of user and time; none without clicks.

    Two clicks of a user are in one session if at most SESSION_GAP_US are between them. Clicks with product row -1 are
    left out first. Clicks of a user at the same time are in the order of their product rows. Two consecutive clicks on
    the same product are not a pair.
    """
    order = np.lexsort((clicks.product_rows, clicks.timestamps_us, clicks.users))
    order = order[clicks.product_rows[order] >= 0]
    user, product, timestamp = clicks.users[order], clicks.product_rows[order], clicks.timestamps_us[order]
    is_pair = (np.diff(user) == 0) & (np.diff(timestamp) <= SESSION_GAP_US) & (np.diff(product) != 0)
    return CoClickPairs(product[:-1][is_pair], product[1:][is_pair])
