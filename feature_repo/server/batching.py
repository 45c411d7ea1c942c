"""The work of several requests done in one batch: a model computes ten pictures at once faster than one by one."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Batcher(Generic[Item, Answer]):
    """Collects items for a short time and answers them in one thread, which runs until `close`.

    It does not bound its queue: its callers limit how many requests wait.

    Args:
        compute: returns the answers to items, in their order; called by one thread only.
        max_items: most items of a batch; a single request may have more.
        wait_seconds: how long the first request of a batch waits for others.
        on_batch: called with the number of items of each batch.
        name: of the thread.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Item]], list[Answer]],
        *,
        max_items: int,
        wait_seconds: float,
        on_batch: Callable[[int], None] = lambda items: None,
        name: str = "batches",
    ) -> None:
        self._compute = compute
        self._max_items = max_items
        self._wait_seconds = wait_seconds
        self._on_batch = on_batch
        self._jobs: queue.SimpleQueue[tuple[Sequence[Item], Future[list[Answer]]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether the thread takes items."""
        return self._thread.is_alive()

    def submit(self, items: Sequence[Item]) -> "Future[list[Answer]]":
        """Return the future answers to items, in their order. One that is cancelled before its batch is not computed.

        The future raises what `compute` raises.
        """
        future: Future[list[Answer]] = Future()
        self._jobs.put((items, future))
        return future

    def answer(self, items: Sequence[Item]) -> list[Answer]:
        """Return the answers to items, in their order. Blocks until they are there, and raises what `compute` does."""
        return self.submit(items).result()

    def close(self) -> None:
        """Answer what waits, and end the thread. Later items would wait for ever."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        is_open = True
        while is_open:
            batch: list[tuple[Sequence[Item], Future[list[Answer]]]] = []
            end, size = float("inf"), 0
            while size < self._max_items:
                try:
                    job = self._jobs.get(timeout=None if not batch else max(0.0, end - time.monotonic()))
                except queue.Empty:
                    break
                if job is None:
                    is_open = False
                    break
                if not job[1].set_running_or_notify_cancel():
                    continue
                if not batch:
                    end = time.monotonic() + self._wait_seconds
                batch.append(job)
                size += len(job[0])
            if batch:
                self._answer_batch(batch, size)

    def _answer_batch(self, batch: list[tuple[Sequence[Item], "Future[list[Answer]]"]], size: int) -> None:
        try:
            self._on_batch(size)
            answers = self._compute([item for items, _ in batch for item in items])
        except BaseException as error:  # the thread must go on; the callers raise it
            for _, future in batch:
                future.set_exception(error)
            return
        start = 0
        for items, future in batch:
            future.set_result(answers[start : start + len(items)])
            start += len(items)
