"""A task for the workers of a pool; imports nothing of this project, so that they start at once."""

import os
import time


def pid(seconds: float) -> int:
    """Return the id of the worker process, after a pause in which the other workers get tasks too."""
    time.sleep(seconds)
    return os.getpid()
