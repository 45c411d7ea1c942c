"""Impressions joined with every view of a feature service, each as of the impression's own time."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo.age_scale import DEFAULT_AGE_SCALE, AgeScale
from feature_repo.arrow.take import to_matrix
from feature_repo.config import Settings
from feature_repo.errors import CorruptDataError, EncoderMismatchError, NotFoundError, VitrineError
from feature_repo.schema import CLICKED, EVENT_TIMESTAMP, PRODUCT_ID, USER_ID

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class JoinedView:
    """One feature view joined to a log of n impressions.

    A version is one row of the view: the features of one product or user from its event timestamp on. Each is stored
    once.
    """

    versions: pa.Table
    """The view's features, one row for each version [versions]; columns have the names of the features."""
    timestamp_us: Ints
    """Event timestamp of each version, in microseconds since 1970 UTC [versions]."""
    row_index: Ints
    """For each impression, the row of `versions` that was valid at its time [n]; -1 where there was none."""

    def vectors(self, column: str) -> NDArray[np.float32]:
        """Return a list column as a float32 matrix [versions, width]; a null list gives a row of NaN, a null in it NaN.

        The width is 1 if all lists are null.

        Args:
            column: name of the feature.

        Raises:
            KeyError: there is no such column.
            CorruptDataError: the lists have different lengths.
        """
        try:
            return to_matrix(self.versions.column(column))
        except VitrineError as error:
            raise CorruptDataError(f"column {column}: {error}") from error

    def numbers(self, column: str) -> NDArray[np.float32]:
        """Return a numeric or boolean column for each impression, float32 [n]; NaN for null and for no version.

        Args:
            column: name of the feature.

        Raises:
            KeyError: there is no such column.
        """
        values = self.versions.column(column).cast(pa.float32()).to_numpy()
        return gather_rows(values, self.row_index)

    def strings(self, column: str) -> pa.ChunkedArray:
        """Return a string column for each impression [n]; null for null and for no version.

        Args:
            column: name of the feature.

        Raises:
            KeyError: there is no such column.
        """
        return self.versions.column(column).take(pa.array(self.row_index, mask=self.row_index < 0))


@dataclass(frozen=True)
class RankingTrainingSet:
    """A log of impressions, sorted by time, and the views joined to it."""

    impressions: pa.Table
    """The columns of `schema.IMPRESSIONS` and the log's context columns, sorted by event timestamp [n]. `user_id` is
    null where an impression has no user."""
    views: Mapping[str, JoinedView]
    """View name to the joined view."""
    age_scale: AgeScale = DEFAULT_AGE_SCALE
    """The deployment's scale of child ages."""

    @cached_property
    def user(self) -> Ints:
        """User codes [n], numbered from 0 by first appearance, so that later rows do not change earlier codes.

        An impression without a user is the only one of its code: it has no history and is drawn on its own.
        """
        codes = encode_values(self.impressions.column(USER_ID))
        known = np.flatnonzero(codes >= 0)
        first_rows = np.zeros(codes.max(initial=-1) + 2, np.int64)
        first_rows[codes[known[::-1]]] = known[::-1]  # of equal codes the last one written stays
        first_row = np.where(codes >= 0, first_rows[codes], np.arange(len(codes)))
        return codes if len(known) == len(codes) else np.unique(first_row, return_inverse=True)[1]

    @cached_property
    def product(self) -> Ints:
        """Product codes [n], numbered from 0 by first appearance, so that later rows do not change earlier codes."""
        return encode_values(self.impressions.column(PRODUCT_ID))

    @cached_property
    def timestamp_us(self) -> Ints:
        """Event timestamps in microseconds since 1970 UTC [n], ascending."""
        return self.impressions.column(EVENT_TIMESTAMP).cast(pa.int64()).to_numpy()

    @cached_property
    def clicked(self) -> NDArray[np.int8]:
        """1 for a clicked impression, else 0 [n]."""
        return self.impressions.column(CLICKED).to_numpy()

    def with_views(self, views: Mapping[str, JoinedView]) -> "RankingTrainingSet":
        """Return the same log with other views instead; this one is not changed.

        Args:
            views: view name to the view, joined to the same impressions.
        """
        return replace(self, views=views)


