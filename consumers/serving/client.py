"""Python clients of a feature server.

    with FlightClient("grpc://127.0.0.1:8815", "ranking") as client:
        response = client.fetch("u-17", ["p-3", "p-8"])
        vectors = matrix(response.candidates["product_embedding__fused_vector"])    # float32 [2, width]

    with PairClient("grpc://127.0.0.1:8815") as client:
        pair = {"left": {"product_id": "p-3"}, "right": {"title": "奶瓶 240ml", "picture": file.read_bytes()}}
        probability = client.score([pair])["probability"][0].as_py()

Over Flight one stream stays open between requests. A client must not be shared between threads.
docs/how-to/serve.md shows the same without this module.
"""

import base64
import http.client
import json
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.flight as flight
from numpy.typing import NDArray

from consumers.serving.response import ARROW, FeatureResponse
from feature_repo.errors import InvalidInputError, NotFoundError, UnavailableError, VitrineError

Pair = Mapping[str, Mapping[str, Any]]
"""`left` and `right`, each with `product_id`, or with some of `title`, `picture` (bytes, or base64 as text), `brand`,
`price`, `category` and `attributes`."""


class FlightStream:
    """A stream of requests over Arrow Flight that stays open between them. For one thread.

    The stream is opened by the first request, and stays open for the next ones.

    Args:
        address: grpc://host:port or grpc+tls://host:port.
        descriptor: what the requests of the stream are for.
        token: the server's bearer token; None or "" sends none.
        root_certificates: PEM of the authority that signed the server's certificate; None uses the system's.
        timeout: longest life of each stream in seconds, however many requests it carries; None is no limit. The request
            on an expired stream fails, and the one after it opens a new stream.
    """

    def __init__(
        self,
        address: str,
        descriptor: flight.FlightDescriptor,
        *,
        token: str | None = None,
        root_certificates: bytes | None = None,
        timeout: float | None = None,
    ) -> None:
        headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
        self._descriptor = descriptor
        self._options = flight.FlightCallOptions(timeout=timeout, headers=headers)
        self._client = flight.connect(address, tls_root_certs=root_certificates)
        self._stream: tuple[Any, Any] | None = None

    def request(self, data: bytes, rows: int) -> tuple[list[pa.RecordBatch], pa.Buffer | None]:
        """Send a request and return the batches of its response, and the app_metadata of the first.

        If an open stream fails because the server was restarted or its features changed, the request is sent once
        again on a new stream. Any other failure closes the stream; the next call opens a new one.

        Args:
            data: the request as JSON.
            rows: number of rows of the response.

        Raises:
            FlightError: the request failed; feature_repo/server/errors.py lists the subclass for each cause.
        """
        while True:
            is_new_stream = self._stream is None
            try:
                return self._exchange(data, rows)
            except flight.FlightUnavailableError as error:
                self._drop_stream()
                if is_new_stream or b"RESOURCE_EXHAUSTED" in error.extra_info:
                    raise
            except BaseException:
                self._drop_stream()
                raise

    def close(self) -> None:
        """Close the stream and the connection. The client cannot be used afterwards."""
        self._drop_stream()
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _exchange(self, data: bytes, rows: int) -> tuple[list[pa.RecordBatch], pa.Buffer | None]:
        if self._stream is None:
            self._stream = self._client.do_exchange(self._descriptor, self._options)
        writer, reader = self._stream
        with suppress(flight.FlightError):  # the server has ended the stream; read_chunk raises the reason
            writer.write_metadata(pa.py_buffer(data))
        chunk = reader.read_chunk()
        batches, metadata = [chunk.data], chunk.app_metadata
        missing = rows - chunk.data.num_rows
        while missing > 0:  # a long response comes in several batches
            batches.append(reader.read_chunk().data)
            missing -= batches[-1].num_rows
        return batches, metadata

    def _drop_stream(self) -> None:
        if self._stream is not None:
            writer, self._stream = self._stream[0], None
            with suppress(flight.FlightError, pa.ArrowException):  # the stream's error has been raised already
                writer.close()


