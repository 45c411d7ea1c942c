"""One step of the day as a child process, which ends when its parent is killed."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import feature_repo
from feature_repo import config

PR_SET_PDEATHSIG = 1
"""Linux: the signal that a process gets when its parent ends (prctl(2))."""
ERROR = "error: "


def run_process(
    command: Sequence[str], folder: Path, store: Path, on_line: Callable[[str], None]
) -> tuple[int, str | None]:
    """Run a command of `produce`, `consume` or `feast`, and wait for its end.

    Args:
        command: the program and its arguments. The programs are those of this Python installation.
        folder: where it starts; `feast` starts in the folder of the feature views.
        store: the deployment's feature_store.yaml.
        on_line: called with each line that the command prints, on either stream.

    Returns:
        The exit code, negative for a signal; and the text of the last line that begins with "error: ", else the last
        line that is not blank; None without output.
    """
    program = command[0]
    environment: Mapping[str, str] = {**os.environ, config.ENVIRONMENT_VARIABLE: str(store), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        _find_program(command),
        cwd=Path(feature_repo.__file__).parent if program == "feast" else folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        preexec_fn=_end_with_parent(os.getpid()),
    )
    error = last = None
    assert process.stdout is not None
    with process:
        for line in process.stdout:
            on_line(line.rstrip("\n"))
            last = line.strip() or last
            if line.startswith(ERROR):
                error = line.removeprefix(ERROR).strip()
    return process.returncode, error or last


def _find_program(command: Sequence[str]) -> list[str]:
    """Return the command with the program of this Python installation; for `feast` that of feast_command.py."""
    program, *arguments = command
    if program == "feast":
        return [sys.executable, "-P", "-m", "producers.pipeline.feast_command", *arguments]
    path = Path(sys.executable).parent / program
    return [str(path) if path.exists() else program, *arguments]


def _end_with_parent(parent: int) -> Callable[[], None] | None:
    """Return a function that makes the process that calls it end with its parent; None on other systems than Linux.

    A step that ran on after `produce day` was killed would hold its lock, and the next day would be refused.
    """
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)

    def set_signal() -> None:
        library.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # killed before the call
            os._exit(1)

    return set_signal
