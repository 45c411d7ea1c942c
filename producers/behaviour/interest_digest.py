"""The digest of the clicks that a version of `user_interest` was made from, and of what was known of their products.

It is the sum, modulo 2**64, of the digests of the user's clicks up to the version, so a stream can continue it click by
click. The digest of a click depends on its position among the user's clicks, so their order counts.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.features import interest
from feature_repo.features.interest import HALF_LIFE_DAYS, Clicks, UserInterest
from feature_repo.schema import CHILD_AGE_MONTHS, HISTORY_LENGTH
from producers import input_digest
from producers.behaviour.impression_log import ImpressionLog, Int64
from producers.behaviour.product_versions import ProductVersions
from producers.input_digest import Digests

REVISION = 1
"""Increased with every change of the code that changes a value."""
BLOCK_ROWS = 1_000_000
"""Clicks whose digests are computed at a time."""
_PARAMETERS = (REVISION, round(HALF_LIFE_DAYS * 24), HISTORY_LENGTH)


def compute_digests(
    log: ImpressionLog,
    products: ProductVersions,
    order: Int64,
    starts: Int64,
    age_bounds: Sequence[float] = CHILD_AGE_MONTHS,
) -> Digests:
    """Return the digest of the version that follows each click, uint64 [n].

    Args:
        log: n clicks.
        products: vectors and tags at each row of the log.
        order: [n], the rows of the log by user, then by time.
        starts: [users + 1], the clicks of user u are at [starts[u], starts[u + 1]) of `order`.
        age_bounds: bounds of the child age stages in months.
    """
    ids = input_digest.hash_texts(log.product_ids)
    # The last entry is what -1, no vector or no tags, refers to.
    vectors = np.append(input_digest.hash_vectors(products.vectors), np.uint64(0))
    ages, genders = (
        np.append(input_digest.hash_vectors(values), np.uint64(0)) for values in (products.ages, products.genders)
    )
    first = np.repeat(starts[:-1], np.diff(starts))
    result = np.empty(len(order), np.uint64)
    for start in range(0, len(order), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        rows, position = order[part], np.arange(len(order))[part] - first[part] + 1
        tags = products.tags[rows]
        result[part] = _hash_clicks(
            position,
            ids[log.product[rows]],
            log.timestamp_us[rows],
            (vectors[products.embedding[rows]], ages[tags], genders[tags]),
            age_bounds,
        )
    np.cumsum(result, out=result)
    before = np.append(np.uint64(0), result)[starts[:-1]]
    return result - np.repeat(before, np.diff(starts))


def update_interest(
    state: UserInterest | None, product: str, click: Clicks, age_bounds: Sequence[float] = CHILD_AGE_MONTHS
) -> UserInterest:
    """Return a user's state after one more click, with its digest. The arguments are not changed.

    Args:
        state: the state before; None before the first click. If its digest is unknown, that of the result is.
        product: id of the clicked product.
        click: the click, as arrays of 1 row; no earlier than the user's last one, which is not checked.
        age_bounds: bounds of the child age stages in months.
    """
    updated = interest.update_interest(state, product, click, age_bounds)
    return replace(updated, input_digest=_extend_digest(state, product, click, age_bounds))


def _extend_digest(state: UserInterest | None, product: str, click: Clicks, age_bounds: Sequence[float]) -> int | None:
    """Return the digest after one more click of a user, a 64-bit integer with a sign; None if that of `state` is."""
    if state is not None and state.input_digest is None:
        return None
    before = 0 if state is None else int(state.input_digest or 0)
    position = np.array([1 if state is None else state.clicks + 1])
    features = [input_digest.hash_vectors(values) for values in (click.vector, click.ages, click.genders)]
    (digest,) = _hash_clicks(
        position, input_digest.hash_texts(pa.array([product])), click.time, tuple(features), age_bounds
    )
    total = np.array([before]).view(np.uint64) + digest
    return int(total.view(np.int64)[0])


def _hash_clicks(
    position: Int64,
    product: Digests,
    timestamp_us: Int64,
    features: tuple[Digests, ...],
    age_bounds: Sequence[float],
) -> NDArray[np.uint64]:
    """Return the digest of each of n clicks: position among the clicks of its user, product, time and features."""
    # Rows of the default scale keep the digests that were stored before scales could be configured.
    scale = () if tuple(age_bounds) == CHILD_AGE_MONTHS else (round(bound * 1000) for bound in age_bounds)
    of_all = input_digest.hash_numbers(np.array([*_PARAMETERS, *scale]))
    parameters = np.full(len(position), input_digest.combine(*of_all[:, None])[0])
    numbers = (input_digest.hash_numbers(values) for values in (position, timestamp_us))
    return input_digest.combine(parameters, *numbers, product, *features)
