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
    """Runs n rows through a model in batches, and remembers the batch size that fits in memory."""

    def __init__(self, size: int, threads: int = 1, *, is_unit: bool = True) -> None:
        """Set up batches.

        Args:
            size: largest number of rows in a batch, at least 1.
            threads: how many batches run at once, each in a thread that computes on one core. A small model has steps
                too short to be divided among cores, so each core gets a batch of its own. 1 runs batches in the
                caller's thread, on as many cores as torch takes.
            is_unit: scale rows to unit length; False returns them as the model gives them.
        """
        self.size = size
        """Largest number of rows in a batch; falls when a batch does not fit in memory."""
        self._finish = normalize_rows if is_unit else torch.clone
        self._has_warned = threading.Lock()
        self.threads = ThreadPoolExecutor(threads, "batch", initializer=_use_one_core) if threads > 1 else None

    def run(self, encode: Callable[[Any], torch.Tensor], items: Sequence[Any] | NDArray[Any]) -> NDArray[np.float32]:
        """Return unit rows float32 [n, dim] of n items, in their order.

        A row for which the model gives a vector that is not finite, or has length 0, is NaN throughout.
        A batch that runs out of memory is halved and tried again. The smaller size is kept for all later calls, and
        logged once.

        Args:
            encode: maps a part of `items`, `size` of them at most, to a tensor [rows, dim]. With several
                threads it is called by several at once.
            items: a list, an array, or anything else that can be sliced; at least one item.

        Raises:
            OutOfMemoryError: a single item does not fit in the memory of a GPU.
            RuntimeError: the same on a CPU, or another error of the model.
        """
        if self.threads is None:
            return self._run(encode, items)
        parts = [items[start : start + self.size] for start in range(0, len(items), self.size)]
        return np.concatenate(list(self.threads.map(lambda part: self._run(encode, part), parts)))

    def run_shortest_first(
        self, encode: Callable[[NDArray[np.int64]], torch.Tensor], lengths: Sequence[int] | NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return unit rows float32 [n, dim] of n texts in the order of `lengths`.

        Texts of similar length form a batch, so that batches need little padding. A row that the model cannot compute
        is NaN throughout, and a batch that runs out of memory is halved.

        Args:
            encode: maps positions in `lengths`, `size` of them at most, to a tensor [rows, dim].
            lengths: length of each text [n], in any unit; at least one.

        Raises:
            OutOfMemoryError: a single text does not fit in the memory of a GPU.
            RuntimeError: the same on a CPU, or another error of the model.
        """
        order = np.argsort(lengths, kind="stable")
        sorted_rows = self.run(encode, order)
        rows = np.empty_like(sorted_rows)
        rows[order] = sorted_rows
        return rows

    def _run(self, encode: Callable[[Any], torch.Tensor], items: Sequence[Any] | NDArray[Any]) -> NDArray[np.float32]:
        """Do what `run` says, in the calling thread."""
        rows: list[torch.Tensor] = []
        start = 0
        while start < len(items):
            batch = items[start : start + self.size]
            try:
                with torch.inference_mode():
                    rows.append(self._finish(encode(batch).float()))
            except RuntimeError as error:
                if not _is_out_of_memory(error) or len(batch) == 1:
                    raise
                self._halve(len(batch))
                continue
            start += len(batch)
        # Copied to the host only at the end: a GPU gets its next batch before it has computed the previous one.
        return torch.cat(rows).cpu().numpy()

    def _halve(self, failed_size: int) -> None:
        """Lower `size` to half of a batch that did not fit in memory, at least 1, and log the first such batch."""
        self.size = min(self.size, max(1, failed_size // 2))
        if self._has_warned.acquire(blocking=False):  # never released, so only one thread warns, once
            logger.warning("a batch of %d does not fit in memory; batches are halved until they fit", failed_size)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def normalize_rows(rows: torch.Tensor) -> torch.Tensor:
    """Return rows [n, dim] scaled to unit length; one that is not finite or has length 0 becomes NaN throughout.

    The result is a new tensor of the same dtype; n may be 0.
    """
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    usable = torch.isfinite(norms) & (norms > 0)
    return torch.where(usable, rows / norms, torch.nan)


def _use_one_core() -> None:
    """Let torch compute on one core in the calling thread."""
    torch.set_num_threads(1)


def _is_out_of_memory(error: RuntimeError) -> bool:
    # The CPU allocator raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
