"""End a command line on Ctrl-C with one line and exit code 130, even while its modules are being imported.

This module imports nothing heavy, because the imports themselves, which take about a second, must be guarded.
"""

import sys
from collections.abc import Callable

from feature_repo import extras

INTERRUPTED = 130
"""Exit code of a command that SIGINT ended, by shell convention."""


def run_interruptible(work: Callable[[], None]) -> None:
    """Call `work` and return when it returns. On Ctrl-C, write "interrupted" to standard error and exit with 130.

    A missing module of an extra is one line with its install command, and exit code 1. Every other exception of `work`,
    also a SystemExit with another code, is raised as it is.
    """
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
    except SystemExit as end:
        if end.code != INTERRUPTED:  # 130 means that typer caught Ctrl-C and wrote nothing
            raise
    sys.stderr.write("interrupted\n")
    sys.exit(INTERRUPTED)
