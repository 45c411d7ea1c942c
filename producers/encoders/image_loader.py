"""Pictures decoded in worker processes, which import Pillow, NumPy and LMDB alone and so start at once.

A picture that is not much larger than the model wants is handed over as it is and cut with others of its size
(cutting.py); a larger one is cut where it was decoded, so that less memory has to be carried.
"""

import itertools
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from feature_repo.images import UnusableImageError, min_decoded_side, open_image, open_pixels
from producers.encoders.geometry import Geometry

Source = Path | bytes
Key = TypeVar("Key")
AT_ONCE = 64
"""Pictures handed to a worker at a time."""
SERIALS = itertools.count()
MAPPED = 16
"""Slabs that a process keeps mapped."""
CUT_LATER = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
"""Kernels that resize.py has too."""


@dataclass(frozen=True)
class DecodedImages:
    """Some pictures in the order asked, as far as they could be used."""

    pixels: NDArray[np.uint8]
    """[usable, height, width, 3]."""
    usable: NDArray[np.bool_]
    """Which of the asked [asked]."""
    refused: tuple[UnusableImageError, ...]
    """Why not, for the others, in their order."""


@dataclass(frozen=True)
class DecodedBatch(Generic[Key]):
    """Some pictures decoded."""

    key: Key
    pixels: NDArray[np.uint8] | None
    """[asked, height, width, 3], zeros where a picture is unusable; none where there is no geometry."""
    images: Sequence[Image.Image]
    """Where there is no geometry: the usable pictures, RGB of any size."""
    usable: NDArray[np.bool_]
    """[asked]."""
    refused: tuple[UnusableImageError, ...]
    """Why not, for the others, in their order."""
    decoding: float
    """Seconds that workers spent on it, one after another as it were."""
    waiting: float
    """Seconds that the reader waited for it."""


@dataclass(frozen=True)
class _Part:
    """What a worker says of its pictures."""

    images: Sequence[Image.Image]
    sizes: NDArray[np.int32]
    """Height and width of each in its row, 0 where it was cut [asked, 2]; [0, 2] where there is no geometry."""
    usable: NDArray[np.bool_]
    refused: tuple[UnusableImageError, ...]
    seconds: float


@dataclass(frozen=True)
class BufferAddress:
    """Where a slab is, for another process of the same user: a path to map, and the shape of what lies there."""

    path: str
    shape: tuple[int, int]
    serial: int
    """Tells a slab from an earlier one of the same path: file numbers come again."""


class SharedBuffer:
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
        self.place = BufferAddress(path, shape, next(SERIALS))
        self.rows: NDArray[np.uint8] = np.memmap(path, np.uint8, "r+", shape=shape)

    def close(self) -> None:
        """Let go of it; a process that still maps it keeps its pages."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@lru_cache(maxsize=MAPPED)
def map_buffer(place: BufferAddress) -> NDArray[np.uint8]:
    """A slab of another process."""
    return np.memmap(place.path, np.uint8, "r+", shape=place.shape)


@contextmanager
def open_decoding_pool(workers: int | None = None) -> Iterator[ProcessPoolExecutor]:
    """A pool for `decode` and `decode_batches`; one process per core if not said otherwise.

    Spawned, not forked: a fork of a process in which torch runs threads can hang.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers or os.cpu_count(), mp_context=context, initializer=_end_with_parent) as pool:
        yield pool


