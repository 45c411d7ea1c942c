"""Pictures in an LMDB: one file for millions of them, read by many processes, no path to look up for each.

An `image` of a products table names a picture in it as

    lmdb://FOLDER#KEY          FOLDER absolute, or relative to the table's own folder

and in the catalogue, where FOLDER is absolute, as `lmdb:/FOLDER#KEY`, which survives as a `Path`. `produce images --to
lmdb` writes pictures under the hash of their content, 32 hex digits, each once; a key of that form is taken at its
word. Any other key (a product's id, say) is as good, but the picture is read to know whether it is another than before.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import lmdb

from feature_repo.errors import VitrineError
from producers.catalogue.content_hash import content_hash

SCHEME = "lmdb://"
STORED = "lmdb:"
"""What an absolute path to a picture in an LMDB begins with."""
FIRST_MAP_SIZE = 1 << 28
CONTENT_KEY = re.compile(r"#([0-9a-f]{32})$")

_opened: dict[str, lmdb.Environment] = {}


def holds(path: Path | str) -> bool:
    """Whether a path names a picture in an LMDB."""
    return str(path).startswith(STORED)


def located(image: str, folder: Path) -> Path:
    """Where a picture is that a table in `folder` names: a file, or in an LMDB, in the form of the catalogue."""
    if not image.startswith(SCHEME):
        return folder / image
    return Path(f"{STORED}{folder.absolute() / image.removeprefix(SCHEME)}")


def hash_in(path: str) -> bytes | None:
    """The hash of the picture's content, where the key says it."""
    found = CONTENT_KEY.search(path)
    return bytes.fromhex(found[1]) if found else None


def read(path: Path | str) -> bytes | None:
    """The bytes of a picture; None where the LMDB has no such key.

    Raises:
        OSError: there is no LMDB there.
    """
    folder, _, key = str(path).removeprefix(STORED).rpartition("#")
    try:
        with _open(folder).begin() as transaction:
            return transaction.get(key.encode())
    except lmdb.Error as error:
        raise OSError(f"no LMDB of pictures: {error}") from error


def _open(folder: str) -> lmdb.Environment:
    """This process's environment of a folder: LMDB wants one a process."""
    if folder not in _opened:
        _opened[folder] = lmdb.open(folder, readonly=True, lock=False, create=False, readahead=False)
    return _opened[folder]


def write(folder: Path, pictures: Iterable[bytes]) -> list[str]:
    """Put pictures into the LMDB of a folder, made if it is not there, each content once; returns their keys.

    One commit: a killed writer leaves nothing half-written, and its next run writes what is missing.

    Raises:
        VitrineError: the LMDB cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held = list(pictures)
    keys = [content_hash(picture).hex() for picture in held]
    rows = sorted(zip((key.encode() for key in keys), held, strict=True))
    try:
        with (
            lmdb.open(str(folder), map_size=_roomy(folder, sum(map(len, held)))) as environment,
            environment.begin(write=True) as transaction,
            transaction.cursor() as cursor,
        ):
            cursor.putmulti(rows, overwrite=False)
    except lmdb.Error as error:
        raise VitrineError(f"LMDB at {folder}: {error}; check the folder and the disk's free space") from error
    return keys


def _roomy(folder: Path, more: int) -> int:
    """A map with room for so many bytes more: pages are of 4 KiB, of which a small picture fills a part."""
    data = folder / "data.mdb"
    return max(FIRST_MAP_SIZE, (data.stat().st_size if data.exists() else 0) + 4 * more)
