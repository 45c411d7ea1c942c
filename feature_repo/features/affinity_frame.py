"""Affinity features of a pandas frame with one row per user and candidate, for Feast's on-demand view."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.errors import EncoderMismatchError, InvalidInputError
from feature_repo.features import affinity
from feature_repo.features.affinity import Candidates, UserState
from feature_repo.schema import CHILD_AGE_MONTHS, CHILD_GENDERS

HISTORY_VECTORS = "history_vectors"
HISTORY_CODES = "history_codes"
RANKED_AT = "ranked_at"
"""Columns that the request brings, because no view has them; `compute_affinity_frame` says what they hold."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""The time from which microseconds are counted."""


def compute_affinity_frame(frame: pd.DataFrame, age_bounds: Sequence[float] = CHILD_AGE_MONTHS) -> pd.DataFrame:
    """Compute the features of each row.

    Args:
        frame: the features of `user_interest`, `product_embedding`, `product_tags` and `product_codes` that affinity
            is computed from, as columns of their own names, but `encoder_version` as view__encoder_version; perhaps
            `product_id`, without which `same_product` is 0; and these columns of the request. `history_vectors`: the
            fused vectors of the row's `recent_products`, concatenated in their order; NaN where a product has none.
            `history_codes`: the codes, likewise; -1 where a product has none. `ranked_at`: the time, microseconds since
            1970 UTC or a datetime, which is UTC if it has no time zone. A missing list means that nothing is known
            about the history (Feast accepts no empty lists). Without a time the age features are NaN. A distribution of
            another length than the scale's counts as missing, and so does an interest vector of another length than
            the candidate's.
        age_bounds: bounds of the child age stages in months.

    Returns:
        A frame with the columns affinity.NAMES in their order, float32, and the index of `frame`. A frame without rows
        gives one without rows.

    Raises:
        EncoderMismatchError: user and candidate have vectors of two encoder versions.
        InvalidInputError: a history is not as long as its products, or `ranked_at` is not a time.
        KeyError: a column is missing, except `product_id`.
    """
    unique = frame.loc[:, ~frame.columns.duplicated()]  # `encoder_version`, in several views, is read by its full name
    rows = [_compute_row(row, age_bounds) for row in unique.to_dict("records")]
    values = {name: np.array([row[name][0] for row in rows], np.float32) for name in affinity.NAMES}
    return pd.DataFrame(values, index=frame.index)


of_frame = compute_affinity_frame
"""Imported by the function that Feast registries of earlier versions hold."""


def _compute_row(row: dict[str, Any], age_bounds: Sequence[float]) -> dict[str, NDArray[np.float32]]:
    """Return the features of one row, float32 [1] each."""
    versions = {row[f"{view}__encoder_version"] for view in (schema.INTEREST_TABLE, schema.EMBEDDING_TABLE)}
    if len(versions) > 1 and all(isinstance(version, str) for version in versions):
        raise EncoderMismatchError(
            f"user and candidate have vectors of two encoder versions: {' and '.join(sorted(versions))}; run "
            "`produce embeddings` and `produce interests` with one encoder"
        )
    products = _list(row["recent_products"], object).tolist()
    vectors = _list(row[HISTORY_VECTORS], np.float32)
    codes = _list(row[HISTORY_CODES], np.int64)
    candidate, interest = (_list(row[name], np.float32) for name in ("fused_vector", "interest_vector"))
    candidate_codes = _list(row["codes"], np.int64)
    count, stages = max(1, len(products)), len(age_bounds) - 1
    width = len(candidate) or len(interest) or len(vectors) // count or 1
    levels = len(candidate_codes) or len(codes) // count or 1
    now = _parse_time(row[RANKED_AT])
    last_click = int(_list(row["recent_times"], np.int64)[:1].sum())
    user = UserState(
        interest=_vector(interest, width),
        ages=_vector(None if now is None else row["child_age_mix"], stages),
        genders=_vector(row["child_gender_mix"], len(CHILD_GENDERS)),
        last_click_us=last_click,
        products=products,
        vectors=_history(HISTORY_VECTORS, vectors, len(products), width, np.nan),
        codes=_history(HISTORY_CODES, codes, len(products), levels, -1),
    )
    candidates = Candidates(
        products=[row["product_id"]] if "product_id" in row else [None],
        vectors=_vector(candidate, width)[None],
        ages=_vector(row["child_age_distribution"], stages)[None],
        genders=_vector(row["child_gender_distribution"], len(CHILD_GENDERS))[None],
        codes=candidate_codes[None] if len(candidate_codes) else np.full((1, levels), -1),
    )
    return affinity.compute_user_affinity(user, candidates, last_click if now is None else now, age_bounds)


def _parse_time(value: Any) -> int | None:
    """Return microseconds since 1970 UTC; None if the value is missing."""
    if np.ndim(value) == 0 and pd.isna(value):
        return None
    if isinstance(value, datetime):
        return ((value if value.tzinfo else value.replace(tzinfo=UTC)) - EPOCH) // timedelta(microseconds=1)
    if isinstance(value, int | float | np.number) and not isinstance(value, bool) and np.isfinite(value):
        return int(value)
    raise InvalidInputError(f"{RANKED_AT}: {value!r:.80}; expected microseconds since 1970 UTC, or a datetime")


def _list(value: Any, kind: Any) -> NDArray[Any]:
    """Return a list as an array [k]; an empty array if it is missing."""
    return np.empty(0, kind) if value is None or np.ndim(value) == 0 else np.asarray(value, kind)


def _vector(value: Any, width: int) -> NDArray[np.float32]:
    """Return a list of `width` numbers as an array; NaN if it is missing or has another length."""
    vector = _list(value, np.float32)
    return vector if len(vector) == width else np.full(width, np.nan, np.float32)


def _history(name: str, flat: NDArray[Any], products: int, width: int, missing: float) -> NDArray[Any]:
    """Return a concatenated list as an array [products, width]; filled with `missing` if the list is missing."""
    if not len(flat):
        return np.full((products, width), missing, flat.dtype)
    if len(flat) != products * width:
        raise InvalidInputError(
            f"{name}: {len(flat)} numbers for {products} products of {width} each; give the numbers of "
            "`recent_products`, in their order"
        )
    return flat.reshape(products, width)
