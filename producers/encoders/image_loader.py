"""Decode images in worker processes, and resize them to a model's input size.

Workers import Pillow, NumPy and, if needed, LMDB, but not torch, so they start at once. A worker writes pixels into
shared memory. An image that fits a row of that memory is resized later, in the model's process, together with others of
its size. A larger image is resized by the worker, so that less memory is moved.
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
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from feature_repo.cores import count_cores
from feature_repo.errors import UnavailableError
from feature_repo.images.decoding import Source, UnusableImageError, min_decoded_side, open_image, open_pixels
from feature_repo.images.geometry import Geometry
from feature_repo.images.read_ahead import read_ahead
from producers.encoders.geometry import TORCH_MODES, resize_images

Key = TypeVar("Key")
IMAGES_PER_TASK = 64
"""Images that a worker decodes per task."""
MAPPED_BUFFERS = 16
"""Shared buffers that a worker keeps mapped."""
_serials = itertools.count()


@dataclass(frozen=True)
class DecodedImages:
    """The usable ones of n images, decoded and resized. Unusable ones take no row of `pixels`."""

    pixels: NDArray[np.uint8]
    """RGB pixels of the usable images only, [usable, height, width, 3], in the order of the sources."""
    usable: NDArray[np.bool_]
    """Whether each image is usable [n]."""
    refused: tuple[UnusableImageError, ...]
    """The errors of the unusable images, in the order of the sources."""


@dataclass(frozen=True)
class DecodedBatch(Generic[Key]):
    """A batch of n images, decoded. Unlike in `DecodedImages`, unusable ones keep their row in `pixels`."""

    key: Key
    """What the caller passed with the batch; None from `decode_in_process`."""
    pixels: NDArray[np.uint8] | None
    """RGB pixels of all images, [n, height, width, 3], zeros where one is unusable; None if no geometry was given."""
    images: Sequence[Image.Image]
    """If no geometry was given: the usable images in the order of the sources, RGB of any size. Else empty."""
    usable: NDArray[np.bool_]
    """Whether each image is usable [n]."""
    refused: tuple[UnusableImageError, ...]
    """The errors of the unusable images, in the order of the sources."""
    decode_seconds: float
    """Seconds in workers, summed over them."""
    wait_seconds: float
    """Seconds that the reader waited for this batch; 0 from `decode_in_process`."""


@contextmanager
def open_decoding_pool(workers: int | None = None) -> Iterator[ProcessPoolExecutor]:
    """Start processes that decode images; they end with the context, or when this process is killed.

    They are spawned, not forked, because a fork of a process in which torch runs threads can hang.

    Args:
        workers: number of processes; None starts one per core that this process may use.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers or count_cores(), mp_context=context, initializer=_exit_with_parent) as pool:
        yield pool


def decode_images(sources: Sequence[Source], geometry: Geometry, pool: ProcessPoolExecutor) -> DecodedImages:
    """Decode and resize n images; an unusable one is reported in `refused` and does not stop the others.

    All of the pixels are in memory at once; for more images there is `decode_batches`.

    Args:
        sources: path, object in a bucket or encoded bytes of each image [n]; may be empty.
        geometry: how to resize and crop.
        pool: processes from `open_decoding_pool`.
    """
    parts = ((None, part) for part in _split(sources))
    batches = list(decode_batches(parts, geometry, pool, size=IMAGES_PER_TASK))
    return DecodedImages(
        pixels=np.concatenate(
            [
                np.empty((0, geometry.height, geometry.width, 3), np.uint8),
                *(batch.pixels[batch.usable] for batch in batches if batch.pixels is not None),
            ]
        ),
        usable=np.concatenate([np.empty(0, bool), *(batch.usable for batch in batches)]),
        refused=tuple(error for batch in batches for error in batch.refused),
    )


