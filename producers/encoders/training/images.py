"""All pictures of a catalogue decoded once: in memory, or in a file if they are many or several processes read them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from producers.encoders.geometry import Geometry
from producers.encoders.image_loader import Source, decode_images, open_decoding_pool
from producers.encoders.training.process_group import Processes

IN_MEMORY = 4 * 2**30
"""Bytes of pixels above which they lie in a file."""
AT_ONCE = 2048
PIXELS, USABLE = "pixels.npy", "usable.npy"


def decoded(
    sources: Sequence[Source],
    geometry: Geometry,
    folder: Path,
    processes: Processes,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Pixels of the usable pictures [usable, height, width, 3], and which of the sources are usable [n].

    Args:
        folder: where the file of pixels lies meanwhile; `remove` takes it away.
        processes: one decodes, the others read its file.
        progress: told how many of how many are decoded.
    """
    size = len(sources) * geometry.height * geometry.width * 3
    if processes.count == 1 and size <= IN_MEMORY:
        with open_decoding_pool() as pool:
            parts = []
            for start in range(0, len(sources), AT_ONCE):
                parts.append(decode_images(sources[start : start + AT_ONCE], geometry, pool))
                progress(min(start + AT_ONCE, len(sources)), len(sources))
        empty = np.empty((0, geometry.height, geometry.width, 3), np.uint8)
        usable = np.concatenate([np.empty(0, bool), *(part.usable for part in parts)])
        return np.concatenate([empty, *(part.pixels for part in parts)]), usable
    if processes.first:
        _to_file(sources, geometry, folder, progress)
    processes.wait()
    usable = np.load(folder / USABLE)
    return np.load(folder / PIXELS, mmap_mode="r")[: int(usable.sum())], usable


def remove(folder: Path) -> None:
    """Take the file of pixels away."""
    for name in (PIXELS, USABLE):
        (folder / name).unlink(missing_ok=True)


def _to_file(sources: Sequence[Source], geometry: Geometry, folder: Path, progress: Callable[[int, int], None]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shape = (len(sources), geometry.height, geometry.width, 3)
    pixels = open_memmap(folder / PIXELS, mode="w+", dtype=np.uint8, shape=shape)
    usable = np.zeros(len(sources), bool)
    done = 0
    with open_decoding_pool() as pool:
        for start in range(0, len(sources), AT_ONCE):
            part = decode_images(sources[start : start + AT_ONCE], geometry, pool)
            pixels[done : done + len(part.pixels)] = part.pixels
            done += len(part.pixels)
            usable[start : start + AT_ONCE] = part.usable
            progress(min(start + AT_ONCE, len(sources)), len(sources))
    pixels.flush()
    np.save(folder / USABLE, usable)
