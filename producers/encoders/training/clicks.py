"""Products that one user clicked in one session, as pairs of rows to learn from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHARE = 0.5
"""Of each batch's rows that come as pairs of clicks; the others come in the usual order."""
SESSION_GAP = 30 * 60 * 1_000_000
"""Microseconds without a click after which a session is over."""


@dataclass(frozen=True)
class Clicked:
    """n clicks."""

    users: NDArray[np.int64]
    """Code of the user [n]."""
    products: NDArray[np.int64]
    """Row of the product among the titles, -1 for one that is not there [n]."""
    times: NDArray[np.int64]
    """Microseconds [n]."""


@dataclass(frozen=True)
class CoClicks:
    """m pairs of rows: clicked by one user in one session."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]

    def mixed_into(
        self, rows: NDArray[np.int64], size: int, chance: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """A batch of rows of which SHARE give way to pairs of clicks, and each row's partner.

        Partners stand in one micro-batch of `size` rows; a partner is a place in it, -1 for none.
        """
        rows, partners = rows.copy(), np.full(len(rows), -1)
        for start in range(0, len(rows), size):
            length = min(size, len(rows) - start)
            count = int(length * SHARE / 2)
            drawn = chance.integers(len(self.first), size=count)
            rows[start : start + count] = self.first[drawn]
            rows[start + count : start + 2 * count] = self.second[drawn]
            partners[start : start + count] = np.arange(count, 2 * count)
            partners[start + count : start + 2 * count] = np.arange(count)
        return rows, partners


def co_clicks(users: NDArray[np.int64], products: NDArray[np.int64], times: NDArray[np.int64]) -> CoClicks:
    """Pairs of neighbouring clicks of one session, in the order of user and time.

    Args:
        users: of each click [n]; products: row of the product clicked [n], -1 for one that cannot be learnt from.
        times: microseconds [n].
    """
    order = np.lexsort((products, times, users))
    order = order[products[order] >= 0]
    owner, product, time = users[order], products[order], times[order]
    near = (np.diff(owner) == 0) & (np.diff(time) <= SESSION_GAP) & (np.diff(product) != 0)
    return CoClicks(product[:-1][near], product[1:][near])
