"""Where and how a model runs: device, dtype, compiled or not. No other module depends on the kind of device.

A compiled model takes batches of one shape: rows are padded to the batch size, and texts to a multiple of LENGTH_STEP.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from feature_repo.errors import UsageError

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
GPU_BATCH = 256
"""Images or texts per batch on a GPU."""
LENGTH_STEP = 16
"""Texts of a compiled model are padded to a multiple of this length, because it is compiled once for each shape."""

Tower = Callable[..., torch.Tensor]


@dataclass(frozen=True)
class Runtime:
    """Where and how a model runs."""

    device: torch.device
    dtype: torch.dtype
    """Of weights and activations."""
    is_compiled: bool
    """Whether `compile` compiles."""

    @property
    def has_accelerator(self) -> bool:
        """Whether the model runs elsewhere than on the CPU."""
        return self.device.type != "cpu"

    @property
    def threads(self) -> int:
        """Number of batches that run at once: on a CPU one for each of torch's threads, else 1."""
        return 1 if self.has_accelerator else torch.get_num_threads()

    def batch_size(self, on_cpu: int) -> int:
        """Return the number of rows of a batch: `on_cpu` on a CPU, GPU_BATCH elsewhere."""
        return GPU_BATCH if self.has_accelerator else on_cpu

    def compile(self, tower: Tower) -> Tower:
        """Return the tower compiled if `is_compiled`, else the tower itself."""
        return CompiledTower(tower) if self.is_compiled else tower

    def pad(self, rows: NDArray[Any], size: int) -> NDArray[Any]:
        """Return rows padded to the batch size if `is_compiled`, else the rows themselves."""
        return pad_batch(rows, size) if self.is_compiled else rows

    def move(self, array: NDArray[Any]) -> torch.Tensor:
        """Return an array as a tensor on the device. The copy to a GPU does not wait for its current work."""
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)


def choose_runtime(device: str | None = None, dtype: str | None = None, is_compiled: bool | None = None) -> Runtime:
    """Return where and how a model runs, with defaults for what is None.

    Args:
        device: such as "cpu" or "cuda:0"; the default is the first GPU, or the CPU if there is none.
        dtype: a key of DTYPES; the default is bfloat16 on a GPU and float32 on a CPU.
        is_compiled: whether the model is compiled; the default is True on a GPU and False on a CPU.

    Raises:
        UsageError: `dtype` is not a key of DTYPES.
        RuntimeError: torch does not know the device.
    """
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    on_gpu = target.type == "cuda"
    name = dtype or ("bfloat16" if on_gpu else "float32")
    if name not in DTYPES:
        raise UsageError(f"--dtype is {name!r}; expected one of {', '.join(DTYPES)}")
    return Runtime(target, DTYPES[name], on_gpu if is_compiled is None else is_compiled)


class CompiledTower:
    """A tower compiled with `torch.compile`, which on a GPU replays it as a CUDA graph.

    It is compiled for each shape of its inputs. If it cannot be compiled (torch needs a C++ compiler, and Triton on a
    GPU), that is logged once and the tower runs uncompiled from then on.
    """

    def __init__(self, tower: Tower, *, backend: str | Callable[..., Any] = "inductor") -> None:
        """Wrap a tower; it is compiled at its first call.

        Args:
            tower: function from tensors to a tensor [n, dim].
            backend: what compiles it: the argument `backend` of `torch.compile`.
        """
        self._tower = tower
        mode = "reduce-overhead" if backend == "inductor" else None  # the other backends have no modes
        self._compiled: Tower = torch.compile(tower, backend=backend, mode=mode, dynamic=False)
        self.is_compiled = True
        """False once a compilation has failed."""

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Return what the tower returns, as a tensor of its own; inputs of a new shape are compiled for first.

        Raises:
            OutOfMemoryError: the GPU has too little memory for the inputs. Any other error of the compiled tower is
                logged, and the tower runs uncompiled.
        """
        if self.is_compiled:
            try:
                torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
                return self._compiled(*inputs).clone()  # a copy, because the next replay overwrites the output
            except torch.OutOfMemoryError:
                raise  # BatchRunner halves the batch
            except Exception as error:
                logger.warning(
                    "the model cannot be compiled and runs uncompiled: %s; torch.compile needs a C++ compiler such as "
                    "g++, and Triton on a GPU",
                    " ".join(str(error).split())[:200],
                )
                self.is_compiled = False
        return self._tower(*inputs)


def pad_batch(rows: NDArray[Any], size: int) -> NDArray[Any]:
    """Append copies of the last row up to `size` rows, so that every batch has the shape that was compiled.

    Args:
        rows: array [n, ...] with 0 < n <= `size`; returned itself if n is `size`.
        size: number of rows of the result.
    """
    return rows if len(rows) == size else np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])
