"""How much a server takes upon itself. Imports nothing: the command line shows these numbers and must start fast."""

from dataclasses import dataclass

MAX_ID_LETTERS = 256
"""Of a user, a product or a service."""


@dataclass(frozen=True)
class Limits:
    """What a server takes upon itself."""

    ids: int = 1_000
    """Candidates of one request."""
    workers: int = 4
    """Requests in work at once."""
    waiting: int = 60
    """Requests that wait for a worker; the next is refused."""
    deadline: float = 1.0
    """Seconds after which a request is given up, or its own deadline if that is sooner."""
    streams: int = 64
    """Flight streams open at once, each of which holds a thread; the next is refused."""

    @property
    def bytes(self) -> int:
        """Of one request: as many ids of the longest kind as it may have, each letter escaped, and as much again."""
        return 4_096 + self.ids * (MAX_ID_LETTERS * 12 + 4)
