"""The pairs of several requests scored together, because a tower encodes ten pictures faster than ten times one."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from consumers.pairs.scoring import Pair, ScoredPair

_Job = tuple[Sequence[Pair], "Future[list[ScoredPair]]"]


class PairBatcher:
    """Collects pairs for a short time and scores them in one thread, which runs until `close`.

    How many requests wait is bounded by its callers: each waits for its own.

    Args:
        score: scores pairs; called by one thread only.
        max_pairs: most pairs of a batch; a single request may have more.
        wait_seconds: how long the first request of a batch waits for others.
        on_batch: called with the number of pairs of each batch.
    """

    def __init__(
        self,
        score: Callable[[Sequence[Pair]], list[ScoredPair]],
        *,
        max_pairs: int,
        wait_seconds: float,
        on_batch: Callable[[int], None] = lambda pairs: None,
    ) -> None:
        self._score = score
        self._max_pairs = max_pairs
        self._wait_seconds = wait_seconds
        self._on_batch = on_batch
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="pair-batches", daemon=True)
        self._thread.start()

    def score(self, pairs: Sequence[Pair]) -> list[ScoredPair]:
        """Return the answers for pairs, in their order. Blocks until they are there.

        Raises:
            VitrineError: the batch cannot be scored.
        """
        future: Future[list[ScoredPair]] = Future()
        self._jobs.put((pairs, future))
        return future.result()

    def close(self) -> None:
        """Score what waits, and end the thread. Later calls of `score` would wait for ever."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        is_open = True
        while is_open:
            batch: list[_Job] = []
            end, size = float("inf"), 0
            while size < self._max_pairs:
                try:
                    job = self._jobs.get(timeout=None if not batch else max(0.0, end - time.monotonic()))
                except queue.Empty:
                    break
                if job is None:
                    is_open = False
                    break
                if not batch:
                    end = time.monotonic() + self._wait_seconds
                batch.append(job)
                size += len(job[0])
            if batch:
                self._answer(batch, size)

    def _answer(self, batch: list[_Job], size: int) -> None:
        try:
            self._on_batch(size)
            scored = self._score([pair for pairs, _ in batch for pair in pairs])
        except BaseException as error:  # the thread must go on; the callers raise it
            for _, future in batch:
                future.set_exception(error)
            return
        start = 0
        for pairs, future in batch:
            future.set_result(scored[start : start + len(pairs)])
            start += len(pairs)
