"""Run n rows through a model in batches; halve a batch that does not fit in memory and try again."""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

logger = logging.getLogger(__name__)


class BatchRunner:
    """Remembers the batch size that fits in memory, and keeps the threads in which batches run."""

    def __init__(self, size: int, threads: int = 1) -> None:
        """Set up batches of at most `size` rows, run in `threads` threads that compute on one core each.

        A small model has steps too short to be divided among cores, so each core gets a batch of its own.
        """
        self.size = size
        self._has_warned = threading.Lock()
        self.threads = ThreadPoolExecutor(threads, "batch", initializer=_use_one_core) if threads > 1 else None

    def run(self, encode: Callable[[Any], torch.Tensor], items: Sequence[Any] | NDArray[Any]) -> NDArray[np.float32]:
        """Return unit rows float32 [n, dim] of n > 0 items, in their order; see `normalize_rows`.

        A batch that runs out of memory is halved and tried again. The smaller size is kept, and logged once.

        Args:
            encode: maps a slice of `items` to a tensor [rows, dim].
            items: anything that can be sliced.

        Raises:
            torch.OutOfMemoryError: a single item does not fit in memory.
            RuntimeError: the same on a CPU, or another error of the model.
        """
        if self.threads is None:
            return self._run(encode, items)
        parts = [items[start : start + self.size] for start in range(0, len(items), self.size)]
        return np.concatenate(list(self.threads.map(lambda part: self._run(encode, part), parts)))

    def run_shortest_first(
        self, encode: Callable[[NDArray[np.int64]], torch.Tensor], lengths: Sequence[int] | NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return unit rows of n texts in their order, batched by length so that batches need little padding.

        Args:
            encode: maps row numbers (into `lengths`) to a tensor [rows, dim].
            lengths: of the texts [n], in any unit.
        """
        order = np.argsort(lengths, kind="stable")
        sorted_rows = self.run(encode, order)
        rows = np.empty_like(sorted_rows)
        rows[order] = sorted_rows
        return rows

    def _run(self, encode: Callable[[Any], torch.Tensor], items: Sequence[Any] | NDArray[Any]) -> NDArray[np.float32]:
        rows: list[torch.Tensor] = []
        start = 0
        while start < len(items):
            batch = items[start : start + self.size]
            try:
                with torch.inference_mode():
                    rows.append(normalize_rows(encode(batch).float()))
            except RuntimeError as error:
                if not _is_out_of_memory(error) or len(batch) == 1:
                    raise
                self._halve(len(batch))
                continue
            start += len(batch)
        # Copied to the host only at the end: a GPU gets its next batch before it has computed the previous one.
        return torch.cat(rows).cpu().numpy()

    def _halve(self, failed_size: int) -> None:
        self.size = min(self.size, max(1, failed_size // 2))
        if self._has_warned.acquire(blocking=False):  # never released, so only one thread warns, once
            logger.warning("a batch of %d does not fit in memory; batches are halved until they fit", failed_size)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def normalize_rows(rows: torch.Tensor) -> torch.Tensor:
    """Scale rows to unit length; a row that is not finite or has length 0 becomes NaN throughout."""
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    usable = torch.isfinite(norms) & (norms > 0)
    return torch.where(usable, rows / norms, torch.nan)


def _use_one_core() -> None:
    torch.set_num_threads(1)


def _is_out_of_memory(error: RuntimeError) -> bool:
    # The CPU allocator raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
