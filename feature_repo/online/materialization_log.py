"""The materialization log: which files of an offline table are online, and up to which event time.

The log has a window of event times for each file of the table. A file never changes: a Delta commit adds and removes
files; for other tables the modification time is part of the file's name in the log. So rows that were written stay
written, and a late row, however late, is in a file that the log does not have, or has up to an earlier event time. The
files of a compaction are new, and are written again; until then `with_rewritten` finds what of them is online.

The log is stored in the online store, so that it is lost together with the rows. The JSON at the key
`vitrine:{project}:written:<view>` (see catalog.py) is

    {"layout": fingerprint,               rows of another layout count as not written
     "ttl": microseconds,                 0: none. Rows of a shorter TTL count as not written: Redis drops them after it
     "files": {name: [start, end]},       event times in ISO 8601, both bounds inclusive
     "again": {"window": [start, end], "files": [name, ...]},      null, or an unfinished rewrite: its window, and the
                                                                   files that are done
     "since": {name: timestamp},          when each file came online, ISO 8601; files may be missing
     "finished": timestamp}               when the last complete run ended; null if unknown
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from feature_repo.errors import ConflictError
from feature_repo.online.catalog import View, materialization_log_key
from feature_repo.online.table import OnlineTable


@dataclass(frozen=True)
class TimeWindow:
    """Event times from `start` to `end`, both inclusive, as in Feast; both have a time zone.

    That `start` is not after `end` is not checked.
    """

    start: datetime
    """The first event time, inclusive."""
    end: datetime
    """The last event time, inclusive."""

    def remaining_after(self, done: "TimeWindow | None") -> "TimeWindow | None":
        """Return what remains of this window once `done` is written; None if nothing.

        What remains starts at the end of `done`, which is in both.

        Args:
            done: the window that is written; None if none is. If it does not contain this window's start, the whole
                window remains.
        """
        if done is None or not done.start <= self.start <= done.end:
            return self
        return TimeWindow(done.end, self.end) if self.end > done.end else None

    def merge(self, other: "TimeWindow | None") -> "TimeWindow":
        """Return both windows as one if they overlap or have a bound in common, else this window.

        Args:
            other: the other window; None gives this window.
        """
        if other is None or other.start > self.end or self.start > other.end:
            return self
        return TimeWindow(min(self.start, other.start), max(self.end, other.end))


@dataclass(frozen=True)
class Rewrite:
    """A window that is being written again although the log has it."""

    window: TimeWindow
    """The event times that are written again."""
    files: frozenset[str] = frozenset()
    """The names of the files that are done."""


@dataclass(frozen=True)
class MaterializationState:
    """The content of the log of one view, at one time. Methods return a changed copy."""

    layout: int
    """Fingerprint of the layout (`Layout.fingerprint`) that the rows were written in."""
    files: Mapping[str, TimeWindow] = field(default_factory=dict)
    """The window of event times that is online of each file, by the file's name in the log."""
    rewrite: Rewrite | None = None
    """The rewrite that was begun and not finished; None if there is none."""
    online_since: Mapping[str, datetime] = field(default_factory=dict)
    """When the window of each file was last extended, by the file's name; files without a known time are missing."""
    finish_timestamp: datetime | None = None
    """When the last complete run ended; None if unknown."""
    ttl_us: int | None = None
    """TTL of the view when the rows were written, in microseconds; 0: none; None if unknown."""

    def find_pending(self, files: Iterable[str], window: TimeWindow) -> dict[str, TimeWindow]:
        """Return the window that remains to be written of each file, in the order of the files.

        What remains starts at the end of what is online of the file, which is written again. If the start of `window`
        is not online, all of `window` remains. Files without a remaining part are omitted.

        Args:
            files: the names of the files that the table has.
            window: the event times that should be online. During a rewrite, all of it remains for each file that the
                rewrite has not done yet.
        """
        if self.rewrite is not None:
            return {file: window for file in files if file not in self.rewrite.files}
        remaining = {file: window.remaining_after(self.files.get(file)) for file in files}
        return {file: rest for file, rest in remaining.items() if rest is not None}

    def with_files(
        self, files: Iterable[str], window: TimeWindow, now: datetime | None = None
    ) -> "MaterializationState":
        """Return the state after the window was written of these files.

        Args:
            files: names as `find_pending` returns them. A file that the log already has is merged with its window; if
                the two windows are apart, the new one replaces it.
            window: the event times that were written.
            now: when the rows came online; None if unknown.
        """
        windows, online_since = dict(self.files), dict(self.online_since)
        for file in files:
            merged = window.merge(windows.get(file))
            if now is not None and merged != windows.get(file):
                online_since[file] = now
            windows[file] = merged
        rewrite = self.rewrite and replace(self.rewrite, files=self.rewrite.files.union(files))
        return replace(self, files=windows, rewrite=rewrite, online_since=online_since)

    def with_only(self, files: Iterable[str], now: datetime | None = None) -> "MaterializationState":
        """Return the state after a complete run: without files that the table no longer has, and without a rewrite.

        Args:
            files: the names of the files that the table has; one that was never written is not added.
            now: when the run ended; None keeps the time of the run before.
        """
        kept = {file: self.files[file] for file in files if file in self.files}
        return replace(
            self,
            files=kept,
            rewrite=None,
            online_since={file: timestamp for file, timestamp in self.online_since.items() if file in kept},
            finish_timestamp=now or self.finish_timestamp,
        )

    def with_rewritten(self, origins: Mapping[str, Collection[str]]) -> "MaterializationState":
        """Return the state with files that a compaction or a deletion wrote: they hold rows of other files only.

        Such a file is online for the event times for which all of the files are from which its rows come, since the
        time at which the last of them came online. A file is not added if one of those is unknown here, or if their
        windows have no event time in common.

        Args:
            origins: name of a file -> the files from which its rows come (`offline.rewritten_files.find_origins`).
        """
        windows, online_since = dict(self.files), dict(self.online_since)
        for file, names in origins.items():
            if not names or not set(names) <= set(self.files):
                continue
            start, end = (max(self.files[name].start for name in names), min(self.files[name].end for name in names))
            if start <= end:
                windows[file] = TimeWindow(start, end)
                if set(names) <= set(self.online_since):
                    online_since[file] = max(self.online_since[name] for name in names)
        return replace(self, files=windows, online_since=online_since)

    def to_bytes(self) -> bytes:
        """Return the state as the JSON that is stored, which the module's docstring describes."""
        state = {
            "layout": self.layout,
            "ttl": self.ttl_us,
            "files": {file: _window_to_json(window) for file, window in self.files.items()},
            "again": self.rewrite
            and {"window": _window_to_json(self.rewrite.window), "files": sorted(self.rewrite.files)},
            "since": {file: timestamp.isoformat() for file, timestamp in self.online_since.items()},
            "finished": self.finish_timestamp and self.finish_timestamp.isoformat(),
        }
        return json.dumps(state).encode()

    @staticmethod
    def from_bytes(data: bytes) -> "MaterializationState":
        """Parse what `to_bytes` returned; "ttl", "since" and "finished" may be missing, as earlier versions wrote it.

        Raises:
            ValueError: `data` is not JSON, or a time is not in ISO 8601.
            KeyError: another part is missing.
        """
        state = json.loads(data)
        again, finished = state["again"], state.get("finished")
        return MaterializationState(
            state["layout"],
            {file: _window_from_json(window) for file, window in state["files"].items()},
            again and Rewrite(_window_from_json(again["window"]), frozenset(again["files"])),
            {file: datetime.fromisoformat(timestamp) for file, timestamp in state.get("since", {}).items()},
            datetime.fromisoformat(finished) if finished else None,
            state.get("ttl"),
        )


