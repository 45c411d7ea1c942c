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
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np

from consumers.affinity import Affinity, fetch_with_affinity
from consumers.block import Block
from consumers.one_encoder import MixedEncoders, refuse_two_encoders
from consumers.online import OnlineReader, UnknownFeatures
from consumers.serving import ask as asking
from consumers.serving.access_log import AccessLog
from consumers.serving.answer import AFFINITY, STATUS_WORDS, Answer, answer
from consumers.serving.ask import Ask
from consumers.serving.limits import Limits
from consumers.serving.metrics import Metrics
from consumers.serving.refusal import Code, Refused
from feature_repo.errors import VitrineError
from feature_repo.schema import PRODUCT_ID, USER_ID

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
        self.reader = reader
        self.limits = limits
        self.metrics = metrics
        self._access = log
        self._clock = clock
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
        with self._submitted(ask, visit, form) as work:
            return work.result(deadline)

    async def serve_async(self, data: bytes | memoryview, visit: Visit, form: Callable[[Answer], Form]) -> Form:
        """`serve`, without blocking the event loop."""
        ask, deadline = self._read(data, visit)
        with self._submitted(ask, visit, form) as work:
            return await asyncio.wait_for(asyncio.wrap_future(work), deadline)

    def services(self) -> dict[str, list[str]]:
        """The views of each feature service.

        Raises:
            Refused: the store does not answer.
        """
        with _store_answers():
            return {name: list(self.reader.join_keys(name)) for name in self.reader.services()}

    def warm_up(self) -> None:
        """Ask once for each feature service, so that no caller pays for connections, and what is imported when it is
        first needed: pyarrow imports pandas, where there is one, in a second. A store that does not answer yet is left
        to `check`."""
        with suppress(Refused):
            for service in self.services():
                with suppress(Refused):  # one that has features of more than products and users
                    self._answer(Ask(service=service, product_ids=["nobody"], user_id="nobody"), counted=False)

    def check(self) -> None:
        """Ask the store for something.

        Raises:
            Refused: it does not answer.
        """
        with _store_answers():
            self.reader.ping()

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
            visit.code = "CANCELLED"
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
    def _submitted(self, ask: Ask, visit: Visit, form: Callable[[Answer], Form]) -> Iterator["Future[Form]"]:
        """The work, begun as soon as a worker is free."""
        if not self._places.acquire(blocking=False):
            full = self.limits.workers + self.limits.waiting
            raise Refused(Code.RESOURCE_EXHAUSTED, f"{full:,} requests are in work or waiting; try again")
        self.metrics.in_work.inc()
        try:
            work = self._workers.submit(lambda: form(self._answer(ask)))
        except RuntimeError:
            self._leave()
            raise Refused(Code.UNAVAILABLE, "the server is ending") from None
        work.add_done_callback(lambda _: self._leave())
        try:
            yield work
        except TimeoutError:
            raise Refused(Code.DEADLINE_EXCEEDED, "the deadline passed before the features were read") from None
        except CancelledError:
            raise Refused(Code.UNAVAILABLE, "the server is ending") from None
        finally:
            work.cancel()
        visit.rows = len(ask.product_ids)

    def _leave(self) -> None:
        self.metrics.in_work.dec()
        self._places.release()

    def _answer(self, ask: Ask, *, counted: bool = True) -> Answer:
        with _store_answers():
            join_keys, on_demand = self.reader.join_keys(ask.service), self.reader.on_demand(ask.service)
        wanted = {key for keys in join_keys.values() for key in keys}
        strange = sorted(wanted - {PRODUCT_ID, USER_ID})
        if strange:
            raise Refused(Code.INVALID_ARGUMENT, f"`{ask.service}` asks for {', '.join(strange)}: not served")
        if USER_ID in wanted and ask.user_id is None:
            raise Refused(Code.INVALID_ARGUMENT, f"`{ask.service}` has features of the user: say user_id")
        unknown = sorted(set(on_demand) - {AFFINITY})
        if unknown:
            raise Refused(
                Code.INVALID_ARGUMENT, f"`{ask.service}` has {', '.join(unknown)}, which Feast alone computes"
            )
        block, affinity = self._fetch(ask, bool(on_demand))
        of_user = {name for name, keys in join_keys.items() if PRODUCT_ID not in keys}
        if counted:
            self._count(ask, block)
        return answer(block, ask.product_ids, of_user, affinity)

    def _count(self, ask: Ask, block: Block) -> None:
        self.metrics.candidates.labels(ask.service).inc(len(ask.product_ids))
        for name, view in block.views.items():
            for status, rows in enumerate(np.bincount(view.rows.status).tolist()):
                if rows:
                    self.metrics.rows.labels(name, STATUS_WORDS[status]).inc(rows)

    def _fetch(self, ask: Ask, with_affinity: bool) -> tuple[Block, Affinity]:
        with _store_answers():
            if with_affinity:
                user = ask.user_id or ""
                return fetch_with_affinity(
                    self.reader, ask.service, user, ask.product_ids, self._clock(), keep_stale=ask.keep_stale
                )
            ids = {PRODUCT_ID: ask.product_ids, USER_ID: ask.user_id}
            how: dict[str, Any] = {"full_feature_names": True, "keep_stale": ask.keep_stale, "now": self._clock()}
            block = self.reader.fetch(ask.service, ids, **how)
            refuse_two_encoders(block)
            return block, {}


@contextmanager
def _store_answers() -> Iterator[None]:
    """What goes wrong with the store, said without its address."""
    try:
        yield
    except UnknownFeatures as error:
        raise Refused(Code.NOT_FOUND, str(error)) from error
    except MixedEncoders as error:
        raise Refused(Code.UNAVAILABLE, str(error)) from error
    except VitrineError as error:
        _log.error("%s", error)
        raise Refused(Code.UNAVAILABLE, "the online store does not answer as it should; the log says how") from error
