"""The affinity features of a frame with one row per user and candidate: what Feast's on-demand view computes."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.errors import VitrineError
from feature_repo.features import affinity
from feature_repo.features.affinity import Candidates, UserState
from feature_repo.schema import CHILD_AGES, CHILD_GENDERS

HISTORY_VECTORS = "history_vectors"
HISTORY_CODES = "history_codes"
RANKED_AT = "ranked_at"
"""What the request brings, for no view has it: see `of_frame`."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def compute_affinity_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """The features of each row, columns affinity.NAMES, float32.

    Args:
        frame: the columns of `user_interest`, of `product_embedding`, `product_tags` and `product_codes`, and of the
            request: `history_vectors`, the fused vectors of the row's `recent_products` in their order, laid end to
            end (NaN where a product has none); `history_codes`, likewise (-1 where there are none); `ranked_at`,
            microseconds since 1970 UTC, or a datetime (without a zone it is UTC). A missing list (None in every row:
            Feast takes no empty ones) is a history of which nothing is known; at a missing moment the child's age is
            not. A distribution of another length than the schema's is none.

    Raises:
        VitrineError: a history is not as long as its products, user and candidate are of two encoder versions, or
            `ranked_at` is no moment.
    """
    once = frame.loc[:, ~frame.columns.duplicated()]  # views share `encoder_version`, which is read by its full name
    rows = [_row(row) for row in once.to_dict("records")]
    values = {name: np.array([row[name][0] for row in rows], np.float32) for name in affinity.NAMES}
    return pd.DataFrame(values, index=frame.index)


of_frame = compute_affinity_frame
"""Feast registries written by earlier versions hold a function that imports this name."""


def _row(row: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
    versions = {row[f"{view}__encoder_version"] for view in (schema.INTEREST_TABLE, schema.EMBEDDING_TABLE)}
    if len(versions) > 1 and all(isinstance(version, str) for version in versions):
        raise VitrineError(
            f"user and candidate have vectors of two encoder versions: {' and '.join(sorted(versions))}; run "
            "`produce embeddings` and `produce interests` with one encoder"
        )
    products = _list(row["recent_products"], object).tolist()
    vectors = _list(row[HISTORY_VECTORS], np.float32)
    codes = _list(row[HISTORY_CODES], np.int64)
    candidate, interest = (_list(row[name], np.float32) for name in ("fused_vector", "interest_vector"))
    candidate_codes = _list(row["codes"], np.int64)
    each = max(1, len(products))
    width = len(candidate) or len(interest) or len(vectors) // each or 1
    levels = len(candidate_codes) or len(codes) // each or 1
    now = _moment(row[RANKED_AT])
    last_click = int(_list(row["recent_times"], np.int64)[:1].sum())
    user = UserState(
        interest=_vector(interest, width),
        ages=_vector(None if now is None else row["child_age_mix"], len(CHILD_AGES)),
        genders=_vector(row["child_gender_mix"], len(CHILD_GENDERS)),
        last_click=last_click,
        products=products,
        vectors=_history(HISTORY_VECTORS, vectors, len(products), width, np.nan),
        codes=_history(HISTORY_CODES, codes, len(products), levels, -1),
    )
    candidates = Candidates(
        products=[row["product_id"]] if "product_id" in row else [None],
        vectors=_vector(candidate, width)[None],
        ages=_vector(row["child_age_distribution"], len(CHILD_AGES))[None],
        genders=_vector(row["child_gender_distribution"], len(CHILD_GENDERS))[None],
        codes=candidate_codes[None] if len(candidate_codes) else np.full((1, levels), -1),
    )
    return affinity.compute_user_affinity(user, candidates, last_click if now is None else now)


def _moment(value: Any) -> int | None:
    """Microseconds since 1970 UTC; None where it is missing.

    Raises:
        VitrineError: it is no moment.
    """
    if np.ndim(value) == 0 and pd.isna(value):
        return None
    if isinstance(value, datetime):
        return ((value if value.tzinfo else value.replace(tzinfo=UTC)) - EPOCH) // timedelta(microseconds=1)
    if isinstance(value, int | float | np.number) and not isinstance(value, bool) and np.isfinite(value):
        return int(value)
    raise VitrineError(f"{RANKED_AT}: {value!r:.80}; wanted microseconds since 1970 UTC, or a datetime")


def _list(value: Any, kind: Any) -> NDArray[Any]:
    """A list as an array [k], of no element where it is missing."""
    return np.empty(0, kind) if value is None or np.ndim(value) == 0 else np.asarray(value, kind)


def _vector(value: Any, width: int) -> NDArray[np.float32]:
    """A list of `width` numbers [width], NaN where it is missing."""
    found = _list(value, np.float32)
    return found if len(found) == width else np.full(width, np.nan, np.float32)


def _history(name: str, flat: NDArray[Any], products: int, width: int, missing: float) -> NDArray[Any]:
    """What the request says of each of the last clicks [products, width]; `missing` where it says nothing."""
    if not len(flat):
        return np.full((products, width), missing, flat.dtype)
    if len(flat) != products * width:
        raise VitrineError(
            f"{name}: {len(flat)} numbers for {products} products of {width} each; give those of `recent_products`, "
            "in their order"
        )
    return flat.reshape(products, width)
