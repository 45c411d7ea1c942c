"""Builds rows of `user_interest` from the results of `feature_repo.features.interest`, and parses them back."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.arrow.take import matrix_to_lists
from feature_repo.features.interest import InterestMeans, UserInterest
from feature_repo.schema import (
    CHILD_GENDERS,
    CREATED_TIMESTAMP,
    EVENT_TIMESTAMP,
    HISTORY_LENGTH,
    INPUT_DIGEST,
    TIMESTAMP,
    USER_ID,
    USER_INTEREST,
)
from producers import input_digest
from producers.input_digest import Digests

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class ClickHistory:
    """c clicks, sorted by user and time, and the part of them that each of n versions has seen.

    A version is the state of one user after one of the clicks. It has seen the clicks [first, last], both inclusive.
    """

    product_ids: pa.Array
    """The product ids, each once: the id of code k is `product_ids[k]`."""
    product: NDArray[np.int32]
    """[c], the code of each clicked product."""
    timestamp_us: Int64
    """[c], microseconds since 1970 UTC."""
    first: Int64
    """[n], index of the first click of the version's user, in [0, c)."""
    last: Int64
    """[n], index of the click that the version follows, in [0, c); `first - 1` for a version without clicks."""


def build_rows(
    *,
    user_ids: pa.Array,
    means: InterestMeans,
    history: ClickHistory,
    event_us: Int64,
    digests: Digests,
    encoder_version: str,
    now: datetime,
) -> pa.Table:
    """Return versions of users as rows of schema.USER_INTEREST, in the order of `user_ids`.

    A vector or distribution of NaN becomes null. `recent_products` has at most HISTORY_LENGTH clicks, the newest first,
    and a product that was clicked twice is in it twice. `clicks` counts all clicks of the user so far.

    Args:
        user_ids: [n], the user of each version; a user may have several.
        means: n means, each just after the click that the version follows.
        history: the clicks of these users, for n versions in the same order.
        event_us: [n], the event timestamps, microseconds since 1970 UTC: one microsecond after the last click, so that
            a version never knows a click of its own time, or later.
        digests: [n], from interest_digest.py.
        encoder_version: the encoder that made the vectors in `means`.
        now: the created timestamp of all rows, with a time zone.
    """
    lengths = np.minimum(history.last - history.first + 1, HISTORY_LENGTH)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    # The last HISTORY_LENGTH clicks of each version, the newest first.
    click = np.repeat(history.last, lengths) - (np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths))
    recent_products = history.product_ids.take(pa.array(history.product[click]))
    columns = {
        USER_ID: user_ids,
        "interest_vector": matrix_to_lists(means.vector),
        "interest_weight": pa.array(means.vector_weight),
        "child_age_mix": matrix_to_lists(means.ages),
        "child_age_weight": pa.array(means.ages_weight),
        "child_gender_mix": matrix_to_lists(means.genders),
        "child_gender_weight": pa.array(means.genders_weight),
        "recent_products": pa.ListArray.from_arrays(offsets, recent_products),
        "recent_times": pa.ListArray.from_arrays(offsets, pa.array(history.timestamp_us[click])),
        "clicks": pa.array(history.last - history.first + 1),
        "encoder_version": pa.repeat(pa.scalar(encoder_version), len(user_ids)),
        EVENT_TIMESTAMP: pa.array(event_us, TIMESTAMP),
        CREATED_TIMESTAMP: pa.repeat(pa.scalar(now, TIMESTAMP), len(user_ids)),
        INPUT_DIGEST: input_digest.to_arrow(digests),
    }
    return pa.table(columns).cast(USER_INTEREST)


def build_row(user_id: str, interest: UserInterest, encoder_version: str, now: datetime) -> pa.Table:
    """Return one version of a user as a table of one row (schema.USER_INTEREST).

    Equal to the row that `build_rows` returns for the same clicks.

    Args:
        user_id: the user.
        interest: the state just after the user's last click; it has at least one click.
        encoder_version: the encoder that made the vectors in `interest`.
        now: the created timestamp, with a time zone.
    """
    means = interest.means
    vectors = {"interest_vector": means.vector, "child_age_mix": means.ages, "child_gender_mix": means.genders}
    columns = {
        USER_ID: [user_id],
        "interest_weight": means.vector_weight,
        "child_age_weight": means.ages_weight,
        "child_gender_weight": means.genders_weight,
        **{name: matrix_to_lists(values) for name, values in vectors.items()},
        "recent_products": [list(interest.products)],
        "recent_times": [list(interest.times)],
        "clicks": [interest.clicks],
        "encoder_version": [encoder_version],
        EVENT_TIMESTAMP: pa.array([interest.times[0] + 1], TIMESTAMP),
        CREATED_TIMESTAMP: pa.array([now], TIMESTAMP),
        INPUT_DIGEST: pa.array([interest.input_digest], pa.int64()),
    }
    return pa.table(columns).select(USER_INTEREST.names).cast(USER_INTEREST)


def parse_row(row: Mapping[str, Any], width: int, stages: int) -> UserInterest:
    """Return the state that a stored version holds, so that the user's next click can be added to it.

    Args:
        row: a row of `user_interest` as `to_pylist` returns it, with at least one click, and with all columns but
            `user_id`, `encoder_version` and both timestamps, which are not read. The digest may be missing.
        width: the number of elements of a vector of this encoder. A null vector becomes that many NaNs; a null
            distribution, or one of another length, becomes NaNs too.
        stages: the number of child age stages.

    Raises:
        KeyError: the row lacks a column.
    """
    means = InterestMeans(
        vector=_to_vector(row["interest_vector"], width),
        vector_weight=np.array([row["interest_weight"]], np.float32),
        ages=_to_vector(row["child_age_mix"], stages),
        ages_weight=np.array([row["child_age_weight"]], np.float32),
        genders=_to_vector(row["child_gender_mix"], len(CHILD_GENDERS)),
        genders_weight=np.array([row["child_gender_weight"]], np.float32),
        time=np.array([row["recent_times"][0]]),
    )
    return UserInterest(
        means, tuple(row["recent_products"]), tuple(row["recent_times"]), row["clicks"], row.get(INPUT_DIGEST)
    )


def _to_vector(value: Any, width: int) -> NDArray[np.float32]:
    """Return a list of numbers as float32 [1, width]; NaN for None or a list of another length."""
    is_missing = value is None or len(value) != width
    return np.full((1, width), np.nan, np.float32) if is_missing else np.array([value], np.float32)
