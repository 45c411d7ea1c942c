"""Processes that tests start, communicate with over a pipe, and kill."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any


@contextmanager
def begun(context: BaseContext, work: Callable[..., None], *arguments: Any) -> Iterator[tuple[BaseProcess, Connection]]:
    """Start a process that runs `work(pipe, *arguments)` and wait until it sends "begins"; kill it at the end."""
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, *arguments))  # type: ignore[attr-defined]
    process.start()
    theirs.close()
    assert ours.recv() == "begins"
    try:
        yield process, ours
    finally:
        process.kill()
        process.join()
