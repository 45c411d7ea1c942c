"""Where both protocols hand in requests: bounded, on time, logged, counted.

A few threads do the work: more would only take turns at the interpreter's lock. Behind them a bounded number of
requests waits; the next one is refused at once, which its caller can act on, and not after its deadline. Work that has
begun is finished whoever still waits for it, and holds its place until then: a store that hangs fills the desk and no
more.
"""

import asyncio
import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from consumers.online.reader import OnlineReader
from consumers.serving import request as asking
from consumers.serving.access_log import AccessLog
from consumers.serving.errors import Code, Refused
from consumers.serving.feature_lookup import Lookup
from consumers.serving.limits import Limits
from consumers.serving.metrics import Metrics
from consumers.serving.request import Ask
from consumers.serving.response import Answer

Form = TypeVar("Form")

_log = logging.getLogger(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass
class Visit:
    """One request, as it is logged."""

    protocol: str
    id: str
    service: str = ""
    rows: int = 0
    code: str = "OK"
    started: float = field(default_factory=time.perf_counter)


class Desk:
    """Answers requests from one online store. Threads and an event loop may share it.

    Args:
        reader: of the store; the caller closes it.
        clock: the time, with its offset from UTC.
    """

    def __init__(
        self,
        reader: OnlineReader,
        *,
        limits: Limits,
        metrics: Metrics,
        log: AccessLog,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.lookup = Lookup(reader, metrics, clock)
        self.limits = limits
        self.metrics = metrics
        self._access = log
        self._places = threading.BoundedSemaphore(limits.workers + limits.waiting)
        self._workers = ThreadPoolExecutor(limits.workers, thread_name_prefix="serving")

    def close(self) -> None:
        """End the workers once they have finished what they do."""
        self._workers.shutdown(cancel_futures=True)

    def serve(self, data: bytes | memoryview, visit: Visit, form: Callable[[Answer], Form]) -> Form:
        """The answer to a request, as `form` makes it of what was read.

        Raises:
            Refused: there is none.
        """
        ask, deadline = self._read(data, visit)
        with self._submitted(lambda: form(self.lookup.answer(ask))) as work:
            found = work.result(deadline)
        visit.rows = len(ask.product_ids)
        return found

    async def serve_async(self, data: bytes | memoryview, visit: Visit, form: Callable[[Answer], Form]) -> Form:
        """`serve`, without blocking the event loop."""
        ask, deadline = self._read(data, visit)
        with self._submitted(lambda: form(self.lookup.answer(ask))) as work:
            found = await asyncio.wait_for(asyncio.wrap_future(work), deadline)
        visit.rows = len(ask.product_ids)
        return found

    async def look(self, work: Callable[[], Form]) -> Form:
        """What `work` finds in the store: by a worker and by the deadline, like a request, and not counted as one.

        Raises:
            Refused: UNAVAILABLE, whatever the reason.
        """
        try:
            with self._submitted(work) as submitted:
                return await asyncio.wait_for(asyncio.wrap_future(submitted), self.limits.deadline)
        except Refused as refused:
            raise Refused(Code.UNAVAILABLE, refused.message) from refused

    @contextmanager
    def visit(self, protocol: str, request_id: str | None) -> Iterator[Visit]:
        """A request from its arrival to its end, which is logged and counted however it ends.

        Args:
            request_id: the caller's own; one is made up where it has none, or none that fits into a log.

        Raises:
            Refused: instead of anything unforeseen, which is logged here with its traceback.
        """
        fits = request_id is not None and _REQUEST_ID.fullmatch(request_id)
        visit = Visit(protocol, request_id if request_id and fits else uuid.uuid4().hex)
        try:
            yield visit
        except Refused as refused:
            visit.code = refused.code.name
            raise
        except Exception as error:
            visit.code = Code.INTERNAL.name
            _log.exception("request %s failed", visit.id)
            raise Refused(Code.INTERNAL, f"this went wrong here; the log says how, at request {visit.id}") from error
        except BaseException:
            visit.code = Code.CANCELLED.name
            raise
        finally:
            seconds = time.perf_counter() - visit.started
            self.metrics.requests.labels(protocol, visit.code).inc()
            self.metrics.seconds.labels(protocol).observe(seconds)
            self._access.write(
                id=visit.id,
                protocol=protocol,
                service=visit.service,
                rows=visit.rows,
                status=visit.code,
                ms=round(seconds * 1e3, 3),
            )

    def _read(self, data: bytes | memoryview, visit: Visit) -> tuple[Ask, float]:
        """The request, and the seconds that it may take from now on."""
        if len(data) > self.limits.bytes:
            raise Refused(Code.INVALID_ARGUMENT, f"a request of {len(data):,} bytes, at most {self.limits.bytes:,}")
        ask = asking.read(data, self.limits.ids)
        visit.service = ask.service
        own = self.limits.deadline if ask.deadline_ms is None else ask.deadline_ms / 1e3
        return ask, min(own, self.limits.deadline)

    @contextmanager
    def _submitted(self, work: Callable[[], Form]) -> Iterator["Future[Form]"]:
        """The work, begun as soon as a worker is free."""
        if not self._places.acquire(blocking=False):
            full = self.limits.workers + self.limits.waiting
            raise Refused(Code.RESOURCE_EXHAUSTED, f"{full:,} requests are in work or waiting; try again")
        self.metrics.in_work.inc()
        try:
            submitted = self._workers.submit(work)
        except RuntimeError:
            self._leave()
            raise Refused(Code.UNAVAILABLE, "the server is ending") from None
        submitted.add_done_callback(lambda _: self._leave())
        try:
            yield submitted
        except TimeoutError:
            raise Refused(Code.DEADLINE_EXCEEDED, "the deadline passed before the store had answered") from None
        except CancelledError:
            raise Refused(Code.UNAVAILABLE, "the server is ending") from None
        finally:
            submitted.cancel()

    def _leave(self) -> None:
        self.metrics.in_work.dec()
        self._places.release()
