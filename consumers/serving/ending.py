"""Told to end: by SIGTERM, after which all is as it should be, or by Ctrl-C, of which is said that it was that.

Either way what is in work is finished first, and what was opened is closed, whatever the libraries make of a signal:
uvicorn raises it once more, by which a process dies where it stands, and Arrow's server ends its waiting by an error.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Ending:
    """Whether this process was told to end, and what then comes first."""

    def __init__(self) -> None:
        self.signal: int | None = None
        """By which signal it was told first."""
        self._end: Callable[[], None] | None = None

    def by(self, end: Callable[[], None]) -> None:
        """From now on `end` is called when told, each time; it only says so to what runs, and returns at once."""
        self._end = end

    def _told(self, number: int, frame: FrameType | None) -> None:
        first, self.signal = self.signal is None, self.signal or number
        if self._end is not None:
            self._end()
        elif first:
            raise _BrokenOff


class _BrokenOff(BaseException):
    """Told to end before anything ran that could finish."""


@contextmanager
def heeded() -> Iterator[Ending]:
    """Listen to SIGTERM and SIGINT in the main thread, unless this process was started to ignore it.

    Told before `Ending.by` says what comes first, the work is broken off where it stands.

    Raises:
        KeyboardInterrupt: in the end, if told by SIGINT.
    """
    ending = Ending()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    listened = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    try:
        for number in listened:
            signal.signal(number, ending._told)
        yield ending
    except _BrokenOff:
        pass
    finally:
        for number, handler in listened.items():
            signal.signal(number, handler)
    if ending.signal == signal.SIGINT:
        raise KeyboardInterrupt
