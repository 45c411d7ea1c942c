"""A request for features: parsed from JSON, checked, and fetched from the online store. The same for Flight and HTTP.

{"service": "ranking", "user_id": "u-17", "product_ids": ["p-3", "p-8"]}
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from consumers.online.affinity import Affinity, fetch_with_affinity
from consumers.online.encoder_guard import require_one_encoder
from consumers.online.errors import UnknownFeaturesError
from consumers.online.reader import OnlineReader
from consumers.serving.metrics import Metrics
from consumers.serving.response import AFFINITY, STATUS_WORDS, FeatureResponse, build_response
from feature_repo.errors import IncompleteStoreError, InvalidInputError, NotFoundError, UnavailableError, VitrineError
from feature_repo.online.catalog import FILL_AGAIN
from feature_repo.online.feature_batch import FeatureBatch
from feature_repo.schema import PRODUCT_ID, USER_ID
from feature_repo.server.json_request import Id, describe_fault
from feature_repo.serving_limits import MAX_ID_LENGTH

MAX_DEADLINE_MS = 60_000


class FeatureRequest(BaseModel):
    """One request for features. Unknown fields and values of another type are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, cache_strings="keys")

    service: Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH, description="Name of a feature service.")]
    product_ids: Annotated[
        list[Id],
        Field(min_length=1, description="The candidates. The response has one row for each, in this order."),
    ]
    user_id: Annotated[Id | None, Field(description="Required by services that have features of the user.")] = None
    keep_stale: Annotated[
        bool, Field(description="Return the values of rows older than their view's TTL instead of nulls.")
    ] = False
    deadline_ms: Annotated[
        int | None,
        Field(ge=1, le=MAX_DEADLINE_MS, description="Time limit in milliseconds. The server's limit also applies."),
    ] = None


def parse_request(data: bytes | memoryview, max_product_ids: int) -> FeatureRequest:
    """Parse a request from JSON.

    Args:
        data: the JSON text in UTF-8.
        max_product_ids: largest number of candidates, inclusive; repeated ids count each time.

    Raises:
        InvalidInputError: `data` is not JSON, a field is missing, unknown or invalid, or there are too many candidates
            or none. The message names the first fault, and never quotes the input.
    """
    try:
        request = FeatureRequest.model_validate_json(bytes(data))
    except ValidationError as error:
        raise InvalidInputError(describe_fault(error)) from None
    if len(request.product_ids) > max_product_ids:
        raise InvalidInputError(
            f"product_ids: {len(request.product_ids):,} candidates; a request may have at most {max_product_ids:,}"
        )
    return request


def request_schema(max_product_ids: int) -> dict[str, Any]:
    """Return the JSON Schema of a request, with an example and `max_product_ids` as the most candidates."""
    schema = FeatureRequest.model_json_schema()
    schema["properties"]["product_ids"]["maxItems"] = max_product_ids
    schema["examples"] = [{"service": "ranking", "user_id": "u-17", "product_ids": ["p-3", "p-8"]}]
    return schema


