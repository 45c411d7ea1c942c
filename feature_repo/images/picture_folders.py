"""Where `produce images` keeps pictures, each under the hash of its content: an LMDB, or objects in a bucket."""

import re
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from feature_repo.bucket import open_filesystem, read_object_stat
from feature_repo.content_hash import content_hash
from feature_repo.errors import UnavailableError
from feature_repo.images import image_store
from feature_repo.location import REQUESTS, BucketObject, BucketPath

CONTENTS = "by_content"
"""Folder of the objects, below the prefix of the pictures. The name of an object there states its hash, and is
trusted."""

_STATED = re.compile(rf"{CONTENTS}/([0-9a-f]{{32}})")


class PictureFolder(Protocol):
    """Keeps pictures by the hash of their content, 32 hexadecimal digits."""

    def write(self, contents: Sequence[bytes]) -> list[str]:
        """Keep pictures, each content once; return their keys in the given order. All of them are in memory.

        Raises:
            UnavailableError: they cannot be written.
        """
        ...

    def list_stored(self, keys: Collection[str]) -> set[str]:
        """Return those of the keys that are kept. Pictures are not read."""
        ...

    def delete(self, keys: Collection[str]) -> int:
        """Delete pictures; return how many there were.

        Raises:
            UnavailableError: they cannot be deleted.
        """
        ...

    def name(self, key: str) -> str:
        """Return what the column `image` of a products table says of a picture."""
        ...


@dataclass(frozen=True)
class LmdbFolder:
    """Pictures in an LMDB."""

    folder: Path

    def write(self, contents: Sequence[bytes]) -> list[str]:
        """As `image_store.write`, in one commit."""
        return image_store.write(self.folder, contents)

    def list_stored(self, keys: Collection[str]) -> set[str]:
        """As `image_store.list_stored`."""
        return image_store.list_stored(self.folder, keys)

    def delete(self, keys: Collection[str]) -> int:
        """As `image_store.delete`, in one commit."""
        return image_store.delete(self.folder, keys)

    def name(self, key: str) -> str:
        """Return a URL that is relative to the folder beside the LMDB, in which the table lies."""
        return f"{image_store.URL_SCHEME}{self.folder.name}#{key}"


@dataclass(frozen=True)
class BucketFolder:
    """Pictures as objects in a bucket. An object appears whole, so a killed writer leaves no part of a picture."""

    prefix: BucketPath
    """The prefix `offline_store.pictures`."""

    def write(self, contents: Sequence[bytes]) -> list[str]:
        """Write the objects that are not there, REQUESTS at a time."""
        keys = [content_hash(content).hex() for content in contents]
        new = dict(zip(keys, contents, strict=True))
        for key in self.list_stored(new):
            del new[key]
        with ThreadPoolExecutor(REQUESTS) as pool:
            list(pool.map(self._put, new, new.values()))
        return keys

    def list_stored(self, keys: Collection[str]) -> set[str]:
        """Ask for each object, REQUESTS at a time."""
        with ThreadPoolExecutor(REQUESTS) as pool:
            stats = pool.map(lambda key: read_object_stat(self._find(key)), keys)
            return {key for key, stat in zip(keys, stats, strict=True) if stat is not None}

    def delete(self, keys: Collection[str]) -> int:
        """Delete the objects that are there, REQUESTS at a time. A bucket that keeps old versions keeps theirs."""
        stored = self.list_stored(keys)
        with ThreadPoolExecutor(REQUESTS) as pool:
            list(pool.map(self._delete, stored))
        return len(stored)

    def name(self, key: str) -> str:
        """Return the URL of the object."""
        return str(self._find(key))

    def _find(self, key: str) -> BucketObject:
        return BucketObject(self.prefix, f"{CONTENTS}/{key}")

    def _put(self, key: str, content: bytes) -> None:
        with self._translate_errors(), open_filesystem(self.prefix).open_output_stream(self._find(key).key) as stream:
            stream.write(content)

    def _delete(self, key: str) -> None:
        with self._translate_errors(), suppress(FileNotFoundError):  # another run of `produce forget` was first
            open_filesystem(self.prefix).delete_file(self._find(key).key)

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            line = str(error).partition("\n")[0]
            raise UnavailableError(
                f"{self.prefix} cannot be written ({line}); check the address, the network and the credentials"
            ) from error


def read_stated_hash(source: BucketObject) -> bytes | None:
    """Return the content hash, 16 bytes, that the name of an object of `BucketFolder` states; None for another one."""
    match = _STATED.fullmatch(source.key)
    return bytes.fromhex(match[1]) if match else None
