"""Memory of a process that does much the same again and again: requests of a server, batches of a model.

Each takes some MB, and frees them. glibc then gives the end of its heap back to the system, and the next gets it anew,
page by page: up to a quarter of a reading's time, and of an encoding's on a CPU. Whether that happens hangs on what
else lies where; `keep_freed` rules it out. Price: the process stays as large as it once was.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""glibc's names for its settings, of malloc.h."""
_NEVER = 2**31 - 1
_LARGEST = 32 << 20
"""Bytes of a piece; glibc takes no larger threshold for what it asks the system for by itself."""


def keep_freed() -> None:
    """Keep what is freed for what is asked for next; where there is no glibc, nothing happens."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _NEVER)
        mallopt(_MMAP_THRESHOLD, _LARGEST)
