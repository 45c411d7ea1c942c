"""Features over Arrow Flight, which is gRPC and has clients in Go, C++, Java and Rust.

    do_get       the ticket is a request (request.py) as JSON. The response is one or more batches. The app_metadata of
                 the first is an Arrow IPC stream of one row with the user's own features, if the service has any.
    do_exchange  the same for many requests on one open stream, which saves the setup of a call for each request. The
                 app_metadata of each message is a request; batches, as above, answer it: as many rows as the request
                 has candidates. A stream is for one feature service, because all its batches have one schema. A failed
                 request ends the stream with its error. With the path `pairs` as descriptor the requests are for
                 pairs (pair_request.py), and one batch answers each.

A response is split so that no message is longer than response.MAX_MESSAGE_BYTES: gRPC's clients in Go, Java and other
languages refuse a message of more than 4 MiB by default.

response.py describes the columns. The header `authorization: Bearer ...` carries the token, `x-request-id` names the
request in the access log. Flight's other methods return UNIMPLEMENTED.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.flight as flight

from consumers.serving.executor import RequestExecutor
from consumers.serving.response import FeatureResponse, split_batch, to_ipc
from feature_repo.auth import ServerAccess
from feature_repo.errors import UnavailableError
from feature_repo.server.errors import ErrorCode, RequestError
from feature_repo.server.request_log import RequestContext

if TYPE_CHECKING:
    from consumers.serving.pairs import PairExecutor

PROTOCOL = "flight"
PAIRS_PATH = [b"pairs"]
"""Descriptor of a stream of requests for pairs."""
_MIDDLEWARE = "call"
_METHODS = (flight.FlightMethod.DO_GET, flight.FlightMethod.DO_EXCHANGE)
_ERRORS = {
    ErrorCode.UNAUTHENTICATED: flight.FlightUnauthenticatedError,
    ErrorCode.RESOURCE_EXHAUSTED: flight.FlightUnavailableError,
    ErrorCode.UNAVAILABLE: flight.FlightUnavailableError,
    ErrorCode.DEADLINE_EXCEEDED: flight.FlightTimedOutError,
    ErrorCode.CANCELLED: flight.FlightCancelledError,
    ErrorCode.INTERNAL: flight.FlightInternalError,
}
"""pyarrow's error for each code; FlightServerError for the others."""


_Answer = Callable[[pa.Buffer, RequestContext], tuple[list[pa.RecordBatch], pa.Buffer | None]]
"""Answers a request by batches, and by the app_metadata of the first."""


class FlightServer(flight.FlightServerBase):
    """Serves in threads of its own as soon as it is created, until `shutdown()`. `serve()` waits for that.

    Args:
        executor: answers the requests; the caller closes it. Its `limits.max_streams` is the most streams of
            `do_exchange` that may be open; calls of `do_get` do not count.
        access: host, token and certificate.
        port: port to listen on; 0 takes any free one, which the attribute `port` then holds.
        pairs: answers requests for pairs, the caller closes it; None refuses them.

    Raises:
        UnavailableError: it cannot listen: the port is taken, the host is not an address of this machine, or the
            certificate's files cannot be used.
    """

    def __init__(
        self, executor: RequestExecutor, access: ServerAccess, port: int, pairs: "PairExecutor | None" = None
    ) -> None:
        certificate = access.certificate
        host = f"[{access.host}]" if ":" in access.host else access.host
        try:
            super().__init__(
                f"grpc{'+tls' if certificate else ''}://{host}:{port}",
                tls_certificates=[(certificate.chain.read_bytes(), certificate.key.read_bytes())]
                if certificate
                else [],
                middleware={_MIDDLEWARE: _AccessMiddlewareFactory(access)},
            )
        except (pa.ArrowException, OSError) as error:
            raise UnavailableError(
                f"Flight cannot listen at {host}:{port} ({str(error).splitlines()[0]}); if another server uses the "
                "port, give another --flight-port, or -1 to serve without Flight"
            ) from error
        self._executor = executor
        self._pairs = pairs
        self._free_streams = threading.BoundedSemaphore(executor.limits.max_streams)

    def do_get(self, context: Any, ticket: Any) -> Any:
        """Answer the request in the ticket with one batch, or several if it would be too long for a message.

        Args:
            context: the call, with its headers.
            ticket: holds the request as JSON.

        Raises:
            FlightError: the request failed; errors.py lists the subclass for each cause.
        """
        with _flight_errors(), self._executor.track(PROTOCOL, _request_id(context)) as request_context:
            batches, user = self._executor.execute(ticket.ticket, request_context, _to_chunks)
        return flight.GeneratorStream(batches[0].schema, zip(batches, [user, *[None] * len(batches)], strict=False))

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """Answer the requests of a stream, in their order, until the caller closes it or one of them fails.

        Args:
            context: the call, with its headers.
            descriptor: the path PAIRS_PATH for pairs; otherwise it is not used, because each request names its service.
            reader: the requests. All must have the same result columns as the first, so in practice the same service.
            writer: gets the batches of each request.

        Raises:
            FlightError: a request failed, its columns differ from those of the first, or too many streams are open;
                errors.py lists the subclass for each cause.
        """
        with _flight_errors(), self._open_stream():
            self._exchange(context, self._choose_answer(descriptor), reader, writer)

    @contextmanager
    def _open_stream(self) -> Iterator[None]:
        """Occupy one of the streams that may be open at the same time."""
        if not self._free_streams.acquire(blocking=False):
            raise RequestError(
                ErrorCode.RESOURCE_EXHAUSTED, f"{self._executor.limits.max_streams} streams are open; close one"
            )
        try:
            yield
        finally:
            self._free_streams.release()

    def _choose_answer(self, descriptor: Any) -> _Answer:
        """Return what answers the requests of a stream."""
        if descriptor.path != PAIRS_PATH:
            return lambda data, context: self._executor.execute(data, context, _to_chunks)
        if self._pairs is None:
            raise RequestError(ErrorCode.UNIMPLEMENTED, "this server scores no pairs; it was started without --towers")
        pairs = self._pairs
        return lambda data, context: ([pairs.execute(data, context, lambda batch: batch)], None)

    def _exchange(self, context: Any, answer: _Answer, reader: Any, writer: Any) -> None:
        schema = None
        while (data := _read_request(reader)) is not None:
            with self._executor.track(PROTOCOL, _request_id(context)) as request_context:
                batches, user = answer(data, request_context)
                if schema is None:
                    schema = batches[0].schema
                    writer.begin(schema)
                batches = [_cast_to(schema, batch) for batch in batches]
            for batch in batches:
                writer.write_with_metadata(batch, user) if user else writer.write_batch(batch)
                user = None


