"""The materialization log: what remains to be written after late rows, other windows, failures and compactions."""

import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from feature_repo.errors import VitrineError
from feature_repo.offline import delta, retention
from feature_repo.online import materialize
from feature_repo.online.catalog import View, materialization_log_key
from feature_repo.online.lmdb_store import LMDBStore
from feature_repo.online.materialization_log import MaterializationLog, MaterializationState, Rewrite, TimeWindow
from feature_repo.online.row_format import Layout
from feature_repo.online.table import OnlineTable
from tests.feature_repo.stores import world
from tests.feature_repo.stores.world import Look, at

VIEW = View("looks", (("product_id", "string"),), 0, (Layout.from_fields([]),))
HOURS = st.integers(0, 30)
WINDOWS = st.tuples(HOURS, HOURS).map(sorted).map(lambda bounds: TimeWindow(at(bounds[0]), at(bounds[1])))


class StoreLostError(Exception):
    """Raised by a store that is gone."""


class DictionaryRuns:
    """Runs of `materialize` into a dictionary that keeps the newest rows, as a store does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.online = OnlineTable(LMDBStore(folder / "online", create=True), "shop")
        self.online_rows: dict[str, tuple[int, int]] = {}
        self.rows_put = 0

    def run(self, window: TimeWindow, *, rewrite: bool = False, failing_block: int | None = None) -> None:
        """Write a window; the store is gone at block number `failing_block`."""
        path = self.folder / "tables" / "looks"
        table = delta.open_dataset(path)
        names = {name: name for name in table.schema.names}
        blocks = 0

        def put(keys: list[bytes], rows: Any) -> None:
            nonlocal blocks
            if blocks == failing_block:
                raise StoreLostError
            blocks += 1
            self.rows_put += len(keys)
            for key, row in zip(keys, rows, strict=True):
                self.online_rows[key.decode()] = max(self.online_rows.get(key.decode(), (-1, -1)), row)

        view = self.online.catalog.register_view(VIEW)
        materialize.materialize(
            materialize.OfflineSource(table, names, ["product_id"], "event_timestamp", "created_timestamp", path=path),
            MaterializationLog(self.online, view, window if rewrite else None),
            window,
            write=materialize.make_writer(_packed, put),
            start_progress=lambda rows: lambda done: None,
        )


def _packed(rows: pa.Table) -> Any:
    keys = [key.encode() for key in rows["product_id"].to_pylist()]
    return keys, [(int(vector[0]), int(vector[1])) for vector in rows["vector"].to_pylist()]


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make an entry in the log for as few files as possible."""
    monkeypatch.setattr(materialize, "ROWS_PER_ENTRY", 8)
    monkeypatch.setattr(materialize, "BLOCK_ROWS", 3)


class MaterializationMachine(RuleBasedStateMachine):
    """A growing table and runs that write it, fail and resume, beside a list of all rows."""

    looks = st.tuples(st.sampled_from("abcdef"), HOURS, HOURS)

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.runs = DictionaryRuns(Path(self.folder.name))
        self.rows: list[Look] = []
        self.end = 0

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    @rule(looks=st.lists(looks, min_size=1, max_size=10))
    def append(self, looks: list[Look]) -> None:
        world.append_looks(self.runs.folder, looks)
        self.rows += looks

    @precondition(lambda self: self.rows)
    @rule(hours=st.integers(0, 5))
    def write_pending(self, hours: int) -> None:
        self.end += hours
        self.runs.run(TimeWindow(at(0), at(self.end)))
        assert self.runs.online_rows == world.find_newest(self.rows, until=self.end)

    @precondition(lambda self: self.rows)
    @rule(hours=st.integers(0, 5), block=st.integers(0, 4))
    def fail_in_a_run(self, hours: int, block: int) -> None:
        self.end += hours
        try:
            self.runs.run(TimeWindow(at(0), at(self.end)), failing_block=block)
        except StoreLostError:
            return
        assert self.runs.online_rows == world.find_newest(self.rows, until=self.end)

    @precondition(lambda self: self.rows)
    @rule(start=st.integers(0, 30), hours=st.integers(0, 30), block=st.none() | st.integers(0, 4))
    def rewrite_a_window(self, start: int, hours: int, block: int | None) -> None:
        window = TimeWindow(at(min(start, self.end)), at(min(start + hours, self.end)))
        try:
            self.runs.run(window, rewrite=True, failing_block=block)
        except StoreLostError:
            return
        for product, newest in world.find_newest(self.rows, until=(window.end - world.START) / world.HOUR).items():
            if at(newest[0]) >= window.start:
                assert self.runs.online_rows[product] >= newest

    @precondition(lambda self: self.rows)
    @rule()
    def compact(self) -> None:
        retention.compact(self.runs.folder / "tables" / "looks")

    @precondition(lambda self: self.rows)
    @rule(hours=HOURS)
    def drop_corrected(self, hours: int) -> None:
        retention.drop_corrected(
            self.runs.folder / "tables" / "looks",
            keys=["product_id"],
            event="event_timestamp",
            created="created_timestamp",
            before=at(hours),
        )

    @rule()
    def lose_the_online_store(self) -> None:
        self.runs.online_rows.clear()
        self.runs.online.catalog.drop_project()


