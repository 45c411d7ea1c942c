"""A sample of what was served, byte for byte: `consume serve` writes it, `consume consistency` judges it later.

A line of JSON for each key in the sample: `at` (microseconds since 1970 UTC, as the request had it), `view`, `key` and
`row` in Base64, `row` null where nothing was online. Of so many readings of a view one is in the sample, and of that
one key; which ones, a hash of their count says. It names users and products: keep it as you keep such logs.
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

from feature_repo.errors import VitrineError

_log = logging.getLogger(__name__)


class ServedLog:
    """Writes; a witness of `OnlineTable`. Threads may share it, and processes the file.

    Where the disk is full the sample ends, said once, and readings go on: the last line may then be half.

    Args:
        one_in: of so many readings of a view one is written.

    Raises:
        VitrineError: the file cannot be written.
    """

    def __init__(self, file: Path, one_in: int) -> None:
        try:
            self._stream = file.open("ab", buffering=0)  # a line is one write, whoever else appends
        except OSError as error:
            raise VitrineError(f"{file}: what is served cannot be logged there: {error.strerror}") from error
        self._one_in = one_in
        self._lock = threading.Lock()
        self._readings = 0
        self._ended = False

    def __call__(self, view: str, keys: Sequence[bytes], rows: Sequence[bytes | None], at: int) -> None:
        """One reading, as of `at`."""
        self._readings += 1  # of several threads, under the interpreter's lock: at worst one is not counted
        number = crc32(self._readings.to_bytes(8, "little"))
        if number % self._one_in or not keys or self._ended:
            return
        place = number // self._one_in % len(keys)
        row = rows[place]
        said = {"at": at, "view": view, "key": _text(keys[place]), "row": None if row is None else _text(row)}
        line = json.dumps(said).encode() + b"\n"
        with self._lock:
            try:
                self._ended = self._stream.write(line) != len(line)
            except OSError:
                self._ended = True
        if self._ended:
            _log.error("%s: no room; what is served is not logged any more", self._stream.name)

    def __enter__(self) -> "ServedLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()


@dataclass(frozen=True)
class Served:
    """n rows of one view as they were served, the earliest first."""

    keys: list[bytes]
    rows: list[bytes | None]
    at: list[int]
    """Microseconds since 1970 UTC."""


def read(file: Path, newest: int) -> dict[str, Served]:
    """The last `newest` rows of each view in a log; a last line without its end does not count.

    Raises:
        VitrineError: the file cannot be read, or a line is none of a log.
    """
    kept: dict[str, deque[tuple[bytes, bytes | None, int]]] = defaultdict(lambda: deque(maxlen=newest))
    number = 0
    try:
        with file.open("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):  # the last one, half written: as yet, or for good on a full disk
                    break
                number += 1
                said = json.loads(line)
                row = None if said["row"] is None else b64decode(said["row"])
                kept[said["view"]].append((b64decode(said["key"]), row, int(said["at"])))
    except OSError as error:
        raise VitrineError(f"{file}: no readable log of what was served: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise VitrineError(f"{file}, line {number}: no line of what `consume serve --log-served` writes") from error
    return {view: Served(*map(list, zip(*rows, strict=True))) for view, rows in kept.items()}


def _text(data: bytes) -> str:
    return b64encode(data).decode()
