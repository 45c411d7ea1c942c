"""What is left to be written, whatever came before: late rows, other windows, failures at any block, compactions."""

import tempfile
from datetime import datetime
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


class Breaks(Exception):
    """What a store raises that is gone."""


class Run:
    """Runs of `materialize` into a dictionary that keeps the newest, as a store does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.online = OnlineTable(LMDBStore(folder / "online", create=True), "shop")
        self.found: dict[str, tuple[int, int]] = {}
        self.rows_put = 0

    def run(self, window: TimeWindow, *, again: bool = False, breaks_at: int | None = None) -> None:
        """Write a window; at the `breaks_at`th block the store is gone."""
        table = delta.open_dataset(self.folder / "tables" / "looks")
        names = {name: name for name in table.schema.names}
        blocks = 0

        def put(keys: list[bytes], rows: Any) -> None:
            nonlocal blocks
            if blocks == breaks_at:
                raise Breaks
            blocks += 1
            self.rows_put += len(keys)
            for key, row in zip(keys, rows, strict=True):
                self.found[key.decode()] = max(self.found.get(key.decode(), (-1, -1)), row)

        view = self.online.catalog.register_view(VIEW)
        materialize.materialize(
            materialize.OfflineSource(table, names, ["product_id"], "event_timestamp"),
            MaterializationLog(self.online, view, window if again else None),
            window,
            write=materialize.make_writer(_packed, put),
            start_progress=lambda rows: lambda done: None,
        )


def _packed(rows: pa.Table) -> Any:
    keys = [key.encode() for key in rows["product_id"].to_pylist()]
    return keys, [(int(vector[0]), int(vector[1])) for vector in rows["vector"].to_pylist()]


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries in the ledger as often as files allow."""
    monkeypatch.setattr(materialize, "ROWS_PER_ENTRY", 8)
    monkeypatch.setattr(materialize, "BLOCK_ROWS", 3)


class Life(RuleBasedStateMachine):
    """A table that grows, and runs that write it, fail and go on, beside a list of all rows."""

    looks = st.tuples(st.sampled_from("abcdef"), HOURS, HOURS)

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.runs = Run(Path(self.folder.name))
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
    def write_what_is_left(self, hours: int) -> None:
        self.end += hours
        self.runs.run(TimeWindow(at(0), at(self.end)))
        assert self.runs.found == world.newest(self.rows, until=self.end)

    @precondition(lambda self: self.rows)
    @rule(hours=st.integers(0, 5), block=st.integers(0, 4))
    def break_down(self, hours: int, block: int) -> None:
        self.end += hours
        try:
            self.runs.run(TimeWindow(at(0), at(self.end)), breaks_at=block)
        except Breaks:
            return
        assert self.runs.found == world.newest(self.rows, until=self.end)

    @precondition(lambda self: self.rows)
    @rule(start=st.integers(0, 30), hours=st.integers(0, 30), block=st.none() | st.integers(0, 4))
    def write_a_window_once_more(self, start: int, hours: int, block: int | None) -> None:
        window = TimeWindow(at(min(start, self.end)), at(min(start + hours, self.end)))
        try:
            self.runs.run(window, again=True, breaks_at=block)
        except Breaks:
            return
        for product, newest in world.newest(self.rows, until=(window.end - world.START) / world.HOUR).items():
            if at(newest[0]) >= window.start:
                assert self.runs.found[product] >= newest

    @precondition(lambda self: self.rows)
    @rule()
    def compact(self) -> None:
        retention.compact(self.runs.folder / "tables" / "looks")

    @rule()
    def lose_the_online_store(self) -> None:
        self.runs.found.clear()
        self.runs.online.catalog.drop_project()


@pytest.mark.usefixtures("small_groups")
def test_whatever_happened_before_a_run_that_ends_well_leaves_the_newest_of_every_row() -> None:
    limits = settings(max_examples=25, stateful_step_count=12, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Life, settings=limits)


@pytest.mark.usefixtures("small_groups")
def test_a_run_goes_on_where_another_broke_off_and_a_finished_one_leaves_nothing_to_do(tmp_path: Path) -> None:
    for commit in range(10):
        world.append_looks(tmp_path, [(f"p{commit}-{i}", 1, 1) for i in range(8)])
    runs = Run(tmp_path)
    with pytest.raises(Breaks):
        runs.run(TimeWindow(at(0), at(2)), breaks_at=7)
    before = runs.rows_put
    runs.run(TimeWindow(at(0.5), at(3)))
    assert before == 56
    assert runs.rows_put == 80, "no finished file is written twice"
    assert len(runs.found) == 80
    runs.rows_put = 0
    runs.run(TimeWindow(at(0.5), at(9)))
    assert runs.rows_put == 0
    world.append_looks(tmp_path, [("late", 1, 8)])
    runs.run(TimeWindow(at(0.5), at(9)))
    assert runs.rows_put == 1
    runs.run(TimeWindow(at(1), at(9)), again=True)
    assert runs.rows_put == 82, "who asks for a window by name gets it"