@pytest.mark.usefixtures("small_groups")
def test_a_complete_run_leaves_the_newest_rows_online_after_any_history() -> None:
    limits = settings(
        max_examples=settings.default.max_examples // 4,
        stateful_step_count=12,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(MaterializationMachine, settings=limits)


@pytest.mark.usefixtures("small_groups")
def test_a_run_resumes_behind_the_files_in_the_log_and_a_complete_run_leaves_none(tmp_path: Path) -> None:
    for commit in range(10):
        world.append_looks(tmp_path, [(f"p{commit}-{i}", 1, 1) for i in range(8)])
    runs = DictionaryRuns(tmp_path)
    with pytest.raises(StoreLostError):
        runs.run(TimeWindow(at(0), at(2)), failing_block=7)
    before = runs.rows_put
    runs.run(TimeWindow(at(0.5), at(3)))
    assert before == 56
    assert runs.rows_put == 80, "no finished file is written twice"
    assert len(runs.online_rows) == 80
    runs.rows_put = 0
    runs.run(TimeWindow(at(0.5), at(9)))
    assert runs.rows_put == 0
    world.append_looks(tmp_path, [("late", 1, 8)])
    runs.run(TimeWindow(at(0.5), at(9)))
    assert runs.rows_put == 1
    runs.run(TimeWindow(at(1), at(9)), rewrite=True)
    assert runs.rows_put == 82, "a rewrite writes the files again"


def test_rows_that_were_only_moved_to_other_files_are_not_written_again(tmp_path: Path) -> None:
    path, runs = tmp_path / "tables" / "looks", DictionaryRuns(tmp_path)
    for day in range(3):
        world.append_looks(tmp_path, [(product, day, day) for product in "ab"])
    runs.run(TimeWindow(at(0), at(5)))
    runs.rows_put = 0
    retention.compact(path)
    for _ in range(2):
        runs.run(TimeWindow(at(0), at(6)))
    assert runs.rows_put == 0, "a compaction"
    retention.drop_corrected(
        path, keys=["product_id"], event="event_timestamp", created="created_timestamp", before=at(9)
    )
    retention.forget(path, "product_id", ["b"])
    retention.vacuum(path, grace=timedelta(hours=1))
    runs.run(TimeWindow(at(0), at(7)))
    assert runs.rows_put == 0, "deletions"
    world.append_looks(tmp_path, [("a", 4, 4)])
    retention.compact(path)
    runs.run(TimeWindow(at(0), at(8)))
    assert runs.rows_put == 1, "a file with a new row among others: the newest row of each product is written"
    assert runs.online_rows == {"a": (4, 4), "b": (2, 2)}


def test_moved_rows_are_written_again_if_the_log_of_the_table_was_shortened(tmp_path: Path) -> None:
    path, runs = tmp_path / "tables" / "looks", DictionaryRuns(tmp_path)
    for day in range(2):
        world.append_looks(tmp_path, [("a", day, day)])
    runs.run(TimeWindow(at(0), at(5)))
    retention.compact(path)
    retention.vacuum(path, grace=timedelta(0), keep_log=timedelta(0))
    runs.rows_put = 0
    runs.run(TimeWindow(at(0), at(6)))
    assert runs.rows_put == 1
    assert runs.online_rows == {"a": (1, 1)}


def test_an_empty_table_and_an_empty_window_write_nothing(tmp_path: Path) -> None:
    world.append_looks(tmp_path, [])
    runs = DictionaryRuns(tmp_path)
    runs.run(TimeWindow(at(0), at(1)))
    world.append_looks(tmp_path, [("a", 5, 5)])
    runs.run(TimeWindow(at(0), at(1)))
    assert runs.online_rows == {}
    runs.run(TimeWindow(at(0), at(5)))
    assert runs.online_rows == {"a": (5, 5)}


def test_a_view_dropped_during_a_run_gets_no_log(tmp_path: Path) -> None:
    online = OnlineTable(LMDBStore(tmp_path, create=True), "shop")
    log = MaterializationLog(online, online.catalog.register_view(VIEW))
    online.catalog.drop_view("looks")
    with pytest.raises(VitrineError, match="`looks` was dropped"):
        log.add(["file"], TimeWindow(at(0), at(1)))
    assert online.store.get(materialization_log_key("shop", "looks")) is None


def test_two_runs_of_one_view_both_add_their_files(tmp_path: Path) -> None:
    online = OnlineTable(LMDBStore(tmp_path, create=True), "shop")
    view = online.catalog.register_view(VIEW)
    one, other = MaterializationLog(online, view), MaterializationLog(online, view)
    one.add(["a"], TimeWindow(at(0), at(1)))
    other.add(["b"], TimeWindow(at(0), at(1)))
    assert set(MaterializationLog(online, view).state.files) == {"a", "b"}


@given(done=WINDOWS, more=WINDOWS)
def test_the_remaining_and_the_done_window_cover_the_window(done: TimeWindow, more: TimeWindow) -> None:
    remaining, merged = more.remaining_after(done), more.merge(done)
    timestamps = [at(hour / 2) for hour in range(62)]
    covered = {
        timestamp
        for timestamp in timestamps
        if _within(timestamp, done) or (remaining and _within(timestamp, remaining))
    }
    assert {timestamp for timestamp in timestamps if _within(timestamp, more)} <= covered
    assert all(timestamp in covered for timestamp in timestamps if _within(timestamp, merged))


def _within(timestamp: Any, window: TimeWindow) -> bool:
    return bool(window.start <= timestamp <= window.end)


@given(
    files=st.dictionaries(st.text(), WINDOWS),
    rewrite=st.none() | st.builds(Rewrite, WINDOWS, st.frozensets(st.text())),
    layout=st.integers(0, 2**32 - 1),
    since=st.dictionaries(st.text(), HOURS.map(at)),
    finished=st.none() | HOURS.map(at),
    ttl_us=st.none() | st.integers(0, 2**53),
)
def test_a_state_is_read_as_it_was_written(
    files: dict[str, TimeWindow],
    rewrite: Rewrite | None,
    layout: int,
    since: dict[str, datetime],
    finished: datetime | None,
    ttl_us: int | None,
) -> None:
    state = MaterializationState(layout, files, rewrite, since, finished, ttl_us)
    assert MaterializationState.from_bytes(state.to_bytes()) == state


def test_a_state_of_an_earlier_version_without_timestamps_is_read() -> None:
    data = b'{"layout": 7, "files": {"a": ["2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"]}, "again": null}'
    assert MaterializationState.from_bytes(data) == MaterializationState(7, {"a": TimeWindow(at(0), at(24))})


def test_online_since_is_the_last_time_the_window_of_a_file_grew(tmp_path: Path) -> None:
    online = OnlineTable(LMDBStore(tmp_path / "online", create=True), "shop")
    view, clock = online.catalog.register_view(VIEW), iter(map(at, range(100, 110)))
    log = MaterializationLog(online, view, clock=lambda: next(clock))
    log.add(["a", "b"], TimeWindow(at(0), at(5)))
    log.add(["b"], TimeWindow(at(1), at(5)))
    assert log.state.online_since == {"a": at(100), "b": at(100)}
    log.add(["b"], TimeWindow(at(5), at(6)))
    log.finish(["b"])
    assert (log.state.online_since, log.state.finish_timestamp) == ({"b": at(102)}, at(103))
    assert MaterializationLog(online, view).state.finish_timestamp == at(103)