class _AccessMiddlewareFactory(flight.ServerMiddlewareFactory):
    """Checks the token and the method of each call, and keeps its request id."""

    def __init__(self, access: ServerAccess) -> None:
        super().__init__()
        self._access = access

    def start_call(self, info: Any, headers: Any) -> Any:
        with _flight_errors():
            first_values = {name.lower(): values[0] for name, values in headers.items() if values}
            authorization = first_values.get("authorization")
            if not self._access.is_authorized(authorization if isinstance(authorization, str) else None):
                raise RequestError(ErrorCode.UNAUTHENTICATED, "send the header `authorization: Bearer TOKEN`")
            # Checked here because pyarrow sends the traceback of errors that some other methods raise.
            if info.method not in _METHODS:
                raise RequestError(
                    ErrorCode.UNIMPLEMENTED, f"{info.method.name} is not implemented; use DO_GET or DO_EXCHANGE"
                )
            return _CallMiddleware(first_values.get("x-request-id"))


class _CallMiddleware(flight.ServerMiddleware):
    """The request id from a call's headers."""

    def __init__(self, request_id: object) -> None:
        super().__init__()
        self.request_id = request_id if isinstance(request_id, str) else None


def _to_chunks(response: FeatureResponse) -> tuple[list[pa.RecordBatch], pa.Buffer | None]:
    return split_batch(response.candidates), None if response.user is None else to_ipc(response.user)


def _cast_to(schema: pa.Schema, batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch with the schema that the stream started with. Only columns without a value are converted.

    Raises:
        RequestError: UNAVAILABLE if the service has other features, or a feature has another type.
    """
    if batch.schema == schema:
        return batch
    if batch.schema.names != schema.names:
        raise RequestError(ErrorCode.UNAVAILABLE, "the service's features have changed; open a new stream")
    arrays = []
    for name, array in zip(batch.schema.names, batch.columns, strict=True):
        expected = schema.field(name).type
        if expected != array.type:
            if array.null_count < len(array):
                raise RequestError(
                    ErrorCode.UNAVAILABLE, f"the type of feature `{name}` has changed; open a new stream"
                )
            array = pa.nulls(len(array), expected)
        arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _read_request(reader: Any) -> pa.Buffer | None:
    """Return the next request of a stream; None at its end."""
    try:
        data = reader.read_chunk().app_metadata
    except StopIteration:
        return None
    except (pa.ArrowException, flight.FlightError):  # invalid bytes, or the caller has disconnected
        raise RequestError(
            ErrorCode.INVALID_ARGUMENT, "cannot read the message; expected a request as app_metadata"
        ) from None
    if data is None:
        raise RequestError(ErrorCode.INVALID_ARGUMENT, "the message has no app_metadata; send the request there")
    return data


def _request_id(context: Any) -> str | None:
    call = context.get_middleware(_MIDDLEWARE)
    return None if call is None else call.request_id


@contextmanager
def _flight_errors() -> Iterator[None]:
    """Convert every exception to an error that Flight sends without a traceback."""
    try:
        yield
    except RequestError as error:
        code, message = error.code, error.message
    except Exception:
        code, message = ErrorCode.INTERNAL, "internal error"
    else:
        return
    error_class = _ERRORS.get(code, flight.FlightServerError)
    raise error_class(f"{code.name}: {message}", code.name.encode())
