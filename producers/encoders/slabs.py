"""Memory that decoding processes write pictures into and the model's process reads them from, without a copy between.

At 224 pixels a picture is 150 KB: 5,000 of them a second through the pool's one pipe would keep a core busy copying.
"""

import itertools
import os
import sys
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.typing import NDArray

SERIALS = itertools.count()
MAPPED = 16
"""Slabs that a process keeps mapped."""


@dataclass(frozen=True)
class Place:
    """Where a slab is, for another process of the same user: a path to map, and the shape of what lies there."""

    path: str
    shape: tuple[int, int]
    serial: int
    """Tells a slab from an earlier one of the same path: file numbers come again."""


class Slab:
    """uint8 [pictures, most], a row a picture, shared with child processes; freed with the last that maps it.

    On Linux it is a file without a name (memfd), which a killed run cannot leave behind and which is not bounded by
    /dev/shm (64 MB in many containers); elsewhere a temporary file.
    """

    def __init__(self, pictures: int, most: int) -> None:
        """Room for some pictures of `most` bytes each; a page that is not written to takes no memory."""
        shape = (pictures, most)
        if sys.platform == "linux":
            self._file = os.fdopen(os.memfd_create("pictures"), "w+b")
            path = f"/proc/{os.getpid()}/fd/{self._file.fileno()}"
        else:
            self._file = tempfile.NamedTemporaryFile()  # noqa: SIM115  # closed by `close`
            path = self._file.name
        self._file.truncate(int(np.prod(shape)))
        self.place = Place(path, shape, next(SERIALS))
        self.rows: NDArray[np.uint8] = np.memmap(path, np.uint8, "r+", shape=shape)

    def close(self) -> None:
        """Let go of it; a process that still maps it keeps its pages."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@lru_cache(maxsize=MAPPED)
def opened(place: Place) -> NDArray[np.uint8]:
    """A slab of another process."""
    return np.memmap(place.path, np.uint8, "r+", shape=place.shape)
