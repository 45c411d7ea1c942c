"""n rows through a model in batches; a batch that does not fit in memory is halved and tried again."""

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
    """Holds the batch size that has proved to fit, and the lanes in which batches run."""

    def __init__(self, size: int, lanes: int = 1) -> None:
        """Batches of `size` at most; those of a call run in `lanes` threads, each of them with one core to compute on.

        A small model is too quick for its steps to be worth dividing among cores: each core takes a batch of its own.
        """
        self.size = size
        self._said = threading.Lock()
        self._lanes = ThreadPoolExecutor(lanes, "lane", initializer=_alone) if lanes > 1 else None

    def run(self, encode: Callable[[Any], torch.Tensor], items: Sequence[Any] | NDArray[Any]) -> NDArray[np.float32]:
        """Unit rows, float32 [n, dim], of `items` (n > 0) in their order.

        A batch that runs out of memory is halved and tried again, and the smaller size is kept; that is logged once.

        Raises:
            torch.OutOfMemoryError, RuntimeError: one item alone does not fit in memory.
        """
        if self._lanes is None:
            return self._run(encode, items)
        parts = [items[start : start + self.size] for start in range(0, len(items), self.size)]
        return np.concatenate(list(self._lanes.map(lambda part: self._run(encode, part), parts)))

    def run_shortest_first(
        self, encode: Callable[[NDArray[np.int64]], torch.Tensor], lengths: Sequence[int] | NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """The same for n texts of these lengths, in their order: `encode` is given row numbers of like length.

        So a batch carries little padding.
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
        # Fetched at the end: a GPU is given its next batch before it has computed the one before.
        return torch.cat(rows).cpu().numpy()

    def _halve(self, tried: int) -> None:
        self.size = min(self.size, max(1, tried // 2))
        if self._said.acquire(blocking=False):  # kept for good: it is said once
            logger.warning("a batch of %d does not fit in memory; batches are halved until they do", tried)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def normalize_rows(rows: torch.Tensor) -> torch.Tensor:
    """Rows scaled to unit length; a row that is not finite or has zero length becomes NaN throughout."""
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    usable = torch.isfinite(norms) & (norms > 0)
    return torch.where(usable, rows / norms, torch.nan)


def _alone() -> None:
    torch.set_num_threads(1)


def _is_out_of_memory(error: RuntimeError) -> bool:
    # The CPU's allocator raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
