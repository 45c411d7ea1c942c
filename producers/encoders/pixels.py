"""Pictures decoded and cut in worker processes, which import Pillow and NumPy alone and so start at once."""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from producers.encoders.geometry import Geometry
from producers.images import UnusableImage, open_image

Source = Path | bytes
AT_ONCE = 64
"""Pictures handed to a worker at a time."""


@dataclass(frozen=True)
class Decoded:
    """Some pictures in the order asked, as far as they could be used."""

    pixels: NDArray[np.uint8]
    """[usable, height, width, 3]."""
    usable: NDArray[np.bool_]
    """Which of the asked [asked]."""
    refused: tuple[UnusableImage, ...]
    """Why not, for the others, in their order."""


@contextmanager
def decoding_processes(workers: int | None = None) -> Iterator[ProcessPoolExecutor]:
    """A pool for `decode`; one process per core if not said otherwise.

    Spawned, not forked: a fork of a process in which torch runs threads can hang.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers or os.cpu_count(), mp_context=context) as pool:
        yield pool


def decode(sources: Sequence[Source], geometry: Geometry, pool: ProcessPoolExecutor) -> Decoded:
    """Decode and cut pictures; an unusable one is refused with its reason and the rest goes on."""
    chunks = [sources[start : start + AT_ONCE] for start in range(0, len(sources), AT_ONCE)]
    parts = list(pool.map(_cut, chunks, [geometry] * len(chunks)))
    return Decoded(
        pixels=np.concatenate(
            [np.empty((0, geometry.height, geometry.width, 3), np.uint8), *(p.pixels for p in parts)]
        ),
        usable=np.concatenate([np.empty(0, bool), *(p.usable for p in parts)]),
        refused=tuple(error for part in parts for error in part.refused),
    )


def _cut(sources: Sequence[Source], geometry: Geometry) -> Decoded:
    pixels, usable, refused = [], np.ones(len(sources), bool), []
    for place, source in enumerate(sources):
        try:
            pixels.append(geometry.cut(open_image(source)))
        except UnusableImage as error:
            usable[place] = False
            refused.append(error)
    empty = np.empty((0, geometry.height, geometry.width, 3), np.uint8)
    return Decoded(np.stack(pixels) if pixels else empty, usable, tuple(refused))
