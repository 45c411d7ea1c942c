"""The processes that train together: started by torchrun, or one alone."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed


@dataclass(frozen=True)
class Processes:
    """How many there are, and which this one is."""

    count: int
    number: int

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.number == 0

    def gathered(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of all processes, in the order of their numbers."""
        if self.count == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.count)]
        distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def averaged(self, values: list[torch.Tensor]) -> None:
        """Put the mean over all processes into each, in place."""
        if self.count > 1:
            for value in values:
                distributed.all_reduce(value)
                value /= self.count

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            distributed.barrier()


def is_first() -> bool:
    """Whether this process is the one that writes and speaks, before they are together."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def together(device: torch.device) -> Iterator[Processes]:
    """The processes that torchrun started, connected; this one alone if it started none."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(1, 0)
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(count, distributed.get_rank())
    finally:
        distributed.destroy_process_group()


def device_of_this_process() -> torch.device:
    """A GPU for each process of this machine where there are any, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")
