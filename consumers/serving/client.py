"""Asking a server, from Python.

    with FlightClient("grpc://127.0.0.1:8815", "ranking") as client:
        found = client.fetch("u-17", ["p-3", "p-8"])
        vectors = matrix(found.candidates["product_embedding__fused_vector"])    # float32 [2, width]

Over Flight one stream stays open between requests; a client is for one thread. docs/serving.md shows the same without
this module.
"""

import http.client
import json
import ssl
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.flight as flight
from numpy.typing import NDArray

from consumers.serving.response import ARROW, Answer
from feature_repo.errors import VitrineError


class FlightClient:
    """Asks one feature service over Arrow Flight.

    Args:
        address: grpc://host:port, or grpc+tls://host:port.
        service: the feature service.
        token: the server's, if it wants one.
        root_certificates: PEM of who vouches for the server, if the system does not know them.
        timeout: seconds for each stream to live at most; None: as long as it is used.
    """

    def __init__(
        self,
        address: str,
        service: str,
        *,
        token: str | None = None,
        root_certificates: bytes | None = None,
        timeout: float | None = None,
    ) -> None:
        headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
        self._service = service
        self._options = flight.FlightCallOptions(timeout=timeout, headers=headers)
        self._client = flight.connect(address, tls_root_certs=root_certificates)
        self._stream: tuple[Any, Any] | None = None

    def fetch(self, user_id: str | None, product_ids: Sequence[str], **more: Any) -> Answer:
        """The features of a user and candidates; `more` is of the request (ask.py).

        Raises:
            pyarrow.flight.FlightError: the request is refused; see refusal.py.
        """
        asked = request(self._service, user_id, product_ids, **more)
        fresh = self._stream is None
        try:
            return self._exchange(asked)
        except flight.FlightUnavailableError as error:
            self._drop()
            if fresh or b"RESOURCE_EXHAUSTED" in error.extra_info:
                raise
        except BaseException:
            self._drop()
            raise
        return self._exchange(asked)  # the stream was one to a server that has ended since, or of other features

    def close(self) -> None:
        self._drop()
        self._client.close()

    def __enter__(self) -> "FlightClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _exchange(self, asked: bytes) -> Answer:
        if self._stream is None:
            command = flight.FlightDescriptor.for_command(self._service.encode())
            self._stream = self._client.do_exchange(command, self._options)
        writer, reader = self._stream
        with suppress(flight.FlightError):  # the server has ended the stream: reading says why
            writer.write_metadata(pa.py_buffer(asked))
        chunk = reader.read_chunk()
        return Answer(chunk.data, None if chunk.app_metadata is None else _only(chunk.app_metadata))

    def _drop(self) -> None:
        if self._stream is not None:
            writer, self._stream = self._stream[0], None
            with suppress(flight.FlightError, pa.ArrowException):  # how it ended has been raised
                writer.close()


class HttpClient:
    """Asks over HTTP, on one connection that stays open. For one thread.

    Args:
        address: http://host:port, or https://host:port.
        token: the server's, if it wants one.
        context: who vouches for the server, if the system does not know them.
        timeout: seconds for each step of a request.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        context: ssl.SSLContext | None = None,
        timeout: float = 5.0,
    ) -> None:
        place = urlsplit(address)
        if place.scheme == "https":
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                place.netloc, timeout=timeout, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(place.netloc, timeout=timeout)
        self._headers = {"content-type": "application/json", "accept": ARROW}
        if token:
            self._headers["authorization"] = f"Bearer {token}"

    def fetch(self, service: str, user_id: str | None, product_ids: Sequence[str], **more: Any) -> Answer:
        """The features of a user and candidates.

        Raises:
            VitrineError: the request is refused.
        """
        body = request(service, user_id, product_ids, **more)
        self._connection.request("POST", "/v1/features", body, self._headers)
        response = self._connection.getresponse()
        data = response.read()
        if response.status != 200:
            raise VitrineError(f"{response.status} {data.decode(errors='replace')}")
        source = pa.BufferReader(data)
        candidates = _one(source)
        return Answer(candidates, _one(source) if source.tell() < len(data) else None)

    def close(self) -> None:
        self._connection.close()


def request(service: str, user_id: str | None, product_ids: Sequence[str], **more: Any) -> bytes:
    """A request as JSON."""
    asked: dict[str, Any] = {"service": service, "product_ids": list(product_ids), **more}
    if user_id is not None:
        asked["user_id"] = user_id
    return json.dumps(asked).encode()


def matrix(vectors: pa.FixedSizeListArray) -> NDArray[Any]:
    """[n, width], without a copy where no row is missing; a missing row of floats is NaN."""
    items = vectors.flatten() if not vectors.null_count else vectors.values
    found = np.asarray(items).reshape(len(vectors), vectors.type.list_size)
    if vectors.null_count:
        found = np.where(np.asarray(vectors.is_valid())[:, None], found, np.nan).astype(found.dtype)
    return found


def _one(source: pa.NativeFile) -> pa.RecordBatch:
    """The only batch of a stream, which is read to its end: another may follow."""
    (batch,) = pa.ipc.open_stream(source)
    return batch


def _only(stream: pa.Buffer) -> pa.RecordBatch:
    return _one(pa.BufferReader(stream))
