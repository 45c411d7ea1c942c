"""Write a file or a folder so that readers see all of it or nothing: write beside it, then rename.

A command that works for long before it writes checks its output files first.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from feature_repo.errors import ConflictError, InvalidInputError


@contextmanager
def replace_atomically(target: Path, *, suffix: str = "unfinished") -> Iterator[Path]:
    """Yield a path beside `target` to write to; rename it to `target` when the block ends without an exception.

    An exception removes what was written and leaves `target` as it was. A killed process leaves the unfinished file,
    which the next call with the same suffix removes. Parent folders are created.

    Args:
        target: a file, which is replaced if it exists; or a folder, which must not exist when the block ends, unless it
            is empty. The block itself creates the file or folder at the yielded path.
        suffix: ends the name of the unfinished file, `.NAME.SUFFIX`. Processes that may write the same target at the
            same time need different ones.

    Raises:
        OSError: the block created nothing, `target` is a folder with content, or a path cannot be written. It names
            `target` if it named no file, as where the disk is full.
    """
    unfinished = target.with_name(f".{target.name}.{suffix}")
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove(unfinished)
    try:
        yield unfinished
        unfinished.replace(target)
    except BaseException as error:
        _remove(unfinished)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(target)
        raise


def write_text(file: Path, text: str) -> None:
    """Write a text in UTF-8 to a file completely or not at all. What exists and is no file, such as a pipe, gets it.

    Raises:
        OSError: the file cannot be written.
    """
    if file.exists() and not file.is_file():
        file.write_text(text, encoding="utf-8")
        return
    with replace_atomically(file) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def require_new_folder(folder: Path) -> None:
    """Check that a folder can be created, before long work begins. One that exists must be empty.

    Raises:
        ConflictError: there is a file of this name, or a folder with content.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ConflictError(f"{folder} exists already; name a new folder, or remove it")


def prepare_output_files(*files: Path | None) -> None:
    """Create the folders of output files and check that the files can be written, before long work begins.

    The files themselves are neither created nor changed.

    Args:
        files: files that are written later; None is skipped.

    Raises:
        InvalidInputError: a file is a folder, or there is no permission to write it, or into its folder if it does not
            exist.
        OSError: a folder cannot be created.
    """
    for file in filter(None, files):
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.is_dir():
            raise InvalidInputError(f"{file}: a folder; name a file to write")
        if not os.access(file if file.exists() else file.parent, os.W_OK):
            raise InvalidInputError(f"{file}: no permission to write; name another file, or change its permissions")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