def _end_with_parent() -> None:
    """A worker whose parent is killed would wait for work for ever: the queue's pipe is open in its siblings."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, name="end_with_parent", daemon=True).start()


def decode_images(sources: Sequence[Source], geometry: Geometry, pool: ProcessPoolExecutor) -> DecodedImages:
    """Decode and cut pictures; an unusable one is refused with its reason and the rest goes on."""
    parts: list[tuple[NDArray[np.uint8], DecodedBatch[None]]] = []
    for batch in decode_batches(
        ((None, part) for part in split_sources(sources, AT_ONCE)), geometry, pool, size=AT_ONCE
    ):
        assert batch.pixels is not None
        parts.append((batch.pixels[batch.usable], batch))
    return DecodedImages(
        pixels=np.concatenate([np.empty((0, geometry.height, geometry.width, 3), np.uint8), *(p for p, _ in parts)]),
        usable=np.concatenate([np.empty(0, bool), *(batch.usable for _, batch in parts)]),
        refused=tuple(error for _, batch in parts for error in batch.refused),
    )


def split_sources(sources: Sequence[Source], size: int) -> Iterator[Sequence[Source]]:
    """At most `size` of them at a time."""
    return (sources[start : start + size] for start in range(0, len(sources), size))


def decode_batches(
    batches: Iterable[tuple[Key, Sequence[Source]]], geometry: Geometry | None, pool: ProcessPoolExecutor, *, size: int
) -> Iterator[DecodedBatch[Key]]:
    """Pictures batch by batch, in order; those of the next batches are decoded while the reader is busy with one.

    Args:
        batches: a key, given back with its pictures, and their sources, `size` at most; may be none. Read a few batches
            ahead, as far as two parts of AT_ONCE for each worker.
        geometry: how they are cut; null leaves them as they are.
        pool: of `open_decoding_pool`.
        size: most pictures of a batch.
    """
    waiting: deque[tuple[Key, SharedBuffer | None, list[Future[_Part]]]] = deque()
    workers = pool._max_workers  # type: ignore[attr-defined]  # it tells no other way
    ahead = max(2, -(-2 * workers * AT_ONCE // size))
    with ExitStack() as held:
        free: list[SharedBuffer | None] = [
            held.enter_context(SharedBuffer(size, _most(geometry))) if geometry else None for _ in range(ahead + 1)
        ]
        try:
            for key, sources in batches:
                slab = free.pop()
                parts = [
                    pool.submit(_decode_into, slab.place, start, part, geometry)
                    if slab and geometry
                    else pool.submit(_open, part)
                    for start, part in zip(
                        range(0, len(sources), AT_ONCE), split_sources(sources, AT_ONCE), strict=True
                    )
                ]
                waiting.append((key, slab, parts))
                if len(waiting) > ahead:
                    yield _come(*waiting[0], geometry)
                    free.append(waiting.popleft()[1])
            while waiting:
                yield _come(*waiting[0], geometry)
                waiting.popleft()
        finally:
            # A worker that came to a slab after it was closed would find another file under its number.
            wait([part for _, _, parts in waiting for part in parts if not part.cancel()])


def decode_in_process(sources: Sequence[Source], geometry: Geometry | None) -> DecodedBatch[None]:
    """Pictures decoded by this process, for whoever has workers of another kind."""
    rows = np.empty((len(sources), _most(geometry)), np.uint8) if geometry else None
    part = _open(sources) if rows is None or geometry is None else _decode(rows, sources, geometry)
    pixels = _cut(rows, part.sizes, geometry)
    return DecodedBatch(None, pixels, part.images, part.usable, part.refused, decoding=part.seconds, waiting=0.0)


def _come(
    key: Key, slab: SharedBuffer | None, parts: Sequence[Future[_Part]], geometry: Geometry | None
) -> DecodedBatch[Key]:
    start = time.perf_counter()
    done = [part.result() for part in parts]
    waiting = time.perf_counter() - start
    usable = np.concatenate([np.empty(0, bool), *(part.usable for part in done)])
    sizes = np.concatenate([np.empty((0, 2), np.int32), *(part.sizes for part in done)])
    return DecodedBatch(
        key=key,
        pixels=_cut(slab.rows[: len(usable)] if slab else None, sizes, geometry),
        images=[image for part in done for image in part.images],
        usable=usable,
        refused=tuple(error for part in done for error in part.refused),
        decoding=sum(part.seconds for part in done),
        waiting=waiting,
    )


def _cut(
    rows: NDArray[np.uint8] | None, sizes: NDArray[np.int32], geometry: Geometry | None
) -> NDArray[np.uint8] | None:
    if rows is None or geometry is None:
        return None
    from producers.encoders import resize  # torch, which decoding processes do without

    return resize.resize_images(rows, sizes, geometry)


def _most(geometry: Geometry) -> int:
    """Bytes of a slab's row: a picture as cut, or one that is decoded with no more to spare than is wanted."""
    return 3 * max(geometry.height * geometry.width, min_decoded_side(geometry.side) ** 2)


def _decode_into(place: BufferAddress, start: int, sources: Sequence[Source], geometry: Geometry) -> _Part:
    """Decode pictures into rows `start` onwards of a slab."""
    return _decode(map_buffer(place)[start : start + len(sources)], sources, geometry)


def _decode(rows: NDArray[np.uint8], sources: Sequence[Source], geometry: Geometry) -> _Part:
    """Decode pictures into `rows` [sources, most], and cut those that are large."""
    began = time.perf_counter()
    sizes, usable, refused = np.zeros((len(sources), 2), np.int32), np.ones(len(sources), bool), []
    for row, source in enumerate(sources):
        try:
            picture = open_pixels(source, side=geometry.side)
            if picture.size <= rows.shape[1] and geometry.resample in CUT_LATER:
                sizes[row] = picture.shape[:2]
            else:
                picture = geometry.cut(Image.fromarray(picture))
            rows[row, : picture.size] = picture.ravel()
        except UnusableImageError as error:
            rows[row, : 3 * geometry.height * geometry.width] = 0
            usable[row] = False
            refused.append(error)
    return _Part((), sizes, usable, tuple(refused), time.perf_counter() - began)


def _open(sources: Sequence[Source]) -> _Part:
    """Decode pictures and leave them as they are."""
    began = time.perf_counter()
    images, usable, refused = [], np.ones(len(sources), bool), []
    for row, source in enumerate(sources):
        try:
            images.append(open_image(source))
        except UnusableImageError as error:
            usable[row] = False
            refused.append(error)
    return _Part(images, np.empty((0, 2), np.int32), usable, tuple(refused), time.perf_counter() - began)
