"""Executes the requests of both protocols: a bounded number at a time, with a deadline, logged and counted.

The work is done by a pool of threads (workers.py).
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from consumers.online.reader import OnlineReader
from consumers.serving.metrics import Metrics
from consumers.serving.request import FeatureLookup, FeatureRequest, parse_request
from consumers.serving.response import FeatureResponse
from feature_repo.errors import InvalidInputError, VitrineError
from feature_repo.server.errors import ErrorCode, RequestError
from feature_repo.server.request_log import AccessLog, RequestContext, RequestTracker
from feature_repo.server.workers import WorkerPool
from feature_repo.serving_limits import ServingLimits

Result = TypeVar("Result")


class RequestExecutor(RequestTracker):
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
        super().__init__(metrics, access_log)
        self.lookup = FeatureLookup(reader, metrics, clock)
        self.limits = limits
        self.max_request_bytes = limits.max_request_bytes
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
