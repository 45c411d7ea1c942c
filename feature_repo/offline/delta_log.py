"""Keep the log of a Delta table short: a checkpoint, and the commits since then or of the last hours.

A reader needs the newest checkpoint and the commits after it. Older entries say which files earlier versions had, and
name the ids of deleted rows. Each opening of a table lists the whole log, on disk at least.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from pyarrow.fs import FileInfo, FileSelector

from feature_repo.location import REQUESTS, Location
from feature_repo.offline import delta
from feature_repo.offline.storage import open_storage, translate_errors

RETENTION_PROPERTY = "delta.logRetentionDuration"
"""A table property: how long the log of the table is kept. If it is set, it takes precedence over LOG_RETENTION."""
LOG_RETENTION = timedelta(hours=26)
"""How long the log is kept: until the next run of a daily step, which asks for the files that its last run saw."""

_ENTRY = re.compile(r"(\d{20})\.(.+)")


def shorten_log(path: Location, keep: timedelta) -> int:
    """Write a checkpoint, from which on a reader reads the log, and remove older entries of the log.

    Transaction versions and markers stay. A table whose `delta.logRetentionDuration` is set keeps its log for that
    time.

    Args:
        path: the table's location.
        keep: entries written less than this long ago stay.

    Returns:
        The number of entries removed; 0 if the table's property decides.

    Raises:
        UnavailableError: the checkpoint cannot be written, or an entry not be removed.
        CorruptDataError: there is no table at `path`, or its log cannot be read.
    """

    def write_checkpoint() -> int | None:
        table = delta.open_table(path)
        table.create_checkpoint()
        if RETENTION_PROPERTY in table.metadata().configuration:
            table.cleanup_metadata()
            return None
        return table.version()

    checkpoint = delta.commit_with_retries(path, write_checkpoint)
    return 0 if checkpoint is None else _remove_entries(path, checkpoint, datetime.now(UTC) - keep)


def _remove_entries(path: Location, checkpoint: int, before: datetime) -> int:
    """Remove the entries of versions before a checkpoint that were written before a time; return their number."""
    storage = open_storage(path)

    def is_old(info: FileInfo) -> bool:
        entry = _ENTRY.fullmatch(info.base_name)
        return info.is_file and entry is not None and int(entry[1]) < checkpoint and info.mtime < before

    def remove(name: str) -> bool:
        try:
            storage.filesystem.delete_file(name)
        except FileNotFoundError:  # another process shortens the log too
            return False
        return True

    with translate_errors(storage.uri), ThreadPoolExecutor(REQUESTS) as executor:
        entries = storage.filesystem.get_file_info(FileSelector("_delta_log"))
        return sum(executor.map(remove, sorted(info.path for info in entries if is_old(info))))
