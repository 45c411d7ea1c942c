"""Request limits of a server. Imports nothing heavy, because `consume serve --help` shows the defaults."""

from dataclasses import dataclass

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
