"""Graceful shutdown. SIGTERM exits with 0; Ctrl-C (SIGINT) raises KeyboardInterrupt.

In both cases the requests in progress are finished and open resources are closed. The signal handlers of uvicorn and
Arrow Flight are not used: uvicorn raises the signal again, which kills the process, and Arrow Flight's server raises an
error from its wait.

The supervisor of several processes uses this module too, and imports no web framework for it.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Shutdown:
    """Records the first signal, and calls the stop function at every signal. `graceful_shutdown` yields it."""

    def __init__(self) -> None:
        self.signal: int | None = None
        """Number of the first signal received; None if there was none."""
        self._stop: Callable[[], None] | None = None

    def on_signal(self, stop: Callable[[], None]) -> None:
        """Call `stop`, in place of an earlier function, at each signal from now on.

        Args:
            stop: must return at once, and only ask the running work to stop. It runs in the main thread.
        """
        self._stop = stop

    def _handle(self, number: int, frame: FrameType | None) -> None:
        is_first, self.signal = self.signal is None, self.signal or number
        if self._stop is not None:
            self._stop()
        elif is_first:
            raise _StartAborted


class _StartAborted(BaseException):
    """A signal arrived during the start, before there was anything to finish."""


@contextmanager
def graceful_shutdown() -> Iterator[Shutdown]:
    """Handle SIGTERM and SIGINT during a `with` statement, which must be in the main thread (ValueError elsewhere).

    A signal that this process was started to ignore stays ignored. Before `Shutdown.on_signal` is called, a signal
    aborts the body of the `with` statement; later it only calls the stop function. At the end the former handlers are
    back.

    Raises:
        KeyboardInterrupt: at the end, if the first signal was SIGINT. After SIGTERM nothing is raised.
    """
    shutdown = Shutdown()
    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    replaced = {number: handler for number, handler in previous.items() if handler is not signal.SIG_IGN}
    try:
        for number in replaced:
            signal.signal(number, shutdown._handle)
        yield shutdown
    except _StartAborted:
        pass
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)
    if shutdown.signal == signal.SIGINT:
        raise KeyboardInterrupt
