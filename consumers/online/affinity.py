"""Online features of a user and candidates, with how close they are: two reads and one computation, without Feast.

    found = fetch_with_affinity(reader, "ranking_with_affinity", user_id, candidates, now)
    found.block.values["product_catalogue__price"]   # as of OnlineReader.fetch, with full feature names
    found.affinity["age_gap"]                        # float32 [n], one of each of feature_repo.features.affinity.NAMES

The user's row is read first, then the candidates' and those of the products in the user's row.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumers.online.encoder_guard import require_one_encoder
from consumers.online.reader import Link, OnlineReader
from feature_repo import schema
from feature_repo.arrow import columns, timestamps
from feature_repo.errors import VitrineError
from feature_repo.features import affinity
from feature_repo.features.affinity import HISTORY_SERVICE, Candidates, UserState
from feature_repo.online.feature_batch import FeatureBatch, ViewRows
from feature_repo.schema import CHILD_AGES, CHILD_GENDERS, PRODUCT_ID, USER_ID

Affinity = dict[str, NDArray[np.float32]]


class AffinityBatch(NamedTuple):
    """What was read of n candidates and their user, and how close they are."""

    block: FeatureBatch
    """With full feature names (view__feature)."""
    affinity: Affinity
    """float32 [n] for each of affinity.NAMES, in their order; NaN where nothing is known."""


def fetch_with_affinity(
    reader: OnlineReader,
    service: str,
    user_id: str,
    product_ids: Sequence[str],
    now: datetime,
    *,
    keep_stale: bool = False,
) -> AffinityBatch:
    """The features of one user's candidates.

    Args:
        reader: of the project.
        service: a feature service of views of products and users, among them `user_interest` and `product_embedding`;
            without `product_tags` or `product_codes`, what is made from them is NaN.
        user_id: for whom.
        product_ids: the candidates [n].
        now: when they are ranked: children grow, and rows grow stale.
        keep_stale: as of `OnlineReader.fetch`.

    Raises:
        VitrineError: as `OnlineReader.fetch`; the service lacks a view.
        MixedEncoders: vectors are of two encoder versions.
    """
    _require(reader.join_keys(service), service)
    ids = {USER_ID: user_id, PRODUCT_ID: product_ids}
    link = Link(schema.INTEREST_TABLE, _recent, HISTORY_SERVICE)
    block, history = reader.fetch_linked(service, ids, link, keep_stale=keep_stale, now=now)
    return AffinityBatch(block, _affinity(block, history, product_ids, timestamps.datetime_to_ticks(now, "us")))


def _require(views: Collection[str], service: str) -> None:
    missing = [view for view in (schema.INTEREST_TABLE, schema.EMBEDDING_TABLE) if view not in views]
    if missing:
        raise VitrineError(
            f"service `{service}` has no view {', '.join(missing)}, from which affinity is computed; "
            f"it has {', '.join(views)}"
        )


def _recent(user: ViewRows) -> list[str]:
    """The products in the user's row, newest first; none where there is no row."""
    return list(_first(user, "recent_products")) if len(user.rows.status) else []


def _affinity(block: FeatureBatch, history: FeatureBatch | None, product_ids: Sequence[str], now: int) -> Affinity:
    if history is None:
        require_one_encoder(block)
        return {name: np.full(block.count, np.nan, np.float32) for name in affinity.NAMES}
    require_one_encoder(block, history)
    clicked = _matrix(history, schema.EMBEDDING_TABLE, "fused_vector")
    vectors = _matrix(block, schema.EMBEDDING_TABLE, "fused_vector", clicked.shape[1])
    width = vectors.shape[1]
    if clicked.shape[1] != width:  # none of the clicked products has a vector
        clicked = np.full((len(clicked), width), np.nan, np.float32)
    row = block.views[schema.INTEREST_TABLE]
    user = UserState(
        interest=_vector(row, "interest_vector", width),
        ages=_vector(row, "child_age_mix", len(CHILD_AGES)),
        genders=_vector(row, "child_gender_mix", len(CHILD_GENDERS)),
        last_click=int(_first(row, "recent_times")[0]),
        products=_recent(row),
        vectors=clicked,
        codes=_codes(history),
    )
    candidates = Candidates(
        products=product_ids,
        vectors=vectors,
        ages=_matrix(block, schema.TAGS_TABLE, "child_age_distribution", len(CHILD_AGES)),
        genders=_matrix(block, schema.TAGS_TABLE, "child_gender_distribution", len(CHILD_GENDERS)),
        codes=_codes(block),
    )
    return affinity.compute_user_affinity(user, candidates, now)


def _first(user: ViewRows, feature: str) -> Any:
    """A list feature of the user's one row, empty where there is none."""
    if feature not in user.rows.columns:
        raise VitrineError(f"the service leaves out {schema.INTEREST_TABLE}.{feature}, from which affinity is computed")
    column = user.rows.columns[feature]
    if isinstance(column.values, np.ndarray) and column.valid is None:
        return column.values[0]
    value = columns.to_arrow(column)[0].as_py()
    return () if value is None else value


def _vector(user: ViewRows, feature: str, width: int) -> NDArray[np.float32]:
    value = np.asarray(_first(user, feature), np.float32)
    return value if len(value) == width else np.full(width, np.nan, np.float32)


def _matrix(block: FeatureBatch, view: str, feature: str, width: int = 1) -> NDArray[np.float32]:
    """A vector feature of each row, NaN rows where there is none; `width` holds where no row has any."""
    read = block.views.get(view)
    if read is None or feature not in read.rows.columns:
        return np.full((block.count, width), np.nan, np.float32)
    values = read.spread(columns.to_numpy(read.rows.columns[feature]))
    if values.dtype == object:
        raise VitrineError(f"{view}.{feature}: the rows hold vectors of different lengths; materialize one encoder's")
    return values if values.shape[1] else np.full((block.count, width), np.nan, np.float32)


def _codes(block: FeatureBatch) -> NDArray[np.int64]:
    """The codes of each row [n, levels], -1 where there are none."""
    read = block.views.get(schema.CODES_TABLE)
    if read is None or "codes" not in read.rows.columns:
        return np.full((block.count, 1), -1)
    values = read.spread(columns.to_numpy(read.rows.columns["codes"]))
    if values.dtype == object or not values.shape[1]:
        return np.full((block.count, 1), -1)
    return np.ma.filled(values.astype(np.int64), -1)
