"""Whether an LMDB file is all there: who reads past the end of one that was cut off is killed (SIGBUS).

A copy that broke off has the first pages, which name the last one; that one then lies past the file's end. It may do so
in a sound file too: a commit that deletes takes pages and gives them back, and does not write them. So a file that is
short by whole pages is read to its end, by a process that may be killed.
"""

import subprocess
import sys
from pathlib import Path

import lmdb

from feature_repo.errors import VitrineError

_READ_ALL = """
import lmdb, sys
with lmdb.open(sys.argv[1], readonly=True, readahead=False) as environment:
    with environment.begin(buffers=True) as transaction, transaction.cursor() as cursor:
        for _, value in cursor:
            bytes(value[-1:])
"""


def refuse_if_cut_off(environment: lmdb.Environment, file: Path) -> None:
    """Read the file's end, if there is any doubt of it.

    Raises:
        VitrineError: pages that are in use are not in the file.
    """
    page = environment.stat()["psize"]
    wanted = (environment.info()["last_pgno"] + 1) * page
    size = file.stat().st_size
    if size < wanted and (size % page or not _is_read(file.parent)):
        raise VitrineError(
            f"LMDB at {file.parent}: data.mdb has {size:,} of {wanted:,} bytes, so it was cut off, by a copy perhaps; "
            "copy it again, or remove the folder, run `feast apply` and materialize anew"
        )


def _is_read(folder: Path) -> bool:
    """Whether a process comes to the end of all values."""
    return subprocess.run([sys.executable, "-c", _READ_ALL, folder], capture_output=True, check=False).returncode == 0
