"""Open a location for Delta Lake and for Arrow: a folder on disk, or a prefix of a bucket.

deltalake commits, and pyarrow reads and writes the Parquet files. A commit creates the next file of the table's log,
which succeeds only if the file does not exist: on disk by a hard link, in a bucket by a conditional put. So of two
writers of one version one is refused, on one machine or on several, and no lock table is needed.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from deltalake.exceptions import DeltaError
from pyarrow.fs import FileSelector, FileType, LocalFileSystem, SubTreeFileSystem

from feature_repo import bucket
from feature_repo.bucket_url import is_url
from feature_repo.errors import InvalidInputError, UnavailableError
from feature_repo.location import BucketPath, Location

_REFUSED_IN_PATHS = re.compile(r"[\[\]^|\\]|%[0-9A-Fa-f]{2}|[\x00-\x1f]")
"""Delta Lake aborts the process at the first four characters and reads or writes another folder for the rest."""


@dataclass(frozen=True)
class Storage:
    """One location, opened. Two of one location are equal."""

    uri: str
    """The path or URL, as deltalake takes it."""
    is_remote: bool
    """Whether every request goes over the network."""
    options: dict[str, str] | None = field(repr=False, compare=False)
    """Storage options for deltalake; None for a folder."""
    filesystem: SubTreeFileSystem = field(repr=False, compare=False)
    """Arrow's file system, whose root is the location. It can be pickled, with its credentials."""

    def list_folders(self) -> list[str] | None:
        """Return the names of the folders in the location, sorted; None if the location does not exist.

        Raises:
            UnavailableError: the bucket does not answer.
        """
        with translate_errors(self.uri):
            entries = self.filesystem.get_file_info(FileSelector("", allow_not_found=True))
            if not entries and (self.is_remote or self.filesystem.get_file_info("").type == FileType.NotFound):
                return None
        return sorted(entry.base_name for entry in entries if entry.type == FileType.Directory)


def open_storage(location: Location) -> Storage:
    """Open a location. Nothing needs to exist there, and nothing is asked of a bucket.

    Raises:
        InvalidInputError: the path has characters with which Delta Lake opens another folder, or none; or the storage
            options cannot be used.
    """
    if isinstance(location, BucketPath):
        return Storage(location.url, True, dict(location.options), bucket.open_filesystem(location))
    refused = _REFUSED_IN_PATHS.search(str(location.absolute()))
    if refused:
        raise InvalidInputError(
            f"{location}: Delta Lake cannot keep a table in a folder with {refused[0]!r} in its path; move it to a "
            "path without [ ] ^ | \\ and percent escapes such as %20"
        )
    return Storage(str(location), False, None, SubTreeFileSystem(str(location), LocalFileSystem()))


def make_parent(location: Location) -> None:
    """Create the folder in which a table's folder is to be, if it does not exist. A bucket has no folders.

    Raises:
        InvalidInputError: Delta Lake cannot keep a table at this path; no folder is created.
    """
    open_storage(location)
    if isinstance(location, Path):
        location.parent.mkdir(parents=True, exist_ok=True)


@contextmanager
def translate_errors(uri: str) -> Iterator[None]:
    """Raise UnavailableError with one line for an error of the network, a store or a disk. `uri` is the location."""
    try:
        yield
    except (OSError, DeltaError) as error:
        cause = first_line(error)
        raise UnavailableError(
            f"{uri} does not answer ({cause}); check the address, the network and the credentials"
            if is_url(uri)
            else f"{uri} cannot be read or written ({cause}); check the path, its permissions and the disk"
        ) from error


def first_line(error: Exception) -> str:
    """Return an error's message in one line, without the Rust stack trace that may follow it."""
    lines = [re.sub(r"\x1b\[[0-9;]*m|↳", "", line).strip() for line in str(error).splitlines()]
    causes = [line for line in lines[1:] if line][-1:] if "Generic " in str(error) else []
    return ": ".join([lines[0].removeprefix("Kernel error: "), *causes]) if lines else type(error).__name__
