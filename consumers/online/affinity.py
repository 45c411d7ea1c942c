"""Online features of a user and candidates, with the affinity of each candidate to the user's clicks, without Feast.

    result = fetch_with_affinity(reader, "ranking_with_affinity", user_id, candidates, now)
    result.batch.values["product_catalogue__price"]  # see OnlineReader.fetch; with full feature names
    result.affinity["age_gap"]                       # float32 [n], for each name of features.affinity.NAMES

The user's row is read first, then the rows of the candidates and of the products that the user clicked.
"""

import warnings
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumers.online.encoder_guard import require_one_encoder
from consumers.online.reader import OnlineReader
from consumers.online.two_hops import Link
from feature_repo import schema
from feature_repo.arrow import columns, timestamps
from feature_repo.errors import EncoderMismatchError, NotFoundError
from feature_repo.features import affinity
from feature_repo.features.affinity import HISTORY_SERVICE, Candidates, UserState
from feature_repo.online.feature_batch import FeatureBatch, ViewRows
from feature_repo.schema import CHILD_GENDERS, PRODUCT_ID, USER_ID

Affinity = dict[str, NDArray[np.float32]]


class AffinityBatch(NamedTuple):
    """The stored features of n candidates and their user, and the affinity of each candidate to the user's clicks."""

    batch: FeatureBatch
    """The stored features, with full feature names (view__feature); row i is candidate i and the user."""
    affinity: Affinity
    """float32 [n] for each of affinity.NAMES, in their order; NaN where nothing is known."""

    @property
    def block(self) -> FeatureBatch:
        """Deprecated name of `batch`."""
        warnings.warn("AffinityBatch.block is now AffinityBatch.batch", DeprecationWarning, stacklevel=2)
        return self.batch


def fetch_with_affinity(
    reader: OnlineReader,
    service: str,
    user_id: str,
    product_ids: Sequence[str],
    now: datetime,
    *,
    keep_stale: bool = False,
) -> AffinityBatch:
    """Return the features of one user's candidates, and their affinity to the user's clicks.

    A user without a row, with a stale row (unless `keep_stale`), or without clicks gives NaN for every affinity
    feature. A clicked product without a vector does not count in the cosines; a candidate without one has NaN for them.
    If `now` is before the user's last click, the children have their ages at that click.

    Args:
        reader: reads the project's features.
        service: a feature service with the views `user_interest` and `product_embedding`. Without `product_tags` or
            `product_codes`, the features computed from them are NaN.
        user_id: the user.
        product_ids: the candidates [n]; the rows of the result are in their order. Repeats are allowed; no candidates
            give a result of 0 rows.
        now: the time of the request. Children's ages are computed for it, and rows are stale by it; without a time zone
            it is UTC.
        keep_stale: whether rows older than their view's TTL keep their values and count in the affinity. Otherwise
            their values are missing.

    Raises:
        NotFoundError: there is no such service, or it lacks `user_interest` or `product_embedding` or a feature of
            `user_interest` that affinity is computed from.
        EncoderMismatchError: the vectors have different encoder versions, or those of one view differ in length.
        UnavailableError: the store does not answer.
    """
    _require_views(reader.join_keys(service), service)
    ids = {USER_ID: user_id, PRODUCT_ID: product_ids}
    link = Link(schema.INTEREST_TABLE, _recent_products, HISTORY_SERVICE)
    batch, history = reader.fetch_linked(service, ids, link, keep_stale=keep_stale, now=now)
    now_us = timestamps.datetime_to_ticks(now, "us")
    return AffinityBatch(batch, _compute_affinity(batch, history, product_ids, now_us, reader.child_age_bounds()))


def _require_views(views: Collection[str], service: str) -> None:
    """Raise NotFoundError if the service lacks a view that affinity needs."""
    missing = [view for view in (schema.INTEREST_TABLE, schema.EMBEDDING_TABLE) if view not in views]
    if missing:
        raise NotFoundError(
            f"service `{service}` has no view {', '.join(missing)}, from which affinity is computed; "
            f"it has {', '.join(views)}"
        )


def _recent_products(user: ViewRows) -> list[str]:
    """Return the products of the user's last clicks, newest first; empty if there is no row."""
    return list(_user_list(user, "recent_products")) if len(user.rows.status) else []


