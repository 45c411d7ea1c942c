"""Ask for one image over HTTP: bounded in size and time, to allowed addresses, without following redirects."""

import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urljoin

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, HTTPError, InvalidHeader, NewConnectionError, SSLError
from urllib3.exceptions import TimeoutError as HTTPTimeoutError
from urllib3.util.connection import create_connection

from feature_repo.images.decoding import MAX_BYTES, NOT_AN_IMAGE, NOT_READ
from feature_repo.images.formats import FORMATS, recognize_format
from producers.downloads.addresses import ForbiddenAddressError, Network, resolve_allowed

HEADERS = {
    "User-Agent": "vitrine (downloads product images)",
    "Accept": "image/avif, image/webp, image/png, image/jpeg, image/*;q=0.8, */*;q=0.1",
    "Accept-Encoding": "identity",
}
CHUNK_BYTES = 1 << 16
TEMPORARY_STATUSES = (408, 425, 429, 500, 502, 503, 504)
"""HTTP statuses after which the same request can succeed."""
REDIRECT_STATUSES = (301, 302, 303, 307, 308)
_UNTYPED = ("", "application/octet-stream", "binary/octet-stream", "application/x-octet-stream")
"""Content types that say nothing: the first bytes decide."""

FORBIDDEN_ADDRESS = "the address is private, reserved or of this machine (see --allow-network)"
INVALID_URL = "not a usable http or https URL"
UNREACHABLE = "the host cannot be reached"
UNVERIFIED = "the host's certificate is not valid"
TOO_SLOW = "the answer took too long"
INTERRUPTED = "the answer ended early or is not HTTP"
TOO_LARGE = f"larger than {MAX_BYTES >> 20} MiB"


@dataclass(frozen=True)
class FetchLimits:
    """Bounds of one request."""

    seconds: float = 60.0
    """For the head of the answer, and for the whole answer."""
    stall_seconds: float = 15.0
    """For connecting, and for each wait for bytes."""
    max_bytes: int = MAX_BYTES
    allowed: tuple[Network, ...] = ()
    """Networks that may be connected to besides public addresses."""
    connections_per_host: int = 4


@dataclass(frozen=True)
class FetchedImage:
    """An answer: an image, the word that it is unchanged, or another URL to ask."""

    content: bytes | None = None
    """The encoded bytes; None if it is unchanged or moved."""
    moved_to: str | None = None
    """The absolute URL that the answer names instead."""
    etag: str | None = None
    last_modified: str | None = None


