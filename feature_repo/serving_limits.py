"""Request limits of a server. Imports nothing heavy, because `consume serve --help` shows the defaults."""

from dataclasses import dataclass, replace

MAX_ID_LENGTH = 256
"""Longest accepted id of a user or product, and longest name of a service, in characters."""


@dataclass(frozen=True)
class ServingLimits:
    """How much one server process accepts. All bounds are inclusive."""

    max_product_ids: int = 1_000
    """Largest number of candidate products in one request."""
    workers: int = 4
    """Requests processed at the same time, each in a thread."""
    queue_size: int = 60
    """Requests that may wait for a worker. The server rejects further requests at once, over HTTP with status 429."""
    deadline_seconds: float = 1.0
    """Time allowed for one request, in seconds; after it, the answer over HTTP is status 504. A request's own deadline
    applies if it is shorter."""
    max_streams: int = 64
    """Largest number of Arrow Flight streams open at the same time. Each one holds a thread. The server rejects further
    streams."""

    @property
    def max_request_bytes(self) -> int:
        """Size of the largest accepted request, in bytes, inclusive.

        It has room for every id at full length, each character escaped to 12 bytes, and 4 KiB for the rest.
        """
        return 4_096 + self.max_product_ids * (MAX_ID_LENGTH * 12 + 4)


@dataclass(frozen=True)
class PairLimits:
    """How much one server process accepts of requests for pairs. All bounds are inclusive."""

    max_pairs: int = 32
    """Largest number of pairs in one request."""
    max_picture_bytes: int = 2 * 2**20
    """Largest encoded picture, in bytes."""
    max_picture_pixels: int = 16_000_000
    """Largest width times height of a picture, as its header gives them; 48 MB as decoded RGB."""
    max_request_bytes: int = 8 * 2**20
    """Size of the largest accepted request, in bytes; base64 makes four bytes of three."""
    workers: int = 8
    """Requests whose pictures are decoded, or that wait for a batch, at the same time, each in a thread."""
    queue_size: int = 56
    """Requests that may wait for a worker. The server rejects further requests at once, over HTTP with status 429."""
    max_batch_pairs: int = 32
    """Pairs that are scored together, except that all pairs of one request are."""
    batch_wait_seconds: float = 0.002
    """How long the first request of a batch waits for others, in seconds."""


@dataclass(frozen=True)
class ConnectionLimits:
    """What one HTTP connection may send and hold, and how many there may be. All bounds are inclusive.

    A connection that exceeds one is closed, and `vitrine_serving_connections_refused_total` counts it by reason:

        header_size   `max_header_bytes`; the caller gets status 431
        header_time   `header_seconds` after a header began; status 408
        silent        `header_seconds` without a byte
        request_time  `request_seconds`: the caller does not send its body, or does not take the response
        unread_body   `max_unread_bytes` or `header_seconds` of a body after its response
        pipelining    too many requests were sent ahead of the response to the first
        malformed     what arrived is not HTTP; status 400
        handshake     TLS was not set up, or not within `header_seconds`
        evicted       `max_connections` were open, and this one was the oldest that had not shown the token
        full          `max_connections` were open, all with the token: new ones wait until one is closed
        descriptors   the process or the machine had no free descriptor: new ones wait
    """

    max_connections: int = 1_000
    """Largest number of connections of a process. Fewer if its limit of descriptors leaves no room for them."""
    max_header_bytes: int = 16_384
    """Longest request line and header together, in bytes."""
    header_seconds: float = 5.0
    """Time for a header, and for the TLS handshake before it."""
    idle_seconds: float = 5.0
    """Time between two requests, in seconds."""
    request_seconds: float = 31.0
    """Time from the end of a header until the response has been handed to the network, in seconds."""
    max_unread_bytes: int = 4_194_304
    """Bytes of a body that are read and dropped after a response that did not wait for them."""

    def for_deadline(self, deadline_seconds: float) -> "ConnectionLimits":
        """Return these limits with `request_seconds` 30 seconds longer than a request's deadline."""
        return replace(self, request_seconds=deadline_seconds + 30.0)


@dataclass(frozen=True)
class PageLimits:
    """How much the page requests of one server process take. All bounds are inclusive."""

    workers: int = 2
    """Page requests processed at the same time, each in a thread."""
    queue_size: int = 30
    """Page requests that may wait. The server rejects further ones with status 429."""
    deadline_seconds: float = 10.0
    """Time allowed for one page request, in seconds."""
    max_upload_bytes: int = 8 * 2**20
    """Size of the largest form with a picture. How many pixels a picture may have is in images/decoding.py."""


@dataclass(frozen=True)
class CaptionLimits:
    """How much the studio accepts of requests for captions. All bounds are inclusive."""

    max_picture_bytes: int = 8 * 2**20
    """Largest encoded picture, in bytes."""
    max_picture_pixels: int = 16_000_000
    """Largest width times height of a picture, as its header gives them; 48 MB as decoded RGB."""
    max_request_bytes: int = 12 * 2**20
    """Size of the largest accepted request, in bytes; base64 makes four bytes of three."""
    max_title_characters: int = 500
    """Longest title."""
    max_attributes: int = 20
    """Most attributes that a request may state."""
    max_length: int = 200
    """Largest number of characters that may be asked for."""
    max_count: int = 16
    """Most lines that may be asked for."""
    workers: int = 2
    """Pictures decoded at the same time, each in a thread."""
    queue_size: int = 30
    """Requests in progress or waiting. The server rejects further ones at once, with status 503."""
    max_batch: int = 16
    """Requests whose lines are written together."""
    batch_wait_seconds: float = 0.002
    """How long the first request of a batch waits for others, in seconds."""
    deadline_seconds: float = 10.0
    """Time allowed for one request, in seconds."""


@dataclass(frozen=True)
class PictureLimits:
    """How much the studio accepts of requests for generated pictures. All bounds are inclusive."""

    max_request_bytes: int = 16_384
    """Size of the largest accepted request, in bytes."""
    max_sentence_characters: int = 500
    """Longest sentence."""
    max_steps: int = 100
    """Most steps of the sampler."""
    max_count: int = 8
    """Most pictures of one job."""
    max_side: int = 768
    """Largest height and width, in pixels."""
    max_guidance: float = 20.0
    """Largest guidance scale."""
    queue_size: int = 20
    """Jobs that may wait. The server rejects further ones with status 503."""
    max_jobs: int = 200
    """Finished jobs that are kept; the oldest are deleted first."""
    max_age_days: float = 30.0
    """Days for which finished jobs are kept."""