def _compute_affinity(
    batch: FeatureBatch,
    history: FeatureBatch | None,
    product_ids: Sequence[str],
    now_us: int,
    age_bounds: Sequence[float],
) -> Affinity:
    """Return the affinity features, float32 [n] each; all NaN if `history` is None."""
    if history is None:
        require_one_encoder(batch)
        return {name: np.full(batch.count, np.nan, np.float32) for name in affinity.NAMES}
    require_one_encoder(batch, history)
    clicked = _vectors(history, schema.EMBEDDING_TABLE, "fused_vector")
    vectors = _vectors(batch, schema.EMBEDDING_TABLE, "fused_vector", clicked.shape[1])
    width, stages = vectors.shape[1], len(age_bounds) - 1
    if clicked.shape[1] != width:  # none of the clicked products has a vector
        clicked = np.full((len(clicked), width), np.nan, np.float32)
    row = batch.views[schema.INTEREST_TABLE]
    user = UserState(
        interest=_user_vector(row, "interest_vector", width),
        ages=_user_vector(row, "child_age_mix", stages),
        genders=_user_vector(row, "child_gender_mix", len(CHILD_GENDERS)),
        last_click_us=int(_user_list(row, "recent_times")[0]),
        products=_recent_products(row),
        vectors=clicked,
        codes=_codes(history),
    )
    candidates = Candidates(
        products=product_ids,
        vectors=vectors,
        ages=_distributions(batch, "child_age_distribution", stages),
        genders=_distributions(batch, "child_gender_distribution", len(CHILD_GENDERS)),
        codes=_codes(batch),
    )
    return affinity.compute_user_affinity(user, candidates, now_us, age_bounds)


def _user_list(user: ViewRows, feature: str) -> Any:
    """Return a list feature of the user's row, empty if it is missing."""
    if feature not in user.rows.columns:
        raise NotFoundError(
            f"the service has no feature {schema.INTEREST_TABLE}.{feature}, from which affinity is computed; add it"
        )
    column = user.rows.columns[feature]
    if isinstance(column.values, np.ndarray) and column.valid is None:
        return column.values[0]
    value = columns.to_arrow(column)[0].as_py()
    return () if value is None else value


def _user_vector(user: ViewRows, feature: str, width: int) -> NDArray[np.float32]:
    """Return a vector feature of the user's row, NaN if it is missing or has another width."""
    value = np.asarray(_user_list(user, feature), np.float32)
    return value if len(value) == width else np.full(width, np.nan, np.float32)


def _vectors(batch: FeatureBatch, view: str, feature: str, width: int = 1) -> NDArray[np.float32]:
    """Return a vector feature of each row [n, own width], NaN rows where it is missing.

    `width` is the width of the result if no row has a vector.
    """
    rows = batch.views.get(view)
    if rows is None or feature not in rows.rows.columns:
        return np.full((batch.count, width), np.nan, np.float32)
    values = rows.expand(columns.to_numpy(rows.rows.columns[feature]))
    if values.dtype == object:
        raise EncoderMismatchError(f"{view}.{feature}: vectors differ in length; materialize those of one encoder")
    return values if values.shape[1] else np.full((batch.count, width), np.nan, np.float32)


def _distributions(batch: FeatureBatch, feature: str, width: int) -> NDArray[np.float32]:
    """Return a distribution of the tags of each row [n, width], NaN rows where it is missing or has another width.

    Rows have another width while they are written again for other child age stages.
    """
    result = np.full((batch.count, width), np.nan, np.float32)
    rows = batch.views.get(schema.TAGS_TABLE)
    if rows is None or feature not in rows.rows.columns:
        return result
    values = rows.expand(columns.to_numpy(rows.rows.columns[feature]))
    if values.dtype != object:
        return values if values.shape[1] == width else result
    for row, value in zip(result, values, strict=True):
        if value is not None and len(value) == width:
            row[:] = value
    return result


def _codes(batch: FeatureBatch) -> NDArray[np.int64]:
    """Return the codes of each row [n, levels], -1 where they are missing."""
    rows = batch.views.get(schema.CODES_TABLE)
    if rows is None or "codes" not in rows.rows.columns:
        return np.full((batch.count, 1), -1)
    values = rows.expand(columns.to_numpy(rows.rows.columns["codes"]))
    if values.dtype == object or not values.shape[1]:
        return np.full((batch.count, 1), -1)
    return np.ma.filled(values.astype(np.int64), -1)
