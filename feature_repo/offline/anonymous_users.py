"""Users of a log who are nobody: visitors without an account, and ids that stand for many people.

An impression without a user counts for its product and for no user. A row has no user if its user id

- is null or blank, or one of GUEST_IDS, whatever the case of its letters;
- is `0`, and `0` has more than twice as many rows as any other user (elsewhere it is a user like others);
- has an improbable share: at least MIN_SHARE of the rows that have a user, and at least MIN_TIMES_MEDIAN times as many
  rows as the median user. This is asked only of logs with at least MIN_USERS users.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

GUEST_IDS = (
    "-1", "guest", "anonymous", "anon", "null", "none", "nan", "nil", "undefined", "unknown", "n/a", "(not set)",
    "(null)", "00000000-0000-0000-0000-000000000000",
)  # fmt: skip
"""Ids that programs write for nobody, in lower case."""
MIN_SHARE = 0.05
MIN_TIMES_MEDIAN = 20
MIN_USERS = 20


@dataclass(frozen=True)
class SharedUser:
    """An id that stands for many people."""

    user_id: str
    rows: int
    """Rows of the log with this id."""


def find_guests(user_ids: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Return bool [n]: where an id is null, blank or one of GUEST_IDS."""
    encoded = pc.dictionary_encode(user_ids).unify_dictionaries()
    ids = encoded.chunk(0).dictionary if encoded.num_chunks else pa.array([], pa.string())
    lower = pc.utf8_lower(pc.utf8_trim_whitespace(ids))
    is_guest_id = pc.is_in(lower, pa.array(["", *GUEST_IDS])).to_numpy(zero_copy_only=False)
    codes = [chunk.indices.fill_null(len(ids)).to_numpy() for chunk in encoded.chunks]
    return np.append(is_guest_id, True)[np.concatenate([np.zeros(0, np.int64), *codes])]


def find_shared_users(user_ids: pa.ChunkedArray) -> list[SharedUser]:
    """Return the ids that stand for many people: `0` and those with an improbable share, by falling number of rows.

    Args:
        user_ids: [n], null where `find_guests` is True.
    """
    counted = pc.value_counts(user_ids.drop_null())
    ids, counts = counted.field("values"), counted.field("counts").to_numpy()
    if not len(ids):
        return []
    is_zero = pc.equal(ids, "0").to_numpy(zero_copy_only=False)
    is_shared = is_zero & (counts > 2 * counts[~is_zero].max(initial=0)) & (len(ids) > 1)
    if len(ids) >= MIN_USERS:
        is_shared |= (counts >= MIN_SHARE * counts.sum()) & (counts >= MIN_TIMES_MEDIAN * np.median(counts))
    order = np.argsort(-counts, kind="stable")
    return [SharedUser(ids[int(row)].as_py(), int(counts[row])) for row in order if is_shared[row]]
