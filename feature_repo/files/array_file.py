"""Arrays in `.npy` files that are larger than memory: mapped, and filled part by part."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap


def create_array_file(file: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> "np.memmap[Any, Any]":
    """Create a file with an array of zeros and map it for writing. An existing file is replaced.

    The whole space on the disk is reserved. Without that, a write to the map of a full disk kills the process (SIGBUS).

    Args:
        file: the file, whose folder exists.
        dtype: of the array.
        shape: of the array.

    Raises:
        OSError: the disk has not enough space, and no file is left; or the file cannot be written.
    """
    try:
        array = open_memmap(file, mode="w+", dtype=dtype, shape=shape)
        with file.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)
    except OSError as error:
        file.unlink(missing_ok=True)
        raise OSError(error.errno, os.strerror(error.errno or 0), str(file)) from error
    return array
