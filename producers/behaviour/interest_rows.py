"""Rows of `user_interest` from what features/interest.py computes, and back."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.arrow import timestamps
from feature_repo.features.interest import InterestMeans, UserInterest
from feature_repo.schema import (
    CHILD_AGES,
    CHILD_GENDERS,
    CREATED_TIMESTAMP,
    EVENT_TIMESTAMP,
    HISTORY_LENGTH,
    TIMESTAMP,
    USER_ID,
    USER_INTEREST,
)

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class History:
    """Where the last clicks of n versions lie."""

    products: pa.Array
    """Ids of the codes."""
    product: NDArray[np.int32]
    """[c], what was clicked, by user, then time."""
    time: Int64
    """[c], microseconds."""
    first: Int64
    """[n], place of the user's first click."""
    last: Int64
    """[n], place of the click that made the version."""


def table(*, users: pa.Array, means: InterestMeans, history: History, encoder_version: str, now: datetime) -> pa.Table:
    """Versions of users as rows (schema.USER_INTEREST).

    Args:
        users: ids [n].
        means: just after the click that made each version [n].
        now: the created timestamp.
    """
    rows = len(users)
    length = np.minimum(history.last - history.first + 1, HISTORY_LENGTH)
    offsets = np.concatenate([[0], np.cumsum(length)]).astype(np.int32)
    place = np.repeat(history.last, length) - (np.arange(offsets[-1]) - np.repeat(offsets[:-1], length))
    columns = {
        USER_ID: users,
        "interest_vector": _lists(means.vector),
        "interest_weight": pa.array(means.vector_weight),
        "child_age_mix": _lists(means.ages),
        "child_age_weight": pa.array(means.ages_weight),
        "child_gender_mix": _lists(means.genders),
        "child_gender_weight": pa.array(means.genders_weight),
        "recent_products": pa.ListArray.from_arrays(offsets, history.products.take(pa.array(history.product[place]))),
        "recent_times": pa.ListArray.from_arrays(offsets, pa.array(history.time[place])),
        "clicks": pa.array(history.last - history.first + 1),
        "encoder_version": pa.repeat(pa.scalar(encoder_version), rows),
        EVENT_TIMESTAMP: pa.array(means.time + 1, TIMESTAMP),
        CREATED_TIMESTAMP: pa.repeat(pa.scalar(now, TIMESTAMP), rows),
    }
    return pa.table(columns).cast(USER_INTEREST)


def row(user: str, interest: UserInterest, encoder_version: str, now: datetime) -> pa.Table:
    """One user's version (schema.USER_INTEREST), made one click at a time."""
    means = interest.means
    vectors = {"interest_vector": means.vector, "child_age_mix": means.ages, "child_gender_mix": means.genders}
    columns = {
        USER_ID: [user],
        "interest_weight": means.vector_weight,
        "child_age_weight": means.ages_weight,
        "child_gender_weight": means.genders_weight,
        **{name: _lists(values) for name, values in vectors.items()},
        "recent_products": [list(interest.products)],
        "recent_times": [list(interest.times)],
        "clicks": [interest.clicks],
        "encoder_version": [encoder_version],
        EVENT_TIMESTAMP: pa.array([interest.times[0] + 1], TIMESTAMP),
        CREATED_TIMESTAMP: pa.array([now], TIMESTAMP),
    }
    return pa.table(columns).select(USER_INTEREST.names).cast(USER_INTEREST)


def read(row: Mapping[str, Any], width: int) -> UserInterest:
    """A user's version as it lies in the table (`to_pylist`), to take the next click from there.

    Args:
        width: of the vectors: a user whose clicks had none has a null.
    """
    means = InterestMeans(
        vector=_vector(row["interest_vector"], width),
        vector_weight=np.array([row["interest_weight"]], np.float32),
        ages=_vector(row["child_age_mix"], len(CHILD_AGES)),
        ages_weight=np.array([row["child_age_weight"]], np.float32),
        genders=_vector(row["child_gender_mix"], len(CHILD_GENDERS)),
        genders_weight=np.array([row["child_gender_weight"]], np.float32),
        time=np.array([timestamps.datetime_to_ticks(row[EVENT_TIMESTAMP], "us") - 1]),
    )
    return UserInterest(means, tuple(row["recent_products"]), tuple(row["recent_times"]), row["clicks"])


def _vector(value: Any, width: int) -> NDArray[np.float32]:
    return np.full((1, width), np.nan, np.float32) if value is None else np.array([value], np.float32)


def _lists(values: NDArray[np.float32]) -> pa.Array:
    """float32 [n, k] as n lists; null where a row is NaN."""
    known = ~np.isnan(values[:, 0])
    offsets = np.concatenate([[0], np.cumsum(known)]).astype(np.int32) * values.shape[1]
    flat = values if known.all() else values[known]
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(flat.ravel()), mask=None if known.all() else pa.array(~known)
    )
