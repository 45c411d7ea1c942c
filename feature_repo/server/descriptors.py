"""File descriptors of a server process: each connection takes one, and so do the store, the logs and the libraries."""

import resource
import sys
from contextlib import suppress
from pathlib import Path

RESERVE = 64
"""Descriptors that connections of callers must leave free: for the online store, logs, modules and timers."""
MIN_CONNECTIONS = 8
"""Connections that are accepted even if the limit of the process leaves no room for them and the reserve."""
_OPEN = Path("/proc/self/fd" if sys.platform == "linux" else "/dev/fd")


def raise_descriptor_limit() -> int:
    """Raise this process's soft limit of open descriptors to its hard limit, and return the limit that then holds.

    A system that refuses it keeps its limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):  # macOS refuses a soft limit without bound
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def count_open_descriptors() -> int:
    """Return how many descriptors this process has open."""
    return sum(1 for _ in _OPEN.iterdir())


def bound_connections(wanted: int) -> int:
    """Return how many connections this process may hold: `wanted`, or fewer if its descriptors do not suffice.

    Args:
        wanted: the number of connections if descriptors are no concern.

    Returns:
        At most what is free now less RESERVE, and at least MIN_CONNECTIONS.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return wanted
    return min(wanted, max(MIN_CONNECTIONS, limit - count_open_descriptors() - RESERVE))