class FeatureLookup:
    """Fetches the features of requests from one online store. Safe to share between threads.

    Args:
        reader: reader of the online store; the caller closes it.
        metrics: counts candidates, and rows by view and status.
        clock: returns the current time with its UTC offset.
    """

    def __init__(self, reader: OnlineReader, metrics: Metrics, clock: Callable[[], datetime]) -> None:
        self._reader = reader
        self._metrics = metrics
        self._clock = clock

    def fetch(self, request: FeatureRequest, *, is_counted: bool = True) -> FeatureResponse:
        """Return the features of a request's candidates and user.

        Args:
            request: what to fetch. Unknown products and users give rows with status "absent". A user id is ignored if
                the service has no features of the user.
            is_counted: whether the metrics count this request. One that fails is not counted.

        Returns:
            One row for each candidate, in the order of the request, and the user's row.

        Raises:
            NotFoundError: the feature service does not exist.
            InvalidInputError: the service needs an id that the request lacks or of other entities than products and
                users, or has features that only Feast computes.
            EncoderMismatchError: the rows hold vectors of two encoder versions.
            UnavailableError: the store does not answer, or the service names a view that no longer exists.
        """
        with _store_errors():
            join_keys, on_demand = self._reader.join_keys(request.service), self._reader.on_demand(request.service)
            _check_served(request, {key for keys in join_keys.values() for key in keys}, on_demand)
            batch, affinity = self._fetch(request, with_affinity=bool(on_demand))
        user_views = {name for name, keys in join_keys.items() if PRODUCT_ID not in keys}
        if is_counted:
            self._count(request, batch)
        return build_response(batch, request.product_ids, user_views, affinity)

    def list_services(self) -> dict[str, list[str]]:
        """Return the names of the views of each feature service, by the service's name.

        Services are sorted by name, and the views of each are in the service's order. Empty if there are no services.

        Raises:
            UnavailableError: the store does not answer, or a service names a view that no longer exists.
        """
        with _store_errors():
            return {name: list(self._reader.join_keys(name)) for name in self._reader.services()}

    def warm_up(self) -> None:
        """Send one request to each feature service. The metrics do not count it.

        This opens connections and imports what is imported lazily (pyarrow imports pandas if it is installed, which
        takes a second), so that the first caller does not wait for it. Errors are ignored: `ping` reports them.
        """
        with suppress(VitrineError):
            for service in self.list_services():
                with suppress(VitrineError):  # a service with features of other entities than products and users
                    request = FeatureRequest(service=service, product_ids=["nobody"], user_id="nobody")
                    self.fetch(request, is_counted=False)

    def ping(self) -> None:
        """Check that the store answers and has services with all of their views.

        Raises:
            IncompleteStoreError: it has no views or no services, or lacks a view that a service names.
            UnavailableError: it does not answer.
        """
        with _store_errors():
            self._reader.ping()
            if not self._reader.services():
                raise IncompleteStoreError(f"the online store has no feature services; {FILL_AGAIN}")

    def _fetch(self, request: FeatureRequest, *, with_affinity: bool) -> tuple[FeatureBatch, Affinity]:
        now, keep_stale = self._clock(), request.keep_stale
        if with_affinity:
            user_id = request.user_id or ""
            return fetch_with_affinity(
                self._reader, request.service, user_id, request.product_ids, now, keep_stale=keep_stale
            )
        ids: dict[str, Any] = {PRODUCT_ID: request.product_ids, USER_ID: request.user_id}
        batch = self._reader.fetch(request.service, ids, full_feature_names=True, keep_stale=keep_stale, now=now)
        require_one_encoder(batch)
        return batch, {}

    def _count(self, request: FeatureRequest, batch: FeatureBatch) -> None:
        self._metrics.candidates.labels(request.service).inc(len(request.product_ids))
        for name, view in batch.views.items():
            for status, rows in enumerate(np.bincount(view.rows.status).tolist()):
                if rows:
                    self._metrics.rows.labels(name, STATUS_WORDS[status]).inc(rows)


@contextmanager
def _store_errors() -> Iterator[None]:
    """Report a store that does not exist as unavailable: the caller named a service, and must not learn the address."""
    try:
        yield
    except UnknownFeaturesError:
        raise
    except NotFoundError as error:
        raise UnavailableError(str(error)) from error


def _check_served(request: FeatureRequest, join_keys: set[str], on_demand: tuple[str, ...]) -> None:
    """Raise InvalidInputError if the service needs ids or on-demand views that this server does not provide."""
    other_keys = sorted(join_keys - {PRODUCT_ID, USER_ID})
    if other_keys:
        raise InvalidInputError(
            f"service `{request.service}` needs {', '.join(other_keys)}; this server has features of products and "
            "users only"
        )
    if USER_ID in join_keys and request.user_id is None:
        raise InvalidInputError(f"service `{request.service}` has features of the user: give user_id")
    other_views = sorted(set(on_demand) - {AFFINITY})
    if other_views:
        raise InvalidInputError(
            f"service `{request.service}` has the on-demand view {', '.join(other_views)}, which only Feast computes"
        )
