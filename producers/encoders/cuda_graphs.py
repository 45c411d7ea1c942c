"""A tower on a GPU: shapes that never change, so that it can be compiled and captured, and copies that do not wait.

On a CPU all of it is plain calls.
"""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

Tower = Callable[..., torch.Tensor]
BUFFERS = 3
"""Pinned buffers of a shape: one filled, one on its way, one being computed from."""
WARM_UP = 3
"""Calls before a capture: libraries choose their algorithms and allocate in the first."""


class Captured:
    """A tower captured as a CUDA graph for each shape of its inputs: no time between its hundreds of steps.

    Compiled before, where torch can (it needs Triton and a C compiler). What cannot be done is said once and left.
    """

    def __init__(self, tower: Tower) -> None:
        self._ways: list[tuple[str, Callable[[tuple[torch.Tensor, ...]], Tower]]] = [
            ("compiled and captured", lambda inputs: capture(torch.compile(tower, dynamic=False), inputs)),
            ("captured", lambda inputs: capture(tower, inputs)),
            ("eager", lambda inputs: tower),
        ]
        self._towers: dict[tuple[torch.Size, ...], Tower] = {}

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        shape = tuple(each.shape for each in inputs)
        if shape not in self._towers:
            self._towers[shape] = self._prepared(inputs)
        return self._towers[shape](*inputs)

    def _prepared(self, inputs: tuple[torch.Tensor, ...]) -> Tower:
        while True:
            name, way = self._ways[0]
            try:
                return way(inputs)
            except torch.OutOfMemoryError:
                raise  # the batch is at fault, not the way: it is halved
            except Exception as error:
                if len(self._ways) == 1:
                    raise
                logger.warning("the model runs not %s but %s: %s", name, self._ways[1][0], str(error).split("\n")[0])
                del self._ways[0]


def capture(tower: Tower, inputs: tuple[torch.Tensor, ...]) -> Tower:
    """`tower` for inputs of these shapes, replayed from a CUDA graph."""
    held = [each.clone() for each in inputs]
    beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(WARM_UP):
            tower(*held)
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = tower(*held)

    def replay(*given: torch.Tensor) -> torch.Tensor:
        for place, each in zip(held, given, strict=True):
            place.copy_(each)
        graph.replay()
        return result.clone()

    return replay


class Sent:
    """Arrays to the device: to a GPU through pinned memory, without waiting for what it computes."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._buffers: dict[Any, list[tuple[torch.Tensor, torch.cuda.Event]]] = {}

    def __call__(self, array: NDArray[Any]) -> torch.Tensor:
        here = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type != "cuda":
            return here.to(self.device)
        ring = self._buffers.setdefault((here.shape, here.dtype), [])
        if len(ring) < BUFFERS:
            ring.append((torch.empty_like(here, pin_memory=True), torch.cuda.Event()))  # type: ignore[no-untyped-call]
            buffer, copied = ring[-1]
        else:
            ring.append(ring.pop(0))
            buffer, copied = ring[-1]
            copied.synchronize()  # of three copies ago
        buffer.copy_(here)
        there = buffer.to(self.device, non_blocking=True)
        copied.record()
        return there


def filled(rows: NDArray[Any], size: int) -> NDArray[Any]:
    """`rows` followed by copies of the last one up to `size` rows: a batch of the shape that was captured."""
    return rows if len(rows) == size else np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])
