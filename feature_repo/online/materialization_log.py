"""What of an offline table an online store has: of each of the table's files, a stretch of event times.

Files of a table never change: a Delta commit adds files and removes files, and of other tables the modification time is
part of a file's name here. So what has once been written of a file stays written, and whatever is late, be it by a day
or by a year, lies in a file that is not known yet, or not known up to that time.
After a compaction the joined files are new, and are read once more.

It is kept in the online store itself, so that it is lost with the rows that it speaks of and never without them. The
JSON at the key `written_key` of record.py is
    {"layout": fingerprint,                 what was written in another layout is written anew
     "files": {name: [start, end]},         event times in ISO 8601, inclusive
     "again": {"window": [start, end], "files": [name, ...]},       null, or a window that is being written once more
     "since": {name: moment},               when the clock that was given said that the file was online, ISO 8601
     "finished": moment}                    when the last run that wrote all that was left ended; null if unknown
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from feature_repo.errors import VitrineError
from feature_repo.online.catalog import View, materialization_log_key
from feature_repo.online.table import OnlineTable


@dataclass(frozen=True)
class TimeWindow:
    """Event times from `start` to `end`, both inclusive, as Feast has them."""

    start: datetime
    end: datetime

    def remaining_after(self, done: "TimeWindow | None") -> "TimeWindow | None":
        """What is left of this window when `done` has been written; None if nothing is."""
        if done is None or not done.start <= self.start <= done.end:
            return self
        return TimeWindow(done.end, self.end) if self.end > done.end else None

    def merge(self, done: "TimeWindow | None") -> "TimeWindow":
        """Both windows as one if they touch, else this one."""
        if done is None or done.start > self.end or self.start > done.end:
            return self
        return TimeWindow(min(self.start, done.start), max(self.end, done.end))


@dataclass(frozen=True)
class Rewrite:
    """A window that is being written once more, whatever has been written before."""

    window: TimeWindow
    files: frozenset[str] = frozenset()


@dataclass(frozen=True)
class MaterializationState:
    """What has been written of a view."""

    layout: int
    files: Mapping[str, TimeWindow] = field(default_factory=dict)
    again: Rewrite | None = None
    online_since: Mapping[str, datetime] = field(default_factory=dict)
    """When a file came online, of those of which it is known; of one that was written in several runs, the last that
    widened its stretch."""
    finish_timestamp: datetime | None = None
    """When the last run that wrote all that was left ended."""

    def find_pending(self, files: Iterable[str], window: TimeWindow) -> dict[str, TimeWindow]:
        """What is to be written of which files; those of which nothing is are left out."""
        if self.again is not None:
            return {file: window for file in files if file not in self.again.files}
        stretches = {file: window.remaining_after(self.files.get(file)) for file in files}
        return {file: stretch for file, stretch in stretches.items() if stretch is not None}

    def with_files(
        self, files: Iterable[str], window: TimeWindow, now: datetime | None = None
    ) -> "MaterializationState":
        """With a window of these files written, at `now` if that is known."""
        known, since = dict(self.files), dict(self.online_since)
        for file in files:
            joined = window.merge(known.get(file))
            if now is not None and joined != known.get(file):
                since[file] = now
            known[file] = joined
        again = self.again and replace(self.again, files=self.again.files.union(files))
        return replace(self, files=known, again=again, online_since=since)

    def with_only(self, files: Iterable[str], now: datetime | None = None) -> "MaterializationState":
        """Without the files that the table no longer has, and nothing to be written once more."""
        kept = {file: self.files[file] for file in files if file in self.files}
        since = {file: moment for file, moment in self.online_since.items() if file in kept}
        return MaterializationState(
            self.layout, kept, online_since=since, finish_timestamp=now or self.finish_timestamp
        )

    def to_bytes(self) -> bytes:
        again = self.again and {"window": _to_json(self.again.window), "files": sorted(self.again.files)}
        files = {file: _to_json(window) for file, window in self.files.items()}
        since = {file: moment.isoformat() for file, moment in self.online_since.items()}
        finished = self.finish_timestamp and self.finish_timestamp.isoformat()
        found = {"layout": self.layout, "files": files, "again": again, "since": since, "finished": finished}
        return json.dumps(found).encode()

    @staticmethod
    def from_bytes(data: bytes) -> "MaterializationState":
        found = json.loads(data)
        again = found["again"] and Rewrite(_from_json(found["again"]["window"]), frozenset(found["again"]["files"]))
        finished = found.get("finished")
        return MaterializationState(
            found["layout"],
            {file: _from_json(one) for file, one in found["files"].items()},
            again,
            {file: datetime.fromisoformat(one) for file, one in found.get("since", {}).items()},
            datetime.fromisoformat(finished) if finished else None,
        )


def read_state(online: OnlineTable, view: str) -> MaterializationState | None:
    """What has been written of a view, for those who only look; None if nothing ever was."""
    found = online.store.get(materialization_log_key(online.project, view))
    return None if found is None else MaterializationState.from_bytes(found)


class MaterializationLog:
    """What has been written of one view, as the online store has it; several writers may keep it at once.

    Args:
        view: as `StoreCatalog.register_view` gave it back.
        again: a window to write once more, unless that has been begun and not been finished; None: write what is left.
        clock: says when a file came online; without one that is not kept.
    """

    def __init__(
        self,
        online: OnlineTable,
        view: View,
        again: TimeWindow | None = None,
        *,
        clock: Callable[[], datetime | None] = lambda: None,
    ) -> None:
        self._online = online
        self._clock = clock
        self._view = view
        self._key = materialization_log_key(online.project, view.name)

        def begun(written: MaterializationState | None) -> MaterializationState:
            if written is None or written.layout != view.layout.fingerprint:
                written = MaterializationState(view.layout.fingerprint)
            known = written.again.window if written.again else None
            return written if known == again else replace(written, again=None if again is None else Rewrite(again))

        self.state = self._change(begun)

    def add(self, files: Sequence[str], window: TimeWindow) -> None:
        """A window of these files is online now."""
        now = self._clock()
        self.state = self._change(lambda written: self._still(written).with_files(files, window, now))

    def finish(self, files: Sequence[str]) -> None:
        """All is online; `files` are those that the table has."""
        now = self._clock()
        self.state = self._change(lambda written: self._still(written).with_only(files, now))

    def _still(self, written: MaterializationState | None) -> MaterializationState:
        if written is None or written.layout != self._view.layout.fingerprint:
            raise VitrineError(
                f"view `{self._view.name}` was dropped or changed while it was being materialized; run this again"
            )
        return written

    def _change(self, change: Callable[[MaterializationState | None], MaterializationState]) -> MaterializationState:
        while True:
            old = self._online.store.get(self._key)
            written = change(None if old is None else MaterializationState.from_bytes(old))
            if self._online.store.compare_and_swap(self._key, old, written.to_bytes()):
                return written


def _to_json(window: TimeWindow) -> list[str]:
    return [window.start.isoformat(), window.end.isoformat()]


def _from_json(window: Sequence[str]) -> TimeWindow:
    return TimeWindow(datetime.fromisoformat(window[0]), datetime.fromisoformat(window[1]))
