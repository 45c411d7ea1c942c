"""Where tables are: a folder on disk, or a prefix of a bucket of S3, Google Cloud Storage or Azure.

A location is a `pathlib.Path` or a `BucketPath`, which has the few methods of a path that tables need.
`offline/storage.py` opens it; nothing else looks at which of the two it is. The credentials travel with the location.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from feature_repo.bucket_url import hide_login, is_url, parse_bucket_url
from feature_repo.errors import InvalidInputError

REQUESTS = 16
"""Requests to a bucket at the same time."""
OPTIONS: Mapping[str, Mapping[str, str | None]] = {
    "s3": {
        "AWS_ACCESS_KEY_ID": "access_key",
        "AWS_SECRET_ACCESS_KEY": "secret_key",
        "AWS_SESSION_TOKEN": "session_token",
        "AWS_REGION": "region",
        "AWS_ENDPOINT_URL": "endpoint_override",
        "AWS_ALLOW_HTTP": None,
        "AWS_CONDITIONAL_PUT": None,
        "AWS_S3_LOCKING_PROVIDER": None,
        "DELTA_DYNAMO_TABLE_NAME": None,
    },
    "gs": {},
    "az": {
        "AZURE_STORAGE_ACCOUNT_NAME": "account_name",
        "AZURE_STORAGE_ACCOUNT_KEY": "account_key",
        "AZURE_STORAGE_SAS_KEY": "sas_token",
        "AZURE_STORAGE_TENANT_ID": "tenant_id",
        "AZURE_STORAGE_CLIENT_ID": "client_id",
        "AZURE_STORAGE_CLIENT_SECRET": "client_secret",
        "AZURE_STORAGE_ENDPOINT": "blob_storage_authority",
        "AZURE_ALLOW_HTTP": None,
        "AZURE_STORAGE_USE_EMULATOR": None,
    },
}
"""Scheme -> accepted storage options, as deltalake names them -> the argument of pyarrow's file system, None if only
deltalake has the option."""

_ACCOUNT = "AZURE_STORAGE_ACCOUNT_NAME"
_PLAIN = re.compile(r"[A-Za-z0-9._=+-]+(/[A-Za-z0-9._=+-]+)*")


@dataclass(frozen=True)
class BucketPath:
    """A prefix of a bucket. Nothing needs to exist there."""

    url: str
    """`SCHEME://BUCKET/PREFIX`, without a slash at the end; the prefix may be missing."""
    options: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Storage options by the names of OPTIONS. They may hold secrets, so they are never shown."""

    @property
    def scheme(self) -> str:
        """One of the keys of OPTIONS."""
        return self.url.partition("://")[0]

    @property
    def key(self) -> str:
        """`BUCKET/PREFIX`."""
        return self.url.partition("://")[2]

    @property
    def name(self) -> str:
        """The last part of the prefix, or the bucket."""
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> "BucketPath":
        """The prefix without its last part; a bucket is its own parent."""
        head, slash, _ = self.key.rpartition("/")
        return BucketPath(f"{self.scheme}://{head}", self.options) if slash else self

    def __truediv__(self, name: str) -> "BucketPath":
        parts = [part for part in name.split("/") if part not in ("", ".")]
        return BucketPath("/".join([self.url, *parts]), self.options)

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True)
class BucketObject:
    """An object below a prefix of a bucket, such as a picture. It need not exist."""

    prefix: BucketPath
    """Where it is, with the storage options."""
    key: str
    """Its name, relative to the prefix; any characters."""

    def __str__(self) -> str:
        return f"{self.prefix.url}/{self.key}"


Location: TypeAlias = Path | BucketPath
"""Where a table or a folder of tables is."""