class FlightClient(FlightStream):
    """Client of one feature service over Arrow Flight. For one thread.

    Args:
        address: grpc://host:port or grpc+tls://host:port.
        service: name of the feature service. Every request is for this service.
        options: `token`, `root_certificates` and `timeout` of `FlightStream`.
    """

    def __init__(self, address: str, service: str, **options: Any) -> None:
        super().__init__(address, flight.FlightDescriptor.for_command(service.encode()), **options)
        self._service = service

    def fetch(self, user_id: str | None, product_ids: Sequence[str], **more: Any) -> FeatureResponse:
        """Return the features of a user and candidates.

        If an open stream fails because the server was restarted or its features changed, the request is sent once
        again on a new stream. Any other failure closes the stream; the next call opens a new one.

        Args:
            user_id: the user; None for services without features of the user.
            product_ids: the candidates, at least one; an id may repeat. The response has one row for each, in this
                order.
            more: further fields of the request: `keep_stale`, True for the values of rows older than their view's TTL,
                which are null otherwise; `deadline_ms`, the time limit in milliseconds, 1 to 60,000. The server's own
                limit also applies.

        Returns:
            The candidates' rows and the user's row. An unknown id gives a row with nulls and the status "absent".

        Raises:
            FlightError: the request failed; feature_repo/server/errors.py lists the subclass for each cause.
        """
        data = encode_request(self._service, user_id, product_ids, **more)
        batches, metadata = self.request(data, len(product_ids))
        candidates = batches[0] if len(batches) == 1 else pa.concat_batches(batches)
        return FeatureResponse(candidates, None if metadata is None else _read_batch(pa.BufferReader(metadata)))


class PairClient(FlightStream):
    """Client over Arrow Flight that asks whether two products are the same. For one thread.

    Args:
        address: grpc://host:port or grpc+tls://host:port.
        options: `token`, `root_certificates` and `timeout` of `FlightStream`.
    """

    def __init__(self, address: str, **options: Any) -> None:
        super().__init__(address, flight.FlightDescriptor.for_path("pairs"), **options)

    def score(self, pairs: Sequence[Pair], **more: Any) -> pa.RecordBatch:
        """Return one row for each pair; consumers/serving/pairs.py lists the columns.

        Args:
            pairs: at least one pair.
            more: further fields of the request: `deadline_ms`, the time limit in milliseconds.

        Raises:
            FlightError: the request failed; feature_repo/server/errors.py lists the subclass for each cause.
        """
        batches, _ = self.request(encode_pairs(pairs, **more), len(pairs))
        return batches[0]


