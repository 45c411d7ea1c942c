"""Open a prefix of a bucket as Arrow's file system, and read single objects. Needs pyarrow only."""

from functools import lru_cache

from pyarrow.fs import FileSystem, FileType, SubTreeFileSystem

from feature_repo.errors import InvalidInputError, UnavailableError
from feature_repo.location import OPTIONS, BucketObject, BucketPath

_OPENED = 1_024
"""Locations whose file systems a process keeps."""
_DENIED = "ACCESS_DENIED"


def open_filesystem(location: BucketPath) -> SubTreeFileSystem:
    """Return Arrow's file system whose root is a prefix. Nothing is asked of the bucket.

    Raises:
        InvalidInputError: the storage options cannot be used.
    """
    return _open_filesystem(location, tuple(sorted(location.options.items())))


def read_object(source: BucketObject, max_bytes: int) -> bytes:
    """Return the bytes of an object: all, or the first `max_bytes` + 1 if it has more.

    Raises:
        FileNotFoundError: there is no such object.
        PermissionError: it may not be read.
        UnavailableError: the store does not answer.
    """
    try:
        with open_filesystem(source.prefix).open_input_file(source.key) as file:
            return bytes(file.read(max_bytes + 1))
    except OSError as error:
        raise _translate_error(source, error) from error


def read_object_stat(source: BucketObject) -> tuple[int, int] | None:
    """Return size in bytes and modification time in nanoseconds since 1970 of an object.

    None if there is none or it may not be looked at.

    Raises:
        UnavailableError: the store does not answer.
    """
    try:
        info = open_filesystem(source.prefix).get_file_info(source.key)
    except OSError as error:
        if isinstance(_translate_error(source, error), UnavailableError):
            raise _translate_error(source, error) from error
        return None
    return (info.size, info.mtime_ns) if info.type == FileType.File else None


def _translate_error(source: BucketObject, error: OSError) -> OSError | UnavailableError:
    """Return the error of one object as it is, and UnavailableError for one that every object would have."""
    if isinstance(error, FileNotFoundError | PermissionError):
        return error
    if _DENIED in str(error):  # S3 says so, too, of an object that does not exist if the bucket may not be listed
        return PermissionError(f"{source}: access denied")
    line = str(error).partition("\n")[0]
    return UnavailableError(
        f"{source.prefix} does not answer ({line}); check the address, the network and the credentials"
    )


@lru_cache(maxsize=_OPENED)
def _open_filesystem(location: BucketPath, options: tuple[tuple[str, str], ...]) -> SubTreeFileSystem:
    arguments = {OPTIONS[location.scheme].get(name): value for name, value in options}
    arguments.pop(None, None)
    try:
        root = _make_filesystem(location.scheme, {str(name): value for name, value in arguments.items()})
    except (TypeError, ValueError, OSError) as error:
        line = str(error).partition("\n")[0]
        raise InvalidInputError(f"{location}: storage_options cannot be used: {line}") from error
    return SubTreeFileSystem(location.key, root)


def _make_filesystem(scheme: str, arguments: dict[str, str]) -> FileSystem:
    from pyarrow import fs

    if scheme == "gs":
        return fs.GcsFileSystem(**arguments)
    endpoint = "endpoint_override" if scheme == "s3" else "blob_storage_authority"
    protocol, separator, address = arguments.get(endpoint, "").rpartition("://")
    if separator and scheme == "s3":
        arguments |= {endpoint: address.rstrip("/"), "scheme": protocol}
    elif separator:  # the account, which may follow, is an argument of its own
        authority = address.partition("/")[0]
        for service in ("blob", "dfs"):
            arguments |= {f"{service}_storage_authority": authority, f"{service}_storage_scheme": protocol}
    return fs.S3FileSystem(**arguments) if scheme == "s3" else fs.AzureFileSystem(**arguments)
