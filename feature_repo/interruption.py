"""Ctrl-C ends a command line in one line and exit code 130, from its first moment on.

Nothing heavy is imported here: what this guards is first of all the importing, a second in which nobody else listens.
"""

import sys
from collections.abc import Callable

from feature_repo import extras

INTERRUPTED = 130
"""What a shell makes of a command that SIGINT ended."""


def run_interruptible(work: Callable[[], None]) -> None:
    """Do `work`; interrupted, say so and exit."""
    try:
        work()
        return
    except KeyboardInterrupt:
        pass
    except ModuleNotFoundError as error:
        message = extras.describe_missing(error)
        if message is None:
            raise
        sys.stderr.write(f"error: {message}\n")
        sys.exit(1)
    except SystemExit as ended:
        if ended.code != INTERRUPTED:  # else typer caught it, and has said nothing
            raise
    sys.stderr.write("interrupted\n")
    sys.exit(INTERRUPTED)
