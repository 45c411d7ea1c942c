"""A few threads that do the work of a server, with a bound on what waits for them.

More threads would only compete for the interpreter's lock. If the queue is full, further work is refused at once, so
that the caller can act on it, and not only after its deadline. Work that has started is finished even if nobody waits
for it any more, and it occupies its place until then: a store that hangs fills the queue and nothing else.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from prometheus_client import Gauge

from feature_repo.server.errors import ErrorCode, RequestError

Result = TypeVar("Result")


class WorkerPool:
    """Threads and a bounded queue. Safe to share between threads and an event loop; the threads run until `close`.

    Args:
        workers: number of threads.
        queue_size: work that may wait for a thread.
        in_work: counts the work in progress and waiting.
        name: prefix of the threads' names.
    """

    def __init__(self, workers: int, queue_size: int, in_work: Gauge, *, name: str) -> None:
        self._in_work = in_work
        self._capacity = workers + queue_size
        self._slots = threading.BoundedSemaphore(self._capacity)
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix=name)

    def close(self) -> None:
        """Wait until the work in progress is finished, cancel what waits, and stop the threads.

        The cancelled work and all later work fails with UNAVAILABLE.
        """
        self._workers.shutdown(cancel_futures=True)

    def run(self, work: Callable[[], Result], timeout_seconds: float) -> Result:
        """Do the work in a thread and return its result. Blocks until then, or until the deadline.

        Args:
            work: function without arguments; if it has started, it is finished even after the deadline.
            timeout_seconds: the deadline from now; it includes the wait for a thread.

        Raises:
            RequestError: RESOURCE_EXHAUSTED if the queue is full, DEADLINE_EXCEEDED, or UNAVAILABLE during shutdown.
                What the work raises is raised as it is.
        """
        with self._submit(work) as future:
            return future.result(timeout_seconds)

    async def run_async(self, work: Callable[[], Result], timeout_seconds: float) -> Result:
        """Do the same as `run` without blocking the event loop."""
        with self._submit(work) as future:
            return await asyncio.wait_for(asyncio.wrap_future(future), timeout_seconds)

    @contextmanager
    def _submit(self, work: Callable[[], Result]) -> Iterator["Future[Result]"]:
        """Queue the work for the threads. Cancel it at the end of the `with` statement unless it has started."""
        if not self._slots.acquire(blocking=False):
            raise RequestError(
                ErrorCode.RESOURCE_EXHAUSTED, f"{self._capacity:,} requests are in progress or waiting; try again"
            )
        self._in_work.inc()
        try:
            future = self._workers.submit(work)
        except RuntimeError:
            self._release()
            raise RequestError(ErrorCode.UNAVAILABLE, "the server is shutting down") from None
        future.add_done_callback(lambda _: self._release())
        try:
            yield future
        except TimeoutError:
            raise RequestError(
                ErrorCode.DEADLINE_EXCEEDED, "the deadline passed before the request was answered"
            ) from None
        except CancelledError:
            raise RequestError(ErrorCode.UNAVAILABLE, "the server is shutting down") from None
        finally:
            future.cancel()

    def _release(self) -> None:
        self._in_work.dec()
        self._slots.release()