class HttpClient:
    """Client over HTTP, on one connection that stays open. For one thread.

    Args:
        address: http://host:port or https://host:port. A path after it is ignored.
        token: the server's bearer token; None or "" sends none.
        context: TLS settings with the authority that signed the server's certificate; None uses the system's. Ignored
            for http.
        timeout: longest wait in seconds for each step of a request: to connect, to send, to receive.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        context: ssl.SSLContext | None = None,
        timeout: float = 5.0,
    ) -> None:
        url = urlsplit(address)
        if url.scheme == "https":
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                url.netloc, timeout=timeout, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(url.netloc, timeout=timeout)
        self._headers = {"content-type": "application/json", "accept": ARROW}
        if token:
            self._headers["authorization"] = f"Bearer {token}"

    def fetch(self, service: str, user_id: str | None, product_ids: Sequence[str], **more: Any) -> FeatureResponse:
        """Return the features of a user and candidates.

        Args:
            service: name of the feature service.
            user_id: the user; None for services without features of the user.
            product_ids: the candidates, at least one; an id may repeat. The response has one row for each, in this
                order.
            more: further fields of the request: `keep_stale`, True for the values of rows older than their view's TTL,
                which are null otherwise; `deadline_ms`, the time limit in milliseconds, 1 to 60,000. The server's own
                limit also applies.

        Returns:
            The candidates' rows and the user's row. An unknown id gives a row with nulls and the status "absent".

        Raises:
            NotFoundError: the server answers 404.
            InvalidInputError: the server answers another 4xx status, except 429; 401 is a wrong or missing token.
            UnavailableError: the server answers 429 or 5xx.
            OSError: the server cannot be reached, or a step takes longer than `timeout`. Call `close` before the next
                request, which then opens a new connection.
        """
        data = self._post("/v1/features", encode_request(service, user_id, product_ids, **more))
        source = pa.BufferReader(data)
        candidates = _read_batch(source)
        return FeatureResponse(candidates, _read_batch(source) if source.tell() < len(data) else None)

    def score_pairs(self, pairs: Sequence[Pair], **more: Any) -> pa.RecordBatch:
        """Return one row for each pair of products; consumers/serving/pairs.py lists the columns.

        Args:
            pairs: at least one pair.
            more: further fields of the request: `deadline_ms`, the time limit in milliseconds.

        Raises:
            NotFoundError: the server answers 404: a product is unknown, or the server scores no pairs.
            InvalidInputError: the server answers another 4xx status, except 429; 401 is a wrong or missing token.
            UnavailableError: the server answers 429 or 5xx.
            OSError: as `fetch`.
        """
        return _read_batch(pa.BufferReader(self._post("/v1/pairs", encode_pairs(pairs, **more))))

    def _post(self, path: str, body: bytes) -> bytes:
        self._connection.request("POST", path, body, self._headers)
        response = self._connection.getresponse()
        data = response.read()
        if response.status != 200:
            raise _error_class(response.status)(f"{response.status} {data.decode(errors='replace')}")
        return data

    def close(self) -> None:
        """Close the connection. A later `fetch` opens a new one."""
        self._connection.close()


def encode_request(service: str, user_id: str | None, product_ids: Sequence[str], **more: Any) -> bytes:
    """Return a request as JSON in UTF-8. Nothing is checked; the server does that.

    Args:
        service: name of the feature service.
        user_id: the user; None leaves the field out.
        product_ids: the candidates, in the order of the response's rows.
        more: further fields of the request, as they are: `keep_stale`, `deadline_ms`.
    """
    fields: dict[str, Any] = {"service": service, "product_ids": list(product_ids), **more}
    if user_id is not None:
        fields["user_id"] = user_id
    return json.dumps(fields).encode()


def encode_pairs(pairs: Sequence[Pair], **more: Any) -> bytes:
    """Return a request for pairs as JSON in UTF-8. Nothing is checked; the server does that.

    Args:
        pairs: the pairs; a `picture` given as bytes is encoded as base64.
        more: further fields of the request, as they are: `deadline_ms`.
    """
    return json.dumps({"pairs": list(pairs), **more}, default=_encode_picture).encode()


def matrix(vectors: pa.FixedSizeListArray) -> NDArray[Any]:
    """Return vectors as an array [n, width] of the vectors' number type.

    Without nulls it is a view of the Arrow memory, and cannot be written to.

    Args:
        vectors: n numeric vectors. A null vector becomes a row of NaN; vectors with nulls must be floats. A column in
            which no row is present can have a list type without a width; it raises AttributeError.
    """
    items = vectors.flatten() if not vectors.null_count else vectors.values
    array = np.asarray(items).reshape(len(vectors), vectors.type.list_size)
    if vectors.null_count:
        array = np.where(np.asarray(vectors.is_valid())[:, None], array, np.nan).astype(array.dtype)
    return array


def _read_batch(source: pa.NativeFile) -> pa.RecordBatch:
    """Return the only batch of an IPC stream. The stream is read to its end, because another one may follow."""
    (batch,) = pa.ipc.open_stream(source)
    return batch


def _encode_picture(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} cannot be part of a request for pairs")


def _error_class(status: int) -> type[VitrineError]:
    if status == 404:
        return NotFoundError
    return InvalidInputError if status < 500 and status != 429 else UnavailableError
