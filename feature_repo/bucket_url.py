"""URLs of buckets in the spellings of deltalake, pyarrow and Spark, made one: `s3://`, `gs://` or `az://BUCKET/KEY`.

s3://BUCKET/KEY   s3a://BUCKET/KEY
gs://BUCKET/KEY   gcs://BUCKET/KEY
az://CONTAINER/KEY   azure:// adl:// abfs:// abfss:// likewise
abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/KEY
abfss://ACCOUNT.blob.core.windows.net/CONTAINER/KEY
"""

import re
from typing import NamedTuple

from feature_repo.errors import InvalidInputError

SCHEMES = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gs",
    "gcs": "gs",
    "az": "az",
    "azure": "az",
    "adl": "az",
    "abfs": "az",
    "abfss": "az",
}
"""Accepted scheme -> the one it is written as: Amazon S3 and what speaks its protocol, Google Cloud Storage, Azure."""
_URL = re.compile(r"(?P<scheme>[A-Za-z0-9+.-]+)://(?P<rest>.*)", re.DOTALL)
_AZURE_HOST = re.compile(r"([a-z0-9]+)\.(?:dfs|blob)\.core\.windows\.net")


class BucketUrl(NamedTuple):
    """The parts of a URL."""

    scheme: str
    """`s3`, `gs` or `az`."""
    key: str
    """BUCKET/KEY, as it is in the URL; any characters."""
    account: str | None
    """The storage account that the URL of Azure names; None if it names none."""


def is_url(text: str) -> bool:
    """Return whether a text is a URL and not a path."""
    return _URL.match(text) is not None


def parse_bucket_url(text: str) -> BucketUrl:
    """Return the parts of a URL.

    Raises:
        InvalidInputError: the scheme is none of SCHEMES, or the URL names a host that is none of Azure's.
    """
    match = _URL.fullmatch(text)
    scheme = None if match is None else SCHEMES.get(match["scheme"].lower())
    if match is None or scheme is None:
        raise InvalidInputError(
            f"{hide_login(text)}: expected a folder, or a bucket as "
            f"{', '.join(f'{known}://' for known in dict.fromkeys(SCHEMES.values()))} or abfss://; change the URL, or "
            "mount the bucket as a folder"
        )
    head, slash, key = match["rest"].partition("/")
    container, at, host = head.rpartition("@")
    if scheme != "az" or ":" in container or not (at or "." in host):
        return BucketUrl(scheme, match["rest"], None)
    account = _AZURE_HOST.fullmatch(host)
    if account is None:
        raise InvalidInputError(
            f"{hide_login(text)}: expected az://CONTAINER/PREFIX or abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/"
            "PREFIX; name the host of another cloud by AZURE_STORAGE_ENDPOINT in storage_options"
        )
    return BucketUrl(scheme, container + slash + key if at else key, account[1])


def hide_login(url: str) -> str:
    """Return a URL without user name, password and query, for a message."""
    return re.sub(r"//[^/]*@", "//", url.partition("?")[0])