def decode_batches(
    batches: Iterable[tuple[Key, Sequence[Source]]], geometry: Geometry | None, pool: ProcessPoolExecutor, *, size: int
) -> Iterator[DecodedBatch[Key]]:
    """Decode batches of images; yields one `DecodedBatch` per batch, in order.

    Later batches are decoded while the caller works on an earlier one. An unusable image is reported in `refused` and
    does not stop the others. The pixels of a batch are an array of its own, which later batches do not overwrite.

    Args:
        batches: for each batch a key, which is returned with it, and at most `size` sources, possibly none. Batches are
            read ahead, by two or by as many as give each worker two tasks.
        geometry: how to resize and crop; None leaves the images as decoded.
        pool: processes from `open_decoding_pool`.
        size: largest number of images in a batch, at least 1.

    Raises:
        UnavailableError: a process of the pool was killed, or crashed in a decoder.
        Exception: what `batches` raised; batches that were read ahead are then lost.
    """
    pending: deque[tuple[Key, SharedBuffer | None, list[Future[_DecodedPart]]]] = deque()
    workers = pool._max_workers  # type: ignore[attr-defined]  # the executor has no public attribute for it
    ahead = max(2, -(-2 * workers * IMAGES_PER_TASK // size))
    with _explain_crash(), ExitStack() as stack:
        free: list[SharedBuffer | None] = [
            stack.enter_context(SharedBuffer(size, _row_bytes(geometry))) if geometry else None
            for _ in range(ahead + 1)
        ]
        try:
            for key, sources in batches:
                buffer = free.pop()
                parts = [
                    pool.submit(_decode_into_buffer, buffer.address, start, part, geometry)
                    if buffer and geometry
                    else pool.submit(_decode_without_resizing, part)
                    for start, part in zip(range(0, len(sources), IMAGES_PER_TASK), _split(sources), strict=True)
                ]
                pending.append((key, buffer, parts))
                if len(pending) > ahead:
                    yield _join_parts(*pending[0], geometry)
                    free.append(pending.popleft()[1])
            while pending:
                yield _join_parts(*pending[0], geometry)
                pending.popleft()
        finally:
            # A worker that mapped a buffer after it was closed could map another file that has its number by then.
            wait([part for _, _, parts in pending for part in parts if not part.cancel()])


def decode_in_process(sources: Sequence[Source], geometry: Geometry | None) -> DecodedBatch[None]:
    """Decode one batch of images in this process, for callers that have workers of another kind.

    An unusable image is reported in `refused` and does not stop the others.

    Args:
        sources: path or encoded bytes of each image; may be empty.
        geometry: how to resize and crop; None leaves the images as decoded.

    Returns:
        The batch, with the key None and `wait_seconds` 0.
    """
    if geometry is None:
        pixels, part = None, _decode_without_resizing(sources)
    else:
        rows = np.empty((len(sources), _row_bytes(geometry)), np.uint8)
        part = _decode_into_rows(rows, sources, geometry)
        pixels = resize_images(rows, part.sizes, geometry)
    return DecodedBatch(None, pixels, part.images, part.usable, part.refused, part.seconds, wait_seconds=0.0)


@dataclass(frozen=True)
class BufferAddress:
    """Where a `SharedBuffer` is, for another process of the same user."""

    path: str
    """Path under which the buffer's file can be opened while its owner keeps it open."""
    shape: tuple[int, int]
    """(images, bytes of a row)."""
    serial: int
    """Distinguishes a buffer from an earlier one of the same path, because file numbers are reused."""


class SharedBuffer:
    """Memory for images that child processes can map, uint8 [images, row_bytes] in `rows`.

    The rows are zeros at first. The memory is freed when the buffer is closed and the last process has unmapped it.

    Workers return pixels through it without a copy. At 224 pixels an image has 150 KB: 5,000 a second through the one
    pipe of the pool would keep a core busy with copying. On Linux the buffer is a file without a name (memfd): a killed
    run leaves nothing behind, and /dev/shm (64 MB in many containers) does not limit it. Elsewhere it is a temporary
    file.
    """

    def __init__(self, images: int, row_bytes: int) -> None:
        """Reserve memory; a page takes memory once it is written to.

        Args:
            images: number of rows, at least 1.
            row_bytes: bytes of a row, at least 1.
        """
        shape = (images, row_bytes)
        if sys.platform == "linux":
            self._file = os.fdopen(os.memfd_create("images"), "w+b")
            path = f"/proc/{os.getpid()}/fd/{self._file.fileno()}"
        else:
            self._file = tempfile.NamedTemporaryFile()  # noqa: SIM115  # `close` closes it
            path = self._file.name
        self._file.truncate(int(np.prod(shape)))
        self.address = BufferAddress(path, shape, next(_serials))
        """What `map_buffer` needs to map the buffer in another process."""
        self.rows: NDArray[np.uint8] = np.memmap(path, np.uint8, "r+", shape=shape)

    def close(self) -> None:
        """Close the file, so that no further process can map it. Processes that map it, this one too, keep its rows."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def _explain_crash() -> Iterator[None]:
    """Raise UnavailableError if a process of the pool has ended."""
    try:
        yield
    except BrokenProcessPool as error:
        raise UnavailableError(
            "a process that decodes images was killed, or crashed in a decoder; rows that were committed stay: run "
            "this again, and if it fails again free memory, or look for the image (docs/how-to/pictures.md)"
        ) from error


@lru_cache(maxsize=MAPPED_BUFFERS)
def map_buffer(address: BufferAddress) -> NDArray[np.uint8]:
    """Map the `SharedBuffer` of another process; return its rows, uint8 [images, row_bytes], which can be written to.

    The last MAPPED_BUFFERS buffers stay mapped, and are returned again for the same address.

    Args:
        address: the attribute `address` of the buffer, which must still be open.
    """
    return np.memmap(address.path, np.uint8, "r+", shape=address.shape)


def _exit_with_parent() -> None:
    """End this worker when its parent is killed. It would wait forever: its siblings hold the queue's pipe open."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, name="exit_with_parent", daemon=True).start()


def _split(sources: Sequence[Source]) -> Iterator[Sequence[Source]]:
    """Yield the sources in order, IMAGES_PER_TASK at a time; nothing if there are none."""
    return (sources[start : start + IMAGES_PER_TASK] for start in range(0, len(sources), IMAGES_PER_TASK))


def _row_bytes(geometry: Geometry) -> int:
    """Return the bytes of a buffer row: room for a resized image, and for one decoded at the smallest side."""
    return 3 * max(geometry.height * geometry.width, min_decoded_side(geometry.side) ** 2)


@dataclass(frozen=True)
class _DecodedPart:
    """What a worker returns of its n images; pixels are in the shared buffer."""

    images: Sequence[Image.Image]
    """Without a geometry: the usable images. Else empty."""
    sizes: NDArray[np.int32]
    """[n, 2] height and width of each image in its row, 0 if it is resized already; [0, 2] without a geometry."""
    usable: NDArray[np.bool_]
    """Whether each image is usable [n]."""
    refused: tuple[UnusableImageError, ...]
    """The errors of the unusable images, in the order of the sources."""
    seconds: float
    """Seconds that the decoding took."""


def _join_parts(
    key: Key, buffer: SharedBuffer | None, parts: Sequence[Future[_DecodedPart]], geometry: Geometry | None
) -> DecodedBatch[Key]:
    """Wait for the parts of a batch, and resize its images."""
    start = time.perf_counter()
    done = [part.result() for part in parts]
    wait_seconds = time.perf_counter() - start
    usable = np.concatenate([np.empty(0, bool), *(part.usable for part in done)])
    sizes = np.concatenate([np.empty((0, 2), np.int32), *(part.sizes for part in done)])
    return DecodedBatch(
        key=key,
        pixels=resize_images(buffer.rows[: len(usable)], sizes, geometry) if buffer and geometry else None,
        images=[image for part in done for image in part.images],
        usable=usable,
        refused=tuple(error for part in done for error in part.refused),
        decode_seconds=sum(part.seconds for part in done),
        wait_seconds=wait_seconds,
    )


def _decode_into_buffer(
    address: BufferAddress, start: int, sources: Sequence[Source], geometry: Geometry
) -> _DecodedPart:
    """Decode images into a shared buffer, from row `start`."""
    return _decode_into_rows(map_buffer(address)[start : start + len(sources)], sources, geometry)


def _decode_into_rows(rows: NDArray[np.uint8], sources: Sequence[Source], geometry: Geometry) -> _DecodedPart:
    """Decode images into `rows` [sources, row_bytes]; resize those that do not fit, or that torch cannot resize."""
    start = time.perf_counter()
    sizes, usable, refused = np.zeros((len(sources), 2), np.int32), np.ones(len(sources), bool), []
    for row, source in enumerate(read_ahead(sources)):
        try:
            if isinstance(source, UnusableImageError):
                raise source
            pixels = open_pixels(source, side=geometry.side)
            if pixels.size <= rows.shape[1] and geometry.resample in TORCH_MODES:
                sizes[row] = pixels.shape[:2]
            else:
                pixels = geometry.apply(Image.fromarray(pixels))
            rows[row, : pixels.size] = pixels.ravel()
        except UnusableImageError as error:
            rows[row, : 3 * geometry.height * geometry.width] = 0
            usable[row] = False
            refused.append(error)
    return _DecodedPart((), sizes, usable, tuple(refused), time.perf_counter() - start)


def _decode_without_resizing(sources: Sequence[Source]) -> _DecodedPart:
    """Decode images at their full size, for encoders without a geometry."""
    start = time.perf_counter()
    images, usable, refused = [], np.ones(len(sources), bool), []
    for row, source in enumerate(read_ahead(sources)):
        try:
            if isinstance(source, UnusableImageError):
                raise source
            images.append(open_image(source))
        except UnusableImageError as error:
            usable[row] = False
            refused.append(error)
    return _DecodedPart(images, np.empty((0, 2), np.int32), usable, tuple(refused), time.perf_counter() - start)
