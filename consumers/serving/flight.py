"""Features over Arrow Flight, which is gRPC: Go, C++, Java and Rust have clients of it.

    do_get       the ticket is the request (ask.py) as JSON. One batch comes back; its app_metadata is an Arrow IPC
                 stream of one row with the user's own features, where the service has any.
    do_exchange  the same for many requests on one open stream, which saves the setting up of a call. Each message's
                 app_metadata is a request; for each comes one batch, as above. A stream is for one feature service: its
                 batches have one schema. A refused request ends the stream with the refusal.

Columns are as answer.py says. The token is the header `authorization: Bearer ...`; `x-request-id` names a request in
the log. All else that Flight knows is refused.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.flight as flight

from consumers.serving.auth import Door
from consumers.serving.errors import Code, Refused
from consumers.serving.executor import Desk
from consumers.serving.response import Answer, to_ipc
from feature_repo.errors import VitrineError

PROTOCOL = "flight"
_CALL = "call"
_OFFERED = (flight.FlightMethod.DO_GET, flight.FlightMethod.DO_EXCHANGE)
_ERRORS = {
    Code.UNAUTHENTICATED: flight.FlightUnauthenticatedError,
    Code.RESOURCE_EXHAUSTED: flight.FlightUnavailableError,
    Code.UNAVAILABLE: flight.FlightUnavailableError,
    Code.DEADLINE_EXCEEDED: flight.FlightTimedOutError,
    Code.CANCELLED: flight.FlightCancelledError,
    Code.INTERNAL: flight.FlightInternalError,
}


class FlightServer(flight.FlightServerBase):
    """Serves from a desk as soon as it is made; `serve()` waits for the end.

    Args:
        port: 0 takes any that is free; `port` says which.

    Raises:
        VitrineError: the address is taken, or the certificate does not fit.
    """

    def __init__(self, desk: Desk, door: Door, port: int) -> None:
        proof = door.certificate
        host = f"[{door.host}]" if ":" in door.host else door.host
        try:
            super().__init__(
                f"grpc{'+tls' if proof else ''}://{host}:{port}",
                tls_certificates=[(proof.chain.read_bytes(), proof.key.read_bytes())] if proof else [],
                middleware={_CALL: _Calls(door)},
            )
        except (pa.ArrowException, OSError) as error:
            raise VitrineError(
                f"Flight cannot listen at {host}:{port} ({str(error).splitlines()[0]}); another server may be running "
                "there: name another --flight-port, or -1 for none"
            ) from error
        self._desk = desk
        self._free = threading.BoundedSemaphore(desk.limits.streams)

    def do_get(self, context: Any, ticket: Any) -> Any:
        with _in_flights_words(), self._desk.visit(PROTOCOL, _request_id(context)) as visit:
            found = self._desk.serve(ticket.ticket, visit, _chunk)
        return flight.GeneratorStream(found[0].schema, iter([found]))

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        with _in_flights_words(), self._stream():
            self._exchange(context, reader, writer)

    @contextmanager
    def _stream(self) -> Iterator[None]:
        """One of the streams that may be open at once."""
        if not self._free.acquire(blocking=False):
            raise Refused(Code.RESOURCE_EXHAUSTED, f"{self._desk.limits.streams} streams are open; close one")
        try:
            yield
        finally:
            self._free.release()

    def _exchange(self, context: Any, reader: Any, writer: Any) -> None:
        schema = None
        while (asked := _next(reader)) is not None:
            with self._desk.visit(PROTOCOL, _request_id(context)) as visit:
                batch, user = self._desk.serve(asked, visit, _chunk)
                if schema is None:
                    schema = batch.schema
                    writer.begin(schema)
                batch = _fitted(batch, schema)
            writer.write_with_metadata(batch, user) if user else writer.write_batch(batch)


class _Calls(flight.ServerMiddlewareFactory):
    """Lets a call in, or not, and keeps its name."""

    def __init__(self, door: Door) -> None:
        super().__init__()
        self._door = door

    def start_call(self, info: Any, headers: Any) -> Any:
        with _in_flights_words():
            said = {name.lower(): values[0] for name, values in headers.items() if values}
            authorization = said.get("authorization")
            if not self._door.admits(authorization if isinstance(authorization, str) else None):
                raise Refused(Code.UNAUTHENTICATED, "wanted the header `authorization: Bearer TOKEN`")
            # Here, for pyarrow sends the traceback of whatever some of the other methods raise.
            if info.method not in _OFFERED:
                raise Refused(Code.UNIMPLEMENTED, f"{info.method.name} is not offered; DO_GET and DO_EXCHANGE are")
            return _Call(said.get("x-request-id"))


class _Call(flight.ServerMiddleware):
    """What a call's headers said."""

    def __init__(self, request_id: object) -> None:
        super().__init__()
        self.request_id = request_id if isinstance(request_id, str) else None


def _chunk(found: Answer) -> tuple[pa.RecordBatch, pa.Buffer | None]:
    return found.candidates, None if found.user is None else to_ipc(found.user)


def _fitted(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch as the stream began.

    Raises:
        Refused: a feature is of another type by now.
    """
    if batch.schema == schema:
        return batch
    if batch.schema.names != schema.names:
        raise Refused(Code.UNAVAILABLE, "the features are others than this stream's; open a new one")
    arrays = []
    for name, array in zip(batch.schema.names, batch.columns, strict=True):
        wanted = schema.field(name).type
        if wanted != array.type:
            if array.null_count < len(array):
                raise Refused(Code.UNAVAILABLE, f"feature `{name}` is of another type by now; open a new stream")
            array = pa.nulls(len(array), wanted)
        arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _next(reader: Any) -> pa.Buffer | None:
    """The next request of a stream; None at its end."""
    try:
        asked = reader.read_chunk().app_metadata
    except StopIteration:
        return None
    except (pa.ArrowException, flight.FlightError):  # garbage, or the caller is gone
        raise Refused(Code.INVALID_ARGUMENT, "wanted messages with a request as app_metadata") from None
    if asked is None:
        raise Refused(Code.INVALID_ARGUMENT, "a message without app_metadata: that is where the request stands")
    return asked


def _request_id(context: Any) -> str | None:
    call = context.get_middleware(_CALL)
    return None if call is None else call.request_id


@contextmanager
def _in_flights_words() -> Iterator[None]:
    """Refusals, and whatever else, as errors that Flight sends without a traceback."""
    try:
        yield
    except Refused as refused:
        code, message = refused.code, refused.message
    except Exception:
        code, message = Code.INTERNAL, "this went wrong here"
    else:
        return
    error = _ERRORS.get(code, flight.FlightServerError)
    raise error(f"{code.name}: {message}", code.name.encode())
