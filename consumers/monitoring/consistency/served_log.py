"""A sample of the rows served, byte for byte. `consume serve` writes it and `consume consistency` checks it later.

The file has one line of JSON for each sampled row:

    at    microseconds since 1970 UTC: the time of the request
    view  the view's name
    key   the online key in Base64
    row   the packed row in Base64; null if no row was online

One of every N reads of a view is logged, and of that read one key. A hash of the read's number selects both. The file
names users and products, so only its owner may read it (0600).
"""

import json
import logging
import threading
from base64 import b64decode, b64encode
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from zlib import crc32

from feature_repo.errors import InvalidInputError
from feature_repo.files.json_text import parse_json
from feature_repo.files.private_file import append_private

_log = logging.getLogger(__name__)


class ServedLog:
    """Writes a sample of the rows read, as the `on_read` callback of `OnlineTable`.

    Threads may share it, and processes may share the file. If the disk is full, logging stops with one error message
    and reads continue. The last line may then be incomplete.

    Args:
        file: file to append to; it is created if it does not exist. The end of a `with` statement closes it.
        one_in: log about one of this many reads, at least 1, which logs every read. A hash of the read's number selects
            them. Of a read with several keys, one is logged.

    Raises:
        InvalidInputError: the file cannot be written.
    """

    def __init__(self, file: Path, one_in: int) -> None:
        try:
            # A line is one write, so that processes can share the file.
            self._stream = append_private(file, "ab", buffering=0)
        except OSError as error:
            raise InvalidInputError(f"{file}: cannot write the log of served rows: {error.strerror}") from error
        self._one_in = one_in
        self._lock = threading.Lock()
        self._reads = 0
        self._has_failed = False

    def __call__(self, view: str, keys: Sequence[bytes], rows: Sequence[bytes | None], timestamp_us: int) -> None:
        """Log one row of a read, or nothing.

        Args:
            view: the view's name.
            keys: [n], the keys read.
            rows: [n], their packed rows; None if no row is online.
            timestamp_us: time of the request in microseconds since 1970 UTC.
        """
        self._reads += 1  # not locked: a race between threads loses a count and nothing else
        number = crc32(self._reads.to_bytes(8, "little"))
        if number % self._one_in or not keys or self._has_failed:
            return
        i = number // self._one_in % len(keys)
        row = rows[i]
        fields = {
            "at": timestamp_us,
            "view": view,
            "key": _to_text(keys[i]),
            "row": None if row is None else _to_text(row),
        }
        line = json.dumps(fields).encode() + b"\n"
        with self._lock:
            try:
                self._has_failed = self._stream.write(line) != len(line)
            except OSError:
                self._has_failed = True
        if self._has_failed:
            _log.error("%s: cannot write; served rows are no longer logged", self._stream.name)

    def __enter__(self) -> "ServedLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()


@dataclass(frozen=True)
class ServedRows:
    """n rows of one view as they were served, in the order of the log."""

    keys: list[bytes]
    """[n], online keys, which may repeat."""
    rows: list[bytes | None]
    """[n], the packed rows; None if no row was online."""
    timestamps_us: list[int]
    """[n], times of the requests in microseconds since 1970 UTC."""


def read(file: Path, max_rows: int) -> dict[str, ServedRows]:
    """Return the last rows of each view in a log, by view. A view without rows is missing.

    An incomplete last line is ignored.

    Args:
        file: the log.
        max_rows: largest number of rows of each view, at least 1; all rows if there are fewer.

    Raises:
        InvalidInputError: the file cannot be read, or a line is not one that `ServedLog` writes.
    """
    kept: dict[str, deque[tuple[bytes, bytes | None, int]]] = defaultdict(lambda: deque(maxlen=max_rows))
    number = 0
    try:
        with file.open("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):  # the last line, which is being written or was cut off by a full disk
                    break
                number += 1
                fields = parse_json(line)
                row = None if fields["row"] is None else b64decode(fields["row"])
                kept[fields["view"]].append((b64decode(fields["key"]), row, int(fields["at"])))
    except OSError as error:
        raise InvalidInputError(f"{file}: cannot read the log of served rows: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(
            f"{file}, line {number}: not a line that `consume serve --log-served` writes"
        ) from error
    return {view: ServedRows(*map(list, zip(*rows, strict=True))) for view, rows in kept.items()}


def _to_text(data: bytes) -> str:
    return b64encode(data).decode()
