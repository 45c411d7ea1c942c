"""One line of JSON for each request: who asks is not in it, nor which products."""

import json
import logging
import threading
from datetime import UTC, datetime
from typing import TextIO

_log = logging.getLogger(__name__)


class AccessLog:
    """Lines of JSON on a stream; None keeps none. Threads may share it."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._lost = 0

    def write(self, now: datetime | None = None, **said: object) -> None:
        """One event; `now` is the clock's, if not said. A full disk, or a pipe that nobody reads, fails no request."""
        if self._stream is None:
            return
        moment = (now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": moment} | said, ensure_ascii=True) + "\n"
        with self._lock:
            try:
                self._stream.write(line)
                self._stream.flush()
            except OSError as error:
                if not self._lost:
                    _log.error("requests are not logged any more (%s), and answered all the same", error.strerror)
                self._lost += 1
            else:
                if self._lost:
                    _log.error("requests are logged again; %d lines may be lost", self._lost)
                self._lost = 0
