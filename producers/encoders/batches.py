"""n rows through a model in batches; a batch that does not fit in memory is halved and tried again."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

logger = logging.getLogger(__name__)


class Batches:
    """Holds the batch size that has proved to fit."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._said = False

    def run(self, encode: Callable[[Any], torch.Tensor], items: Sequence[Any] | NDArray[Any]) -> NDArray[np.float32]:
        """Unit rows, float32 [n, dim], of `items` (n > 0) in their order.

        A batch that runs out of memory is halved and tried again, and the smaller size is kept; that is logged once.

        Raises:
            torch.OutOfMemoryError, RuntimeError: one item alone does not fit in memory.
        """
        rows: list[torch.Tensor] = []
        start = 0
        while start < len(items):
            batch = items[start : start + self.size]
            try:
                with torch.inference_mode():
                    rows.append(unit_rows(encode(batch).float()).cpu())
            except RuntimeError as error:
                if not _is_out_of_memory(error) or len(batch) == 1:
                    raise
                self._halve(len(batch))
                continue
            start += len(batch)
        return torch.cat(rows).numpy()

    def _halve(self, tried: int) -> None:
        self.size = tried // 2
        if not self._said:
            self._said = True
            logger.warning("a batch of %d does not fit in memory; batches are halved until they do", tried)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def unit_rows(rows: torch.Tensor) -> torch.Tensor:
    """Rows scaled to unit length; a row that is not finite or has zero length becomes NaN throughout."""
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    usable = torch.isfinite(norms) & (norms > 0)
    return torch.where(usable, rows / norms, torch.nan)


def _is_out_of_memory(error: RuntimeError) -> bool:
    # The CPU's allocator raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
