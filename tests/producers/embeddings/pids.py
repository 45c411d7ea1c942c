"""What a worker of a pool says of itself; imports nothing, so that it starts at once."""

import os
import time


def pid(seconds: float) -> int:
    """Its process, after so long that each of its siblings is given something to do as well."""
    time.sleep(seconds)
    return os.getpid()