def encode_values(column: pa.ChunkedArray | pa.Array) -> Ints:
    """Return a code for each value, int64 [n], equal for equal values.

    Codes are 0, 1, 2, ... by first appearance; null is -1. A chunked column is coded as a whole. Codes of two calls
    cannot be compared.
    """
    encoded = pc.dictionary_encode(column)
    chunks = encoded.chunks if isinstance(encoded, pa.ChunkedArray) else [encoded]
    if len(chunks) > 1:
        chunks = encoded.unify_dictionaries().chunks
    indices = pa.chunked_array([chunk.indices for chunk in chunks], pa.int32()).combine_chunks()
    return indices.fill_null(-1).to_numpy().astype(np.int64)


def gather_rows(values: NDArray[np.float32], row_index: Ints) -> NDArray[np.float32]:
    """Return `values[row_index]`, with NaN where `row_index` is -1.

    Args:
        values: float32 [k] or [k, width].
        row_index: row numbers below k, or -1 [n]; may repeat.

    Returns:
        A new array, float32 [n] or [n, width].
    """
    return np.concatenate([values, np.full((1, *values.shape[1:]), np.nan, np.float32)])[row_index]


def join_views(
    settings: Settings,
    service: str,
    impressions: pa.Table,
    created_before: datetime | None = None,
    encoder_version: str | None = None,
) -> RankingTrainingSet:
    """Join impressions, as of their own time, with every view of a feature service, through Feast.

    On-demand views are left out: their features are computed from the log and the joined views, because the placebo
    has to compute them again.

    Args:
        settings: the deployment.
        service: name of the feature service.
        impressions: the checked log, in any order.
        created_before: only versions that were created before this time are seen, which gives the training set that was
            made then; None sees all.
        encoder_version: the encoder version whose rows are joined; None joins those of the one in production.

    Returns:
        Every impression, sorted by event timestamp (equal ones keep their order), and each view by name, with the
        features that the service takes of it. An impression gets the latest version at or before its time, or none if
        there is none within the view's time to live (`ttl`).

    Raises:
        NotFoundError: the feature service does not exist.
        EncoderMismatchError: the joined views hold vectors of several encoder versions.
    """
    from feast.errors import FeatureServiceNotFoundException

    from feature_repo.stores.feature_store import open_feature_store

    store = open_feature_store(settings)
    try:
        features = store.get_feature_service(service)
    except FeatureServiceNotFoundException as error:
        known = ", ".join(sorted(each.name for each in store.list_feature_services()))
        repair = f"there are: {known}" if known else "there is none; run `feast apply` in the folder feature_repo"
        raise NotFoundError(f"no feature service `{service}`; {repair}") from error
    impressions = impressions.sort_by(EVENT_TIMESTAMP)
    keys = impressions.select([USER_ID, PRODUCT_ID, EVENT_TIMESTAMP]).to_pandas()
    on_demand = {view.name for view in store.list_on_demand_feature_views()}
    stored = [each for each in features.feature_view_projections if each.name not in on_demand]
    names = [f"{each.name_to_use()}:{feature.name}" for each in stored for feature in each.features]
    job = store.get_historical_features(keys, names, full_feature_names=True)
    views = {}
    if created_before is not None:
        job = job.created_before(created_before)
    if encoder_version is not None:
        job = job.with_encoder_version(encoder_version)
    for name, matched in job.to_normalised().views.items():
        columns = [column.removeprefix(f"{name}__") for column in matched.versions.column_names]
        timestamp_us = matched.event_timestamp.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
        views[name] = JoinedView(matched.versions.rename_columns(columns), timestamp_us, matched.row_index)
    data = RankingTrainingSet(impressions, views, settings.age_scale)
    check_encoder_version(data)
    return data


def check_encoder_version(data: RankingTrainingSet) -> str | None:
    """Return the one encoder version of all joined views; None if no version has one.

    Raises:
        EncoderMismatchError: there are several, in one view or in several; their vectors cannot be compared.
    """
    views_by_version = {
        version: name
        for name, view in data.views.items()
        if "encoder_version" in view.versions.column_names
        for version in pc.unique(pc.drop_null(view.versions.column("encoder_version"))).to_pylist()
    }
    if len(views_by_version) > 1:
        versions = " and ".join(f"{version} (in {name})" for version, name in sorted(views_by_version.items()))
        raise EncoderMismatchError(
            f"vectors of two encoder versions in one training set: {versions}; "
            "run `produce embeddings` and `produce tags` with one encoder over the whole catalogue"
        )
    return next(iter(views_by_version), None)
