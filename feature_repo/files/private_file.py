"""Files that only their owner may read: logs that name users and products."""

import os
from pathlib import Path
from typing import IO, Any

MODE = 0o600
"""Permissions of the files: the owner reads and writes, whatever the umask allows others."""


def append_private(file: Path, mode: str, **options: Any) -> IO[Any]:
    """Open a file for appending as `Path.open` does. It gets the permissions 0600, also if it exists.

    Args:
        file: the file; it is created if it does not exist. Its folder must exist.
        mode: "a" for text, "ab" for bytes.
        options: further arguments of `Path.open`.

    Raises:
        OSError: the file cannot be opened, or it is another user's.
    """
    stream = open(file, mode, opener=lambda name, flags: os.open(name, flags, MODE), **options)  # noqa: SIM115
    try:
        if file.is_file():  # not a pipe or /dev/stderr
            os.fchmod(stream.fileno(), MODE)
    except OSError:
        stream.close()
        raise
    return stream
