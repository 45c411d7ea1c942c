"""The processes that train together: started by torchrun, or one process alone."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a training, as one of them sees them.

    With a single process, the methods neither wait nor change anything.
    """

    count: int
    """Number of processes, at least 1."""
    rank: int
    """Number of this process, from 0 to `count` - 1."""

    @property
    def is_first(self) -> bool:
        """Whether this is process 0, the one that writes the files."""
        return self.rank == 0

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the rows of all processes, one after the other in the order of their ranks: [count * n, ...].

        Args:
            rows: the rows of this process [n, ...]; not changed, and returned as they are if there is one process. All
                processes must call this, with the same shape.
        """
        if self.count == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.count)]
        distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def average(self, values: list[torch.Tensor]) -> None:
        """Replace each tensor, in place, with its mean over all processes.

        Args:
            values: the tensors. All processes must call this, with tensors of the same shapes in the same order.
        """
        if self.count > 1:
            for value in values:
                distributed.all_reduce(value)
                value /= self.count

    def wait(self) -> None:
        """Block until all processes have called this."""
        if self.count > 1:
            distributed.barrier()


def is_first_process() -> bool:
    """Return whether this is the process that writes and prints. Works before `open_process_group`.

    True if torchrun has given this process the rank 0, or if torchrun did not start it.
    """
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def open_process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """Connect the processes that torchrun started; without torchrun, yield a group of this process alone.

    The group is closed at the end of the `with` block, also after an exception.

    Args:
        device: the device of this process. On GPUs the processes communicate by NCCL, otherwise by Gloo.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ProcessGroup(1, 0)
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield ProcessGroup(count, distributed.get_rank())
    finally:
        distributed.destroy_process_group()


def select_device() -> torch.device:
    """Return the device of this process: a GPU if torch finds any, else the CPU.

    The number of the GPU is the environment variable LOCAL_RANK, which torchrun sets; 0 without it.
    """
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")