def test_a_table_without_a_row_and_a_window_without_one_are_nothing_to_do(tmp_path: Path) -> None:
    world.append_looks(tmp_path, [])
    runs = Run(tmp_path)
    runs.run(TimeWindow(at(0), at(1)))
    world.append_looks(tmp_path, [("a", 5, 5)])
    runs.run(TimeWindow(at(0), at(1)))
    assert runs.found == {}
    runs.run(TimeWindow(at(0), at(5)))
    assert runs.found == {"a": (5, 5)}


def test_a_view_that_is_dropped_meanwhile_is_not_taken_for_written(tmp_path: Path) -> None:
    online = OnlineTable(LMDBStore(tmp_path, create=True), "shop")
    ledger = MaterializationLog(online, online.catalog.register_view(VIEW))
    online.catalog.drop_view("looks")
    with pytest.raises(VitrineError, match="`looks` was dropped"):
        ledger.add(["file"], TimeWindow(at(0), at(1)))
    assert online.store.get(materialization_log_key("shop", "looks")) is None


def test_two_writers_of_one_view_both_leave_their_mark(tmp_path: Path) -> None:
    online = OnlineTable(LMDBStore(tmp_path, create=True), "shop")
    view = online.catalog.register_view(VIEW)
    one, other = MaterializationLog(online, view), MaterializationLog(online, view)
    one.add(["a"], TimeWindow(at(0), at(1)))
    other.add(["b"], TimeWindow(at(0), at(1)))
    assert set(MaterializationLog(online, view).state.files) == {"a", "b"}


@given(done=WINDOWS, more=WINDOWS)
def test_what_is_left_of_a_window_and_what_was_done_make_up_the_window(done: TimeWindow, more: TimeWindow) -> None:
    left, joined = more.remaining_after(done), more.merge(done)
    moments = [at(hour / 2) for hour in range(62)]
    covered = {moment for moment in moments if _within(moment, done) or (left and _within(moment, left))}
    assert {moment for moment in moments if _within(moment, more)} <= covered
    assert all(moment in covered for moment in moments if _within(moment, joined))


def _within(moment: Any, window: TimeWindow) -> bool:
    return bool(window.start <= moment <= window.end)


@given(
    files=st.dictionaries(st.text(), WINDOWS),
    again=st.none() | st.builds(Rewrite, WINDOWS, st.frozensets(st.text())),
    layout=st.integers(0, 2**32 - 1),
    since=st.dictionaries(st.text(), HOURS.map(at)),
    finished=st.none() | HOURS.map(at),
)
def test_a_ledger_reads_back_as_it_was_written(
    files: dict[str, TimeWindow],
    again: Rewrite | None,
    layout: int,
    since: dict[str, datetime],
    finished: datetime | None,
) -> None:
    written = MaterializationState(layout, files, again, since, finished)
    assert MaterializationState.from_bytes(written.to_bytes()) == written


def test_a_ledger_without_moments_is_one_of_an_earlier_version() -> None:
    data = b'{"layout": 7, "files": {"a": ["2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"]}, "again": null}'
    assert MaterializationState.from_bytes(data) == MaterializationState(7, {"a": TimeWindow(at(0), at(24))})


def test_a_file_came_online_when_it_first_was_and_again_only_when_more_of_it_was(tmp_path: Path) -> None:
    online = OnlineTable(LMDBStore(tmp_path / "online", create=True), "shop")
    view, clock = online.catalog.register_view(VIEW), iter(map(at, range(100, 110)))
    ledger = MaterializationLog(online, view, clock=lambda: next(clock))
    ledger.add(["a", "b"], TimeWindow(at(0), at(5)))
    ledger.add(["b"], TimeWindow(at(1), at(5)))
    assert ledger.state.online_since == {"a": at(100), "b": at(100)}
    ledger.add(["b"], TimeWindow(at(5), at(6)))
    ledger.finish(["b"])
    assert (ledger.state.online_since, ledger.state.finish_timestamp) == ({"b": at(102)}, at(103))
    assert MaterializationLog(online, view).state.finish_timestamp == at(103)
