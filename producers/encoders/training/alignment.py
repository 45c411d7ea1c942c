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
MAX_LOGIT_SCALE = 50.0
CO_CLICK_SHARE = 0.5
"""Share of the rows of each batch that are pairs of clicks; the other rows are in the usual order."""
SESSION_GAP_US = 30 * 60 * 1_000_000
"""A session ends when a user does not click for longer than this."""


class AlignmentLoss(nn.Module):
    """The loss, with its own temperature: co-clicked products are similar, not equal."""

    def __init__(self) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(math.log(INITIAL_LOGIT_SCALE)))

    def forward(
        self, image: torch.Tensor, text: torch.Tensor, rows: torch.Tensor, partners: torch.Tensor
    ) -> torch.Tensor:
        """Return the InfoNCE loss of the fused vectors; 0 if no row has a partner.

        Args:
            image: Unit vectors of the images [n, d].
            text: Unit vectors of the titles of the same products [n, d].
            rows: Row of each product [n]. Other rows of the same product are not counted as negatives.
            partners: Index in the batch of each row's partner, -1 for none [n].
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
    """n clicks, in any order."""

    users: NDArray[np.int64]
    """Code of the user [n]."""
    product_rows: NDArray[np.int64]
    """Row of the product among the titles, -1 for a product that is not among them [n]."""
    timestamps_us: NDArray[np.int64]
    """Microseconds since 1970 UTC [n]."""


@dataclass(frozen=True)
class CoClickPairs:
    """m pairs of product rows that one user clicked one after the other in one session."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]

    def mix_into_batch(
        self, rows: NDArray[np.int64], micro_batch_size: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Replace CO_CLICK_SHARE of the rows of a batch with random pairs of clicks.

        Args:
            rows: Product rows of the batch [n].
            micro_batch_size: Both rows of a pair are put into the same micro-batch of this size.
            rng: Source of the random numbers.

        Returns:
            The rows [n], and the partner of each row as an index in its micro-batch, -1 for none [n].
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
    """Return the pairs of consecutive clicks of one session, in the order of user and time.

    Clicks with product row -1 are left out first. A pair of the same product is not returned.
    """
    order = np.lexsort((clicks.product_rows, clicks.timestamps_us, clicks.users))
    order = order[clicks.product_rows[order] >= 0]
    user, product, timestamp = clicks.users[order], clicks.product_rows[order], clicks.timestamps_us[order]
    is_pair = (np.diff(user) == 0) & (np.diff(timestamp) <= SESSION_GAP_US) & (np.diff(product) != 0)
    return CoClickPairs(product[:-1][is_pair], product[1:][is_pair])
