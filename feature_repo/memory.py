"""Memory settings for processes that do the same work many times: requests of a server, batches of a model.

Each request allocates some megabytes and frees them. glibc returns the free end of its heap to the system, and the next
request gets it back page by page. That costs up to a quarter of the time of a read, and of encoding on a CPU. Whether
it happens depends on the order of allocations; `keep_freed` prevents it. The price: the process never shrinks.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""glibc's parameters M_TRIM_THRESHOLD and M_MMAP_THRESHOLD (malloc.h)."""
_NEVER = 2**31 - 1
_MAX_MMAP_THRESHOLD_BYTES = 32 << 20
"""glibc's maximum. Larger blocks always come directly from the system."""


def keep_freed() -> None:
    """Make glibc keep freed memory for later allocations of this process, from now on. Without glibc, nothing happens.

    Blocks of more than 32 MiB are still returned to the system when they are freed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _NEVER)
        mallopt(_MMAP_THRESHOLD, _MAX_MMAP_THRESHOLD_BYTES)
