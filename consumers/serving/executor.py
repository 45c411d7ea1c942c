"""Executes the requests of both protocols: a bounded number at a time, with a deadline, logged and counted.

The work is done by a pool of threads (workers.py).
"""

import json
import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TextIO, TypeVar

from consumers.online.reader import OnlineReader
from consumers.serving.errors import ErrorCode, RequestError
from consumers.serving.metrics import Metrics
from consumers.serving.request import FeatureLookup, FeatureRequest, parse_request
from consumers.serving.response import FeatureResponse
from consumers.serving.workers import WorkerPool
from feature_repo.errors import InvalidInputError, VitrineError
from feature_repo.serving_limits import ServingLimits

Result = TypeVar("Result")

_log = logging.getLogger(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class AccessLog:
    """Writes one line of JSON for each request. Safe to share between threads.

    A line holds no user or product ids. If writing fails (a full disk, a closed pipe), the failure is logged once and
    no request fails.

    Args:
        stream: text stream to write to; None writes nothing.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._lost_lines = 0

    def write(self, now: datetime | None = None, **fields: object) -> None:
        """Write one line: `time`, then the fields in the order given.

        Args:
            now: time of the event with its UTC offset; None is the current time. It is written in UTC as ISO 8601 with
                milliseconds.
            fields: values that JSON can hold; any other raises TypeError.
        """
        if self._stream is None:
            return
        timestamp = (now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": timestamp} | fields, ensure_ascii=True) + "\n"
        with self._lock:
            try:
                self._stream.write(line)
                self._stream.flush()
            except OSError as error:
                if not self._lost_lines:
                    _log.error("cannot write the access log (%s); requests are answered without it", error.strerror)
                self._lost_lines += 1
            else:
                if self._lost_lines:
                    _log.error("the access log can be written again; %d lines may be lost", self._lost_lines)
                self._lost_lines = 0


@dataclass
class RequestContext:
    """What is logged and counted of one request. `RequestExecutor.track` creates it."""

    protocol: str
    """"http" or "flight"."""
    id: str
    """The caller's id of the request, or a random one."""
    service: str = ""
    """Name of the feature service; empty until the request has been parsed."""
    rows: int = 0
    """Candidates in the response; 0 until it is complete."""
    code: str = "OK"
    """The outcome: "OK" or the name of an ErrorCode."""
    started: float = field(default_factory=time.perf_counter)
    """Arrival of the request by time.perf_counter, in seconds."""


class RequestExecutor:
    """Answers requests from one online store. Safe to share between threads and an event loop.

    Its worker threads run until `close`.

    Args:
        reader: reader of the online store; the caller closes it.
        limits: how many requests are processed and may wait, and how long they may take.
        metrics: counts requests by outcome.
        access_log: gets one line for each request; the caller closes its stream.
        clock: returns the current time with its UTC offset.
    """

    def __init__(
        self,
        reader: OnlineReader,
        *,
        limits: ServingLimits,
        metrics: Metrics,
        access_log: AccessLog,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.lookup = FeatureLookup(reader, metrics, clock)
        self.limits = limits
        self.metrics = metrics
        self.max_request_bytes = limits.max_request_bytes
        self._access_log = access_log
        self._pool = WorkerPool(limits.workers, limits.queue_size, metrics.in_work, name="serving")

    def close(self) -> None:
        """Wait until the work in progress is finished, cancel what waits, and stop the workers.

        The cancelled requests and all later ones fail with UNAVAILABLE.
        """
        self._pool.close()

    def execute(
        self, data: bytes | memoryview, context: RequestContext, encode: Callable[[FeatureResponse], Result]
    ) -> Result:
        """Answer a request. Blocks until the response is encoded or the deadline has passed.

        The deadline is the server's, or the request's if that is earlier; it includes the wait for a worker. Work that
        has started is finished even after the deadline, and its result is dropped.

        Args:
            data: the request as JSON.
            context: from `track`; gets the service and, if the request succeeds, the number of candidates.
            encode: converts the response in the worker thread; its result is returned.

        Raises:
            VitrineError: the request is invalid or too long, or its features cannot be fetched.
            RequestError: RESOURCE_EXHAUSTED if the queue is full, DEADLINE_EXCEEDED, or UNAVAILABLE during shutdown.
        """
        request, timeout = self._parse(data, context)
        result = self._pool.run(lambda: encode(self.lookup.fetch(request)), timeout)
        context.rows = len(request.product_ids)
        return result

    async def execute_async(
        self, data: bytes | memoryview, context: RequestContext, encode: Callable[[FeatureResponse], Result]
    ) -> Result:
        """Answer a request without blocking the event loop.

        The deadline is the server's, or the request's if that is earlier; it includes the wait for a worker. Work that
        has started is finished even after the deadline, and its result is dropped.

        Args:
            data: the request as JSON.
            context: from `track`; gets the service and, if the request succeeds, the number of candidates.
            encode: converts the response in the worker thread; its result is returned.

        Raises:
            VitrineError: the request is invalid or too long, or its features cannot be fetched.
            RequestError: RESOURCE_EXHAUSTED if the queue is full, DEADLINE_EXCEEDED, or UNAVAILABLE during shutdown.
        """
        request, timeout = self._parse(data, context)
        result = await self._pool.run_async(lambda: encode(self.lookup.fetch(request)), timeout)
        context.rows = len(request.product_ids)
        return result

    async def run_untracked(self, work: Callable[[], Result]) -> Result:
        """Run `work` in a worker with the server's deadline, and return its result.

        It is neither logged nor counted as a request, but it occupies a worker or a place in the queue like one.

        Args:
            work: function without arguments; if it has started, it is finished even after the deadline.

        Raises:
            RequestError: UNAVAILABLE, if the work raises a VitrineError, the queue is full, the deadline passes or the
                server is shutting down. Other exceptions of the work are raised as they are.
        """
        try:
            return await self._pool.run_async(work, self.limits.deadline_seconds)
        except VitrineError as error:
            raise RequestError(ErrorCode.UNAVAILABLE, RequestError.from_error(error).message) from error
        except RequestError as error:
            raise RequestError(ErrorCode.UNAVAILABLE, error.message) from error

    @contextmanager
    def track(self, protocol: str, request_id: str | None) -> Iterator[RequestContext]:
        """Log and count a request from its arrival to its end, with its outcome.

        Args:
            protocol: label of the metrics and the log, "http" or "flight".
            request_id: the caller's id of the request. A new id is made if it is None or not 1 to 64 characters of
                A-Z, a-z, 0-9, `.`, `_` and `-`.

        Yields:
            The request's context, for `execute`.

        Raises:
            RequestError: for every Exception of the body. An unexpected one is logged with its traceback and the caller
                gets INTERNAL. Others, such as a cancelled task's, are raised as they are and counted as CANCELLED.
        """
        is_valid = request_id is not None and _REQUEST_ID.fullmatch(request_id)
        context = RequestContext(protocol, request_id if request_id and is_valid else uuid.uuid4().hex)
        try:
            yield context
        except RequestError as error:
            context.code = error.code.name
            raise
        except VitrineError as error:
            response = RequestError.from_error(error)
            context.code = response.code.name
            raise response from error
        except Exception as error:
            context.code = ErrorCode.INTERNAL.name
            _log.exception("request %s failed", context.id)
            raise RequestError(
                ErrorCode.INTERNAL, f"internal error; the server's log has the traceback of request {context.id}"
            ) from error
        except BaseException:
            context.code = ErrorCode.CANCELLED.name
            raise
        finally:
            seconds = time.perf_counter() - context.started
            self.metrics.requests.labels(protocol, context.code).inc()
            self.metrics.seconds.labels(protocol).observe(seconds)
            self._access_log.write(
                id=context.id,
                protocol=protocol,
                service=context.service,
                rows=context.rows,
                status=context.code,
                ms=round(seconds * 1e3, 3),
            )

    def _parse(self, data: bytes | memoryview, context: RequestContext) -> tuple[FeatureRequest, float]:
        """Return the request and its time limit in seconds."""
        if len(data) > self.max_request_bytes:
            raise InvalidInputError(
                f"the request has {len(data):,} bytes; it may have at most {self.max_request_bytes:,}"
            )
        request = parse_request(data, self.limits.max_product_ids)
        context.service = request.service
        limit = self.limits.deadline_seconds
        return request, limit if request.deadline_ms is None else min(limit, request.deadline_ms / 1e3)
