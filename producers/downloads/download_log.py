"""What is known of each URL: the key of its image in the LMDB, what the server said of it, and the last failure.

A SQLite file beside the LMDB, so that a later run asks only for what is missing. URLs can hold access tokens: the file
can be read by its owner only.

    url            the URL as the products table has it
    key            key of the image in the LMDB; null if it was never downloaded
    etag           the server's tag of that image; null if it gave none
    last_modified  the server's date of that image, as it gave it; null if it gave none
    asked_at       when the URL was last asked for, ISO 8601 in UTC
    error          why the last request gave no image; null if it did, or if the image was unchanged
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from feature_repo.errors import ConflictError, CorruptDataError

FILE = "downloads.sqlite"
"""The file's name, in the folder that `produce images` writes."""
BUSY_SECONDS = 30.0
"""How long a run waits for another one that writes."""


@dataclass(frozen=True)
class KnownUrl:
    """A row of the log, without the time."""

    url: str
    key: str | None = None
    etag: str | None = None
    last_modified: str | None = None
    error: str | None = None


class DownloadLog:
    """The rows of an open file. One thread may use it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def read(self, urls: Sequence[str]) -> Mapping[str, KnownUrl]:
        """Return what is known of URLs, by URL; those that were never asked for are left out."""
        rows = self._connection.execute(
            "SELECT url, key, etag, last_modified, error FROM downloads WHERE url IN (SELECT value FROM json_each(?))",
            (json.dumps(urls),),
        )
        return {row[0]: KnownUrl(*row) for row in rows}

    def record(self, rows: Iterable[KnownUrl], now: datetime) -> None:
        """Store the outcome of requests, in one commit. A failure keeps the key of an earlier image of the URL."""
        with self._connection:
            self._connection.executemany(
                "INSERT INTO downloads VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (url) DO UPDATE SET "
                "key = coalesce(excluded.key, key), asked_at = excluded.asked_at, error = excluded.error, "
                "etag = iif(excluded.key IS NULL, etag, excluded.etag), "
                "last_modified = iif(excluded.key IS NULL, last_modified, excluded.last_modified)",
                [(row.url, row.key, row.etag, row.last_modified, now.isoformat(), row.error) for row in rows],
            )

    def forget(self, keys: Iterable[str]) -> int:
        """Delete the rows of images, given by their keys, and overwrite their bytes; return how many there were."""
        self._connection.execute("PRAGMA secure_delete = ON")
        with self._connection:
            return self._connection.execute(
                "DELETE FROM downloads WHERE key IN (SELECT value FROM json_each(?))", (json.dumps(list(keys)),)
            ).rowcount


@contextmanager
def open_log(folder: Path) -> Iterator[DownloadLog]:
    """Open the log of a folder; create both if they do not exist. It is closed when the context ends.

    Raises:
        ConflictError: another run has written for BUSY_SECONDS.
        CorruptDataError: the file is not a SQLite file, or cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).touch(0o600)
    try:
        with closing(sqlite3.connect(folder / FILE, timeout=BUSY_SECONDS)) as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS downloads "
                "(url TEXT PRIMARY KEY, key TEXT, etag TEXT, last_modified TEXT, asked_at TEXT, error TEXT)"
            )
            yield DownloadLog(connection)
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
            raise ConflictError(
                f"{folder / FILE}: another run writes to it; run this again when it has ended"
            ) from error
        raise CorruptDataError(
            f"{folder / FILE}: {error}; check the free disk space, or remove the file; all URLs are then requested anew"
        ) from error
