"""Impressions joined, correct in time, with every view of a feature service."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo.arrow.take import to_matrix
from feature_repo.config import Settings
from feature_repo.errors import VitrineError
from feature_repo.schema import CLICKED, EVENT_TIMESTAMP, PRODUCT_ID, USER_ID

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class JoinedView:
    """One view as it held at each impression: versions once, and which of them."""

    versions: pa.Table
    """The view's features, each version once [versions]."""
    since: Ints
    """Event timestamp of each version, microseconds [versions]."""
    row: Ints
    """For each impression the row of `versions` that held [n], -1 where the view had nothing yet."""

    def vectors(self, column: str) -> NDArray[np.float32]:
        """A list column as float32 [versions, d], NaN rows where it is null.

        Raises:
            VitrineError: the lists have different lengths.
        """
        try:
            return to_matrix(self.versions.column(column))
        except VitrineError as error:
            raise VitrineError(f"column {column}: {error}") from error

    def numbers(self, column: str) -> NDArray[np.float32]:
        """A numeric or boolean column at each impression, float32 [n], NaN where there is none."""
        values = self.versions.column(column).cast(pa.float32()).to_numpy()
        return gather_rows(values, self.row)

    def strings(self, column: str) -> pa.ChunkedArray:
        """A string column at each impression [n], null where there is none."""
        return self.versions.column(column).take(pa.array(self.row, mask=self.row < 0))


@dataclass(frozen=True)
class TrainingSet:
    """A log of impressions in time order and the views joined to it."""

    impressions: pa.Table
    """`schema.IMPRESSIONS` and the log's context columns, sorted by event timestamp [n]."""
    views: Mapping[str, JoinedView]

    @cached_property
    def user(self) -> Ints:
        """User codes [n], in order of first appearance, so that later rows never change them."""
        return encode_values(self.impressions.column(USER_ID))

    @cached_property
    def product(self) -> Ints:
        """Product codes [n], in order of first appearance."""
        return encode_values(self.impressions.column(PRODUCT_ID))

    @cached_property
    def time(self) -> Ints:
        """Event timestamps in microseconds since 1970 UTC [n]."""
        return self.impressions.column(EVENT_TIMESTAMP).cast(pa.int64()).to_numpy()

    @cached_property
    def clicked(self) -> NDArray[np.int8]:
        """0/1 [n]."""
        return self.impressions.column(CLICKED).to_numpy()

    def with_views(self, views: Mapping[str, JoinedView]) -> "TrainingSet":
        """The same log with other views."""
        return replace(self, views=views)


def encode_values(column: pa.ChunkedArray | pa.Array) -> Ints:
    """Codes of a column's values from 0, in order of first appearance, -1 for null [n]."""
    encoded = pc.dictionary_encode(column)
    chunks = encoded.chunks if isinstance(encoded, pa.ChunkedArray) else [encoded]
    if len(chunks) > 1:
        chunks = encoded.unify_dictionaries().chunks
    indices = pa.chunked_array([chunk.indices for chunk in chunks], pa.int32()).combine_chunks()
    return indices.fill_null(-1).to_numpy().astype(np.int64)


def gather_rows(values: NDArray[np.float32], row: Ints) -> NDArray[np.float32]:
    """`values[row]`, NaN where `row` is -1 [n, ...]."""
    return np.concatenate([values, np.full((1, *values.shape[1:]), np.nan, np.float32)])[row]


def join_views(settings: Settings, service: str, impressions: pa.Table) -> TrainingSet:
    """Join impressions, as of their own time, with every view of a feature service, through Feast.

    Args:
        settings: the deployment.
        service: name of the feature service.
        impressions: the checked log; its rows are all kept, sorted by time.

    Raises:
        VitrineError: there is no such service, or its views hold vectors of several encoder versions.
    """
    from feast.errors import FeatureServiceNotFoundException

    from feature_repo.stores.feature_store import open_feature_store

    store = open_feature_store(settings)
    try:
        features = store.get_feature_service(service)
    except FeatureServiceNotFoundException as error:
        known = ", ".join(sorted(each.name for each in store.list_feature_services())) or "none; run `feast apply`"
        raise VitrineError(f"no feature service `{service}`; there are: {known}") from error
    impressions = impressions.sort_by(EVENT_TIMESTAMP)
    keys = impressions.select([USER_ID, PRODUCT_ID, EVENT_TIMESTAMP]).to_pandas()
    # What is computed on demand is computed here of the log itself, for the placebo has to compute it again.
    on_demand = {view.name for view in store.list_on_demand_feature_views()}
    plain = [each for each in features.feature_view_projections if each.name not in on_demand]
    names = [f"{each.name_to_use()}:{feature.name}" for each in plain for feature in each.features]
    job = store.get_historical_features(keys, names, full_feature_names=True)
    views = {}
    for name, matched in job.to_normalised().views.items():
        plain = [column.removeprefix(f"{name}__") for column in matched.versions.column_names]
        since = matched.event_timestamp.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
        views[name] = JoinedView(matched.versions.rename_columns(plain), since, matched.row_index)
    data = TrainingSet(impressions, views)
    check_encoder_version(data)
    return data


def check_encoder_version(data: TrainingSet) -> str | None:
    """The one encoder version of all joined views, None where none has vectors.

    Raises:
        VitrineError: there are two; their vectors cannot be compared.
    """
    found = {
        version: name
        for name, view in data.views.items()
        if "encoder_version" in view.versions.column_names
        for version in pc.unique(pc.drop_null(view.versions.column("encoder_version"))).to_pylist()
    }
    if len(found) > 1:
        versions = " and ".join(f"{version} (in {name})" for version, name in sorted(found.items()))
        raise VitrineError(
            f"vectors of two encoder versions in one training set: {versions}; "
            "run `produce embeddings` and `produce tags` with one encoder over the whole catalogue"
        )
    return next(iter(found), None)
