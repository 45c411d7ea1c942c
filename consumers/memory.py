"""Memory of a process that answers request after request.

A request takes some MB for rows and matrices, and frees them. glibc then gives the end of its heap back to the system,
and the next request gets it anew, page by page: some 300 page faults, up to a quarter of a reading's time. Whether that
happens hangs on what else lies where; `keep_freed` rules it out.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""glibc's names for its settings, of malloc.h."""
_KEPT = 32 << 20
"""Bytes; glibc takes no larger threshold for what it asks the system for by itself."""


def keep_freed() -> None:
    """Keep what is freed for what is asked for next; where there is no glibc, nothing happens."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _KEPT)
        mallopt(_MMAP_THRESHOLD, _KEPT)
