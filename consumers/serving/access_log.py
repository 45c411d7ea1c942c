"""One line of JSON for each request: who asks is not in it, nor which products."""

import json
import threading
from datetime import UTC, datetime
from typing import TextIO


class AccessLog:
    """Lines of JSON on a stream; None keeps none. Threads may share it."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def write(self, now: datetime | None = None, **said: object) -> None:
        """One event; `now` is the clock's, if not said."""
        if self._stream is None:
            return
        moment = (now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": moment} | said, ensure_ascii=True) + "\n"
        with self._lock:
            self._stream.write(line)
            self._stream.flush()