def parse_location(text: str, folder: Location, options: Mapping[str, Any] | None = None) -> Location:
    """Return the location that a path or URL names. Nothing needs to exist there.

    Args:
        text: a path, or the URL of a prefix in a bucket in one of the spellings of `bucket_url`.
        folder: where a relative path starts, on disk or in a bucket.
        options: storage options of a URL, in upper or lower case. Credentials that they lack come from the environment
            and from the machine, as in deltalake and pyarrow. A path has none.

    Returns:
        An absolute path, or the prefix.

    Raises:
        InvalidInputError: the URL has an unknown scheme or host, or characters that a prefix must not have; or an
            option is not known, or not text, a number, true or false, or names another account than the URL.
    """
    if not is_url(text):
        if options:
            raise InvalidInputError(
                f"storage_options belong to the URL of a bucket, and {text} is a folder; remove them"
            )
        location = folder / text if isinstance(folder, Path) or not Path(text).is_absolute() else Path(text)
        return location.resolve() if isinstance(location, Path) else location
    scheme, key, account = parse_bucket_url(text)
    key = key.rstrip("/")
    if not _PLAIN.fullmatch(key) or ".." in key.split("/"):
        raise InvalidInputError(
            f"{hide_login(text)}: expected {scheme}://BUCKET/PREFIX, of letters, digits and . _ = + - only; "
            "credentials belong in storage_options"
        )
    checked = _check_options(scheme, options or {})
    if account is not None and checked.setdefault(_ACCOUNT, account) != account:
        raise InvalidInputError(
            f"{hide_login(text)} is in the account {account}, and storage_options has {_ACCOUNT} "
            f"{checked[_ACCOUNT]}; correct one of them"
        )
    return BucketPath(f"{scheme}://{key}", checked)


def find_object_url(text: str, prefix: BucketPath) -> str | None:
    """Return the URL, as `BucketObject` writes it, of an object below a prefix that a URL names in any spelling.

    None if it names no object below the prefix.
    """
    try:
        scheme, key, account = parse_bucket_url(text)
    except InvalidInputError:
        return None
    url = f"{scheme}://{key}"
    is_below = url.startswith(f"{prefix.url}/") and account in (None, prefix.options.get(_ACCOUNT))
    return url if is_below else None


def find_object(text: str, prefix: BucketPath | None) -> Path | BucketObject:
    """Return what a path or URL in a table names: an object if it is a URL below the prefix, else a file.

    Args:
        text: an absolute path, or the URL of an object.
        prefix: the only prefix whose objects are read; None for none.
    """
    if prefix is not None and text.startswith(f"{prefix.url}/"):
        return BucketObject(prefix, text.removeprefix(f"{prefix.url}/"))
    return Path(text)


def find_local_folder(location: Location, folder: Path, local_path: str | None) -> Path:
    """Return the folder of what stays on this machine beside tables: locks, caches, indexes.

    Args:
        location: where the tables are.
        folder: where a relative path starts.
        local_path: the setting `offline_store.local_path`; None if there is none.

    Raises:
        InvalidInputError: the tables are in a bucket and there is no setting, or it is not a path; or the tables are in
            a folder and there is one.
    """
    if isinstance(location, Path):
        if local_path is not None:
            raise InvalidInputError(
                f"offline_store.local_path is for tables in a bucket, and they are in {location}; remove it"
            )
        return location
    if not isinstance(local_path, str) or not local_path.strip() or is_url(local_path):
        raise InvalidInputError(
            f"offline_store.path is {location}, so offline_store.local_path must name a folder on this machine, for "
            "locks, caches and indexes"
        )
    return (folder / local_path).resolve()


def _check_options(scheme: str, options: Mapping[str, Any]) -> dict[str, str]:
    known = list(OPTIONS[scheme])
    checked: dict[str, str] = {}
    for name, value in options.items():
        if str(name).upper() not in known:
            raise InvalidInputError(f"storage_options has `{name}`; {scheme}:// takes {', '.join(known) or 'none'}")
        if not isinstance(value, str | int | float | bool) or value == "":
            raise InvalidInputError(f"storage_options: `{name}` has no value; expected text, a number, true or false")
        checked[str(name).upper()] = str(value).lower() if isinstance(value, bool) else str(value)
    return checked
