"""The images of a catalogue, decoded once: in memory, or in a file if they are many or several processes train."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feature_repo.files.array_file import create_array_file
from feature_repo.images.decoding import Source
from feature_repo.images.geometry import Geometry
from producers.encoders import image_loader
from producers.encoders.image_loader import DecodedImages, open_decoding_pool
from producers.encoders.training.process_group import ProcessGroup

MAX_BYTES_IN_MEMORY = 4 * 2**30
"""Size of all pixels, in bytes, above which they are decoded into a file."""
IMAGES_PER_CHUNK = 2048
"""Images that are decoded between two calls of `progress`."""
PIXELS_FILE, USABLE_FILE = "pixels.npy", "usable.npy"


def decode_images(
    sources: Sequence[Source],
    geometry: Geometry,
    folder: Path,
    process_group: ProcessGroup,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Decode and resize images, and leave out those that cannot be used. Unusable images raise no error.

    The pixels are kept in a file, and read from it as needed, if they are more than MAX_BYTES_IN_MEMORY or if several
    processes train.

    Args:
        sources: path or bytes of each image [n].
        geometry: size of the decoded images.
        folder: where the files are written if they are needed. It is created if it does not exist; files of an earlier
            training are replaced. `remove_pixel_files` removes them.
        process_group: the first process decodes; the others wait and read its file.
        progress: called with the number of images decoded so far and their total, in the process that decodes.

    Returns:
        Pixels of the usable images in the order of `sources`, uint8 [usable, height, width, 3], read-only if they are
        in a file; and whether each source is usable, bool [n].
    """
    size = len(sources) * geometry.height * geometry.width * 3
    if process_group.count == 1 and size <= MAX_BYTES_IN_MEMORY:
        chunks = [chunk for _, chunk in _decode_chunks(sources, geometry, progress)]
        empty = np.empty((0, geometry.height, geometry.width, 3), np.uint8)
        usable = np.concatenate([np.empty(0, bool), *(chunk.usable for chunk in chunks)])
        return np.concatenate([empty, *(chunk.pixels for chunk in chunks)]), usable
    if process_group.is_first:
        _decode_to_file(sources, geometry, folder, progress)
    process_group.wait()
    usable = np.load(folder / USABLE_FILE)
    return np.load(folder / PIXELS_FILE, mmap_mode="r")[: int(usable.sum())], usable


def remove_pixel_files(folder: Path) -> None:
    """Remove the files that `decode_images` wrote to `folder`, not the folder. Nothing happens if there are none."""
    for name in (PIXELS_FILE, USABLE_FILE):
        (folder / name).unlink(missing_ok=True)


def _decode_to_file(
    sources: Sequence[Source], geometry: Geometry, folder: Path, progress: Callable[[int, int], None]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shape = (len(sources), geometry.height, geometry.width, 3)
    pixels = create_array_file(folder / PIXELS_FILE, np.uint8, shape)
    usable = np.zeros(len(sources), bool)
    row_count = 0
    for start, chunk in _decode_chunks(sources, geometry, progress):
        pixels[row_count : row_count + len(chunk.pixels)] = chunk.pixels
        row_count += len(chunk.pixels)
        usable[start : start + IMAGES_PER_CHUNK] = chunk.usable
    pixels.flush()
    np.save(folder / USABLE_FILE, usable)


def _decode_chunks(
    sources: Sequence[Source], geometry: Geometry, progress: Callable[[int, int], None]
) -> Iterator[tuple[int, DecodedImages]]:
    """Yield the index of the first source of each chunk, and its decoded images."""
    with open_decoding_pool() as pool:
        for start in range(0, len(sources), IMAGES_PER_CHUNK):
            yield start, image_loader.decode_images(sources[start : start + IMAGES_PER_CHUNK], geometry, pool)
            progress(min(start + IMAGES_PER_CHUNK, len(sources)), len(sources))
