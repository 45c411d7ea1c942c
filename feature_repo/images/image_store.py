"""Images in an LMDB: one file for millions of images, which many processes read at once.

The `image` column of a products table names such an image as

    lmdb://FOLDER#KEY          FOLDER is absolute, or relative to the table's own folder

The catalogue stores `lmdb:/FOLDER#KEY` with an absolute FOLDER, because a `Path` collapses the double slash. `produce
images --to lmdb` writes each image once, under the hash of its content (32 hexadecimal digits). A key of this form is
trusted to be the hash. Any other key, such as a product id, works too, but then the image is read to find out
whether it has changed.

lmdb is imported when an image is read or written, because machines that only encode may lack it.
"""

import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from feature_repo.content_hash import content_hash
from feature_repo.errors import CorruptDataError, UnavailableError

if TYPE_CHECKING:
    import lmdb

Result = TypeVar("Result")

URL_SCHEME = "lmdb://"
PATH_PREFIX = "lmdb:"
"""The prefix of a path in the catalogue that names an image in an LMDB."""
INITIAL_MAP_BYTES = 1 << 28

_KEY_HASH = re.compile(r"#([0-9a-f]{32})$")
_REPAIR = "remove the folder and run `produce images`"


def is_stored(path: Path | str) -> bool:
    """Return whether a path, as the catalogue stores it, names an image in an LMDB. Nothing is read."""
    return str(path).startswith(PATH_PREFIX)


def resolve_path(image: str, folder: Path) -> Path:
    """Return the path, as the catalogue stores it, of an `image` value of a table in `folder`.

    The path of an image in an LMDB begins with PATH_PREFIX and is absolute; that of a file is absolute if `folder` or
    `image` is. Whether anything is there is not checked.

    Args:
        image: a file's path, absolute or relative to `folder`, or an `lmdb://` URL.
        folder: the folder of the products table.
    """
    if not image.startswith(URL_SCHEME):
        return folder / image
    return Path(f"{PATH_PREFIX}{folder.absolute() / image.removeprefix(URL_SCHEME)}")


def read_key_hash(path: str) -> bytes | None:
    """Return the content hash, 16 bytes, that the key at the end of a path states.

    None if the path does not end in `#` and 32 lower-case hexadecimal digits.
    """
    match = _KEY_HASH.search(path)
    return bytes.fromhex(match[1]) if match else None


def read(path: Path | str) -> bytes | None:
    """Return the encoded bytes of an image; None if the LMDB has no such key.

    The LMDB stays open for later reads of this process. It may grow, or be replaced, meanwhile.

    Args:
        path: `lmdb:/FOLDER#KEY`, as `resolve_path` returns it. KEY begins after the last `#`.

    Raises:
        OSError: the folder does not exist or holds no readable LMDB.
    """
    folder, _, key = str(path).removeprefix(PATH_PREFIX).rpartition("#")

    def work(environment: "lmdb.Environment") -> bytes | None:
        with environment.begin() as transaction:
            return transaction.get(key.encode())

    return _use(Path(folder), work)


def list_stored(folder: Path, keys: Collection[str]) -> set[str]:
    """Return those of the keys that the LMDB of a folder holds; none if there is no LMDB. Images are not read.

    Raises:
        OSError: the LMDB cannot be read.
    """

    def work(environment: "lmdb.Environment") -> set[str]:
        with environment.begin(buffers=True) as transaction:
            return {key for key in keys if transaction.get(key.encode()) is not None}

    try:
        return _use(folder, work)
    except FileNotFoundError:
        return set()


def write(folder: Path, images: Iterable[bytes]) -> list[str]:
    """Write images to the LMDB of a folder, which is created if missing, and return their keys in the given order.

    The key of an image is its content hash, 32 hexadecimal digits. An image that is already stored, or that is given
    twice, is written once; each occurrence has its key in the result. Everything is one commit: a writer that is killed
    leaves no part of it.

    Args:
        folder: the folder of the LMDB; images that it holds already stay.
        images: the encoded bytes of each image. All of them are in memory at once. They are not checked. Without
            images the result is empty; the LMDB is created all the same.

    Raises:
        UnavailableError: the LMDB cannot be written.
        CorruptDataError: the LMDB is truncated.
    """

    def work(environment: "lmdb.Environment") -> None:
        with environment.begin(write=True) as transaction, transaction.cursor() as cursor:
            cursor.putmulti(rows, overwrite=False)

    contents = list(images)
    keys = [content_hash(content).hex() for content in contents]
    rows = sorted(zip((key.encode() for key in keys), contents, strict=True))
    _change(folder, work, new_bytes=sum(map(len, contents)))
    return keys


def delete(folder: Path, keys: Collection[str]) -> int:
    """Delete images from the LMDB of a folder, in one commit; return how many there were.

    Nobody finds the images any more. Their bytes stay in pages of the file that LMDB has not used again.

    Args:
        folder: the folder of the LMDB; without one nothing is deleted.
        keys: keys that the LMDB lacks are ignored.

    Raises:
        UnavailableError: the LMDB cannot be written.
        CorruptDataError: the LMDB is truncated.
    """

    def work(environment: "lmdb.Environment") -> int:
        with environment.begin(write=True) as transaction:
            return sum(transaction.delete(key.encode()) for key in keys)

    return _change(folder, work) if (folder / "data.mdb").is_file() else 0


def _change(folder: Path, work: Callable[["lmdb.Environment"], Result], *, new_bytes: int = 0) -> Result:
    """Call `work` with the LMDB of a folder, open for writing, and return its result.

    Raises:
        UnavailableError: the LMDB cannot be written.
        CorruptDataError: the LMDB is truncated.
    """
    import lmdb

    from feature_repo.files.lmdb_environment import open_exclusively

    # LMDB stores pages of 4 KiB and a small image fills only a part of one: reserve four times the bytes.
    data = folder / "data.mdb"
    old_bytes = data.stat().st_size if data.exists() else 0
    map_bytes = max(INITIAL_MAP_BYTES, old_bytes + 4 * new_bytes)
    try:
        with open_exclusively(folder.resolve(), map_size=map_bytes, repair=_REPAIR) as environment:
            return environment.run(work)
    except lmdb.Error as error:
        raise UnavailableError(f"LMDB at {folder}: {error}; check the folder and the disk's free space") from error


def _use(folder: Path, work: Callable[["lmdb.Environment"], Result]) -> Result:
    """Call `work` with the LMDB of a folder, which stays open, and return its result.

    Raises:
        FileNotFoundError: there is no LMDB.
        OSError: it cannot be read.
    """
    import lmdb

    from feature_repo.files.lmdb_environment import get_shared_environment

    try:
        environment = get_shared_environment(folder.resolve(), create=False, readonly=True, repair=_REPAIR)
        if environment is None:
            raise FileNotFoundError(f"no LMDB of images at {folder}")
        return environment.run(work)
    except (lmdb.Error, CorruptDataError) as error:
        raise OSError(f"no LMDB of images: {error}") from error
