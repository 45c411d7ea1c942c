"""Logs and counts the requests of a server: one line of JSON for each, and the metrics of metrics.py."""

import json
import logging
import re
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO, cast

from feature_repo.errors import VitrineError
from feature_repo.files.private_file import append_private
from feature_repo.server.errors import ErrorCode, RequestError
from feature_repo.server.metrics import ServerMetrics

_log = logging.getLogger(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def open_access_log(access_log: str) -> AbstractContextManager[TextIO | None]:
    """Open the access log for appending, readable by its owner only. At the end a file is closed, standard output not.

    Args:
        access_log: file; `-` is standard output, and an empty text is no log.
    """
    if access_log in ("", "-"):
        return nullcontext(sys.stdout if access_log else None)
    return cast(TextIO, append_private(Path(access_log), "a", encoding="ascii"))


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
    """What is logged and counted of one request. `RequestTracker.track` creates it."""

    protocol: str
    """"http", "flight" or "page"."""
    id: str
    """The caller's id of the request, or a random one."""
    service: str = ""
    """Name of the feature service; empty until the request has been parsed, or if there is none."""
    rows: int = 0
    """Rows of the response, such as candidates; 0 until it is complete."""
    code: str = "OK"
    """The outcome: "OK" or the name of an ErrorCode."""
    started: float = field(default_factory=time.perf_counter)
    """Arrival of the request by time.perf_counter, in seconds."""


class RequestTracker:
    """Logs and counts the requests of a server. Safe to share between threads.

    Args:
        metrics: counts requests by outcome.
        access_log: gets one line for each request; the caller closes its stream.
    """

    def __init__(self, metrics: ServerMetrics, access_log: AccessLog) -> None:
        self.metrics = metrics
        self._access_log = access_log

    @contextmanager
    def track(self, protocol: str, request_id: str | None) -> Iterator[RequestContext]:
        """Log and count a request from its arrival to its end, with its outcome.

        Args:
            protocol: label of the metrics and the log: "http", "flight" or "page".
            request_id: the caller's id of the request. A new id is made if it is None or not 1 to 64 characters of
                A-Z, a-z, 0-9, `.`, `_` and `-`.

        Yields:
            The request's context.

        Raises:
            RequestError: for every Exception of the body. An OSError is logged in one line, and the caller gets
                UNAVAILABLE; an unexpected one is logged with its traceback, and the caller gets INTERNAL. Others, such
                as a cancelled task's, are raised as they are and counted as CANCELLED.
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
        except OSError as error:  # a full disk, no permission
            context.code = ErrorCode.UNAVAILABLE.name
            _log.error("request %s: a file cannot be read or written: %s", context.id, error)
            message = f"the server cannot read or write a file; its log has the reason under request {context.id}"
            raise RequestError(ErrorCode.UNAVAILABLE, message) from error
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
