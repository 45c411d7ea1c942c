"""Memory that one batch took is kept for the next.

glibc gives large pieces back to the system as they are freed and takes them anew page by page: with a small model on a
CPU that took as long as a seventh of its steps.
"""

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Of mallopt(3)."""
LARGEST = 32 * 2**20
"""Bytes of a piece that is kept: the most that glibc allows. Pictures and features of a batch are some megabytes."""
NEVER = 2**31 - 1


def keep() -> None:
    """Do so from now on, in all of this process. Elsewhere than on Linux with glibc, nothing."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(MMAP_THRESHOLD, LARGEST)
        libc.mallopt(TRIM_THRESHOLD, NEVER)