class FetchError(Exception):
    """A request gave no image.

    Attributes:
        reason: one of a few texts, so that callers can count by it.
        is_temporary: whether the same request can succeed later.
        retry_after_seconds: how long the server asks to wait; None if it does not.
    """

    def __init__(self, reason: str, *, is_temporary: bool = False, retry_after_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.is_temporary, self.retry_after_seconds = reason, is_temporary, retry_after_seconds


def parse_host(url: str) -> str:
    """Return the host and port of a URL, lower-case, such as `shop.example:443`.

    Raises:
        FetchError: it is not an http or https URL, has no host, or names a user: a password would reach the logs.
    """
    try:
        parts = urllib3.util.parse_url(url)
    except (HTTPError, ValueError) as error:
        raise FetchError(INVALID_URL) from error
    if parts.scheme not in ("http", "https") or not parts.host or parts.auth:
        raise FetchError(INVALID_URL)
    return f"{parts.host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def make_client(limits: FetchLimits) -> urllib3.PoolManager:
    """Return a client of http and https that keeps connections and connects to allowed addresses only.

    Threads may share it. Proxies of the environment are not used: they would look up names themselves.
    """
    http = type("_Http", (_CheckedConnection,), {"limits": limits})
    https = type("_Https", (_CheckedConnection, HTTPSConnection), {"limits": limits})
    client = urllib3.PoolManager(
        num_pools=64,
        maxsize=limits.connections_per_host,
        timeout=urllib3.Timeout(connect=limits.stall_seconds, read=limits.stall_seconds),
        retries=False,
    )
    client.pool_classes_by_scheme = {
        "http": type("_HttpPool", (HTTPConnectionPool,), {"ConnectionCls": http}),
        "https": type("_HttpsPool", (HTTPSConnectionPool,), {"ConnectionCls": https}),
    }
    return client


def fetch_image(
    client: urllib3.PoolManager, url: str, limits: FetchLimits, *, etag: str | None, last_modified: str | None
) -> FetchedImage:
    """Ask for an image once.

    Args:
        client: from `make_client`.
        url: an http or https URL.
        limits: those of the client.
        etag: the tag of the copy that is here; None to ask for the image in any case.
        last_modified: the date of that copy, as the server gave it; None likewise.

    Raises:
        FetchError: no image came: the address is not allowed, the host does not answer, or the answer is an error, not
            an image of a format that is read, too large or too slow.
    """
    parse_host(url)
    conditions = {"If-None-Match": etag, "If-Modified-Since": last_modified}
    headers = HEADERS | {name: value for name, value in conditions.items() if value}
    deadline = time.monotonic() + limits.seconds
    try:
        response = client.urlopen("GET", url, headers=headers, redirect=False, preload_content=False)
    except Exception as error:
        raise _explain(error) from error
    try:
        answer = _read_answer(response, url, limits, deadline, is_conditional=bool(etag or last_modified))
    except BaseException:
        response.close()  # what is left of the answer is not read
        raise
    response.release_conn()
    return answer


def _read_answer(
    response: urllib3.BaseHTTPResponse, url: str, limits: FetchLimits, deadline: float, *, is_conditional: bool
) -> FetchedImage:
    headers = response.headers
    if response.status == 304 and is_conditional:
        return FetchedImage(etag=headers.get("ETag"), last_modified=headers.get("Last-Modified"))
    if response.status in REDIRECT_STATUSES and headers.get("Location"):
        response.close()
        return FetchedImage(moved_to=urljoin(url, headers["Location"]))
    if response.status != 200:
        raise FetchError(
            f"HTTP status {response.status}",
            is_temporary=response.status in TEMPORARY_STATUSES,
            retry_after_seconds=_parse_retry_after(headers.get("Retry-After")),
        )
    content_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if not content_type.startswith("image/") and content_type not in _UNTYPED:
        raise FetchError(f"not an image but {content_type[:60]}")
    content = _read_body(response, limits, deadline)
    name = recognize_format(content)
    if name not in FORMATS:
        raise FetchError(NOT_AN_IMAGE if name is None else f"{NOT_READ} ({name})")
    return FetchedImage(content, etag=headers.get("ETag"), last_modified=headers.get("Last-Modified"))


def _read_body(response: urllib3.BaseHTTPResponse, limits: FetchLimits, deadline: float) -> bytes:
    stated = response.headers.get("Content-Length", "")
    if stated.isdecimal() and int(stated) > limits.max_bytes:
        raise FetchError(TOO_LARGE)
    parts, size = [], 0
    try:
        while part := response.read1(CHUNK_BYTES):
            parts.append(part)
            size += len(part)
            if size > limits.max_bytes:
                raise FetchError(TOO_LARGE)
            if time.monotonic() > deadline:
                raise FetchError(TOO_SLOW, is_temporary=True)
    except FetchError:
        raise
    except Exception as error:
        raise _explain(error) from error
    return b"".join(parts)


def _parse_retry_after(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks to wait, from its number or its date; None if unreadable."""
    try:
        return urllib3.Retry().parse_retry_after(value) if value else None
    except InvalidHeader:
        return None


def _explain(error: Exception) -> FetchError:
    """Return the reason of an error of the client. An error of an unknown kind is one of the answer."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ForbiddenAddressError):
            return FetchError(FORBIDDEN_ADDRESS)
        if isinstance(cause, (SSLError, ssl.SSLError)):
            return FetchError(UNVERIFIED)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, (NewConnectionError, ConnectTimeoutError)):
        return FetchError(UNREACHABLE, is_temporary=True)
    if isinstance(error, HTTPTimeoutError):
        return FetchError(TOO_SLOW, is_temporary=True)
    return FetchError(INTERRUPTED, is_temporary=True)


class _CheckedConnection(HTTPConnection):
    """A connection to an address that was checked, whose answer must begin in time."""

    limits: ClassVar[FetchLimits]

    def _new_conn(self) -> Any:
        try:
            addresses: Sequence[str] = resolve_allowed(self._dns_host.strip("[]"), self.port, self.limits.allowed)
        except (OSError, UnicodeError) as error:
            raise NewConnectionError(self, f"{self.host} cannot be resolved") from error
        for address in addresses:
            try:
                return create_connection((address, self.port), self.limits.stall_seconds)
            except OSError as error:
                failure = error
        raise NewConnectionError(self, f"no connection to {self.host}") from failure

    def getresponse(self) -> Any:
        # A socket's timeout begins again with each byte, so a head that drips is ended by another thread.
        deadline = time.monotonic() + self.limits.seconds
        watchdog = threading.Timer(self.limits.seconds, self._shut_down)
        watchdog.daemon = True
        watchdog.start()
        try:
            response = super().getresponse()
        finally:
            watchdog.cancel()
        if time.monotonic() >= deadline:  # what came until then can look like a whole head
            raise TimeoutError
        return response

    def _shut_down(self) -> None:
        with suppress(OSError, AttributeError):  # it ended meanwhile
            self.sock.shutdown(socket.SHUT_RDWR)