def read_state(online: OnlineTable, view: str) -> MaterializationState | None:
    """Return the log of a view without changing it; None if the view was never materialized, or is not in the store.

    Args:
        online: the rows of the project.
        view: the view's name in the store.

    Raises:
        UnavailableError: the store does not answer.
    """
    data = online.store.get(materialization_log_key(online.project, view))
    return None if data is None else MaterializationState.from_bytes(data)


class MaterializationLog:
    """The log of one view, for a run that writes to it. Several runs may write to one log at once.

    Opening it writes to the store, and discards what was written in another layout or with a shorter TTL. `state` is
    the log as last written.

    Args:
        online: the rows of the project.
        view: as `StoreCatalog.register_view` returned it.
        rewrite: a window to write again. An unfinished rewrite of the same window is resumed, one of another window is
            discarded. None: only what remains is written.
        clock: called when files have come online and when the run ends; returns the time to record, with a time zone,
            or None for unknown.

    Raises:
        UnavailableError: the store does not answer.
    """

    def __init__(
        self,
        online: OnlineTable,
        view: View,
        rewrite: TimeWindow | None = None,
        *,
        clock: Callable[[], datetime | None] = lambda: None,
    ) -> None:
        self._online = online
        self._clock = clock
        self._view = view
        self._key = materialization_log_key(online.project, view.name)

        def begin(state: MaterializationState | None) -> MaterializationState:
            if state is None or state.layout != view.layout.fingerprint or _is_shorter(state.ttl_us, view.ttl_us):
                state = MaterializationState(view.layout.fingerprint)
            state = replace(state, ttl_us=view.ttl_us)
            unfinished = state.rewrite.window if state.rewrite else None
            if unfinished == rewrite:
                return state
            return replace(state, rewrite=None if rewrite is None else Rewrite(rewrite))

        self.state = self._update(begin)

    def add(self, files: Sequence[str], window: TimeWindow) -> None:
        """Record that a window of these files is online, in the store at once. `state` is the new log then.

        If the log has a window of a file already, the two are merged if they overlap or touch; else the new one
        replaces it.

        Args:
            files: the names of the files, as `identify_file` returns them.
            window: the event times that are online now.

        Raises:
            ConflictError: the view was dropped or changed since the log was opened.
            UnavailableError: the store does not answer.
        """
        now = self._clock()
        self.state = self._update(lambda state: self._check_view(state).with_files(files, window, now))

    def add_rewritten(self, origins: Mapping[str, Collection[str]]) -> None:
        """Record files that hold rows of other files only, as `MaterializationState.with_rewritten` describes.

        Args:
            origins: name of a file -> the files from which its rows come. If there is none, the store is not asked.

        Raises:
            ConflictError: the view was dropped or changed since the log was opened.
            UnavailableError: the store does not answer.
        """
        if origins:
            self.state = self._update(lambda state: self._check_view(state).with_rewritten(origins))

    def finish(self, files: Sequence[str]) -> None:
        """Record that the run is complete. A rewrite is finished by it.

        Args:
            files: the names of the files that the table has; others are removed from the log.

        Raises:
            ConflictError: the view was dropped or changed since the log was opened.
            UnavailableError: the store does not answer.
        """
        now = self._clock()
        self.state = self._update(lambda state: self._check_view(state).with_only(files, now))

    def _check_view(self, state: MaterializationState | None) -> MaterializationState:
        """Return the state; raise ConflictError if it is gone, or of another layout or TTL."""
        if state is None or (state.layout, state.ttl_us) != (self._view.layout.fingerprint, self._view.ttl_us):
            raise ConflictError(
                f"view `{self._view.name}` was dropped or changed while it was being materialized; run this again"
            )
        return state

    def _update(self, change: Callable[[MaterializationState | None], MaterializationState]) -> MaterializationState:
        """Change the stored state; try again if another run changed it meanwhile."""
        while True:
            old = self._online.store.get(self._key)
            state = change(None if old is None else MaterializationState.from_bytes(old))
            if self._online.store.compare_and_swap(self._key, old, state.to_bytes()):
                return state


def _is_shorter(ttl_us: int | None, other_us: int) -> bool:
    """Return whether a TTL is shorter than another; 0 is no TTL, and an unknown one is not shorter."""
    if not ttl_us:
        return False
    return other_us == 0 or ttl_us < other_us


def _window_to_json(window: TimeWindow) -> list[str]:
    return [window.start.isoformat(), window.end.isoformat()]


def _window_from_json(window: Sequence[str]) -> TimeWindow:
    return TimeWindow(datetime.fromisoformat(window[0]), datetime.fromisoformat(window[1]))
