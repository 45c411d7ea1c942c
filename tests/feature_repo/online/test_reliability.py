"""Many writers, lost servers, changing views: no older row replaces a newer one, and no row is misread."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, wait
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from feature_repo.arrow import columns
from feature_repo.arrow.field import Field
from feature_repo.errors import VitrineError
from feature_repo.online.catalog import catalog_key, dictionary_key
from feature_repo.online.decode import DecodedRows, Status
from feature_repo.online.lmdb_store import LMDBStore
from feature_repo.online.row_format import Layout
from feature_repo.online.table import OnlineTable, ViewRequest
from tests import servers
from tests.feature_repo.online.versions import PRODUCTS, VERSIONS, VIEW, open_table, write_shuffled, write_versions
from tests.servers import RedisServer


@pytest.fixture(params=["lmdb", "redis", "cluster"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store."""
    if request.param == "lmdb":
        return f"lmdb://{tmp_path}"
    nodes: list[RedisServer] = (
        [request.getfixturevalue("redis")] if request.param == "redis" else request.getfixturevalue("redis_cluster")
    )
    for node in nodes:
        node.client().flushall()
    return f"{'redis' if request.param == 'redis' else 'redis-cluster'}://{nodes[0].address}"


def read_versions(table: OnlineTable, ids: list[str]) -> DecodedRows:
    view = table.catalog.get_view("looks")
    request = ViewRequest(view, view.layout.fields, table.make_keys(view, {"product_id": ids}, len(ids)))
    return table.read([request], 0)[0]


def assert_consistent(rows: DecodedRows) -> None:
    """Assert that no row failed and that all features of a row carry the same version."""
    assert not (rows.status == Status.FAILED).any()
    assert not (rows.status == Status.STALE).any()
    present = rows.status == Status.PRESENT
    versions = rows.event_timestamp_us[present]
    assert columns.to_numpy(rows.columns["version"])[present].tolist() == versions.tolist()
    if present.any():
        assert columns.to_numpy(rows.columns["vector"])[present, 0].tolist() == versions.tolist()
    labels = columns.to_numpy(rows.columns["label"])[present].tolist()
    assert labels == [f"label {version % 7}" for version in versions]
    assert [len(title) for title in columns.to_numpy(rows.columns["title"])[present]] == versions.tolist()


@pytest.mark.parametrize("writers", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_writers_of_shuffled_versions_never_replace_a_newer_row(url: str, writers: int) -> None:
    table = open_table(url)
    table.catalog.register_view(VIEW)
    ids = [f"p{product}" for product in range(PRODUCTS)]
    newest = np.full(PRODUCTS, -1)
    with ProcessPoolExecutor(writers, mp_context=get_context("spawn")) as pool:
        running = [pool.submit(write_shuffled, url, seed) for seed in range(writers)]
        while not all(writer.done() for writer in running):
            rows = read_versions(table, ids)
            assert_consistent(rows)
            seen = np.where(rows.status == Status.PRESENT, rows.event_timestamp_us, -1)
            assert (seen >= newest).all()
            newest = seen
        assert all(writer.result() for writer in running)
    rows = read_versions(table, ids)
    assert_consistent(rows)
    assert (rows.event_timestamp_us == VERSIONS - 1).all()


def test_rows_of_a_view_that_is_being_dropped_have_status_failed(url: str) -> None:
    table, other = open_table(url), open_table(url)
    table.catalog.register_view(VIEW)
    newer = other.catalog.register_view(replace(VIEW, layouts=(Layout.from_fields([Field("version", "int32")]),)))
    keys = other.make_keys(newer, {"product_id": ["a"]}, 1)
    row = other.pack(newer, keys, {}, np.array([1]), None)
    other.catalog.drop_view("looks")
    other.store.write(*row, 0)  # `drop` removes the view from the catalog before its rows
    rows = read_versions(table, ["a", "b"])
    assert rows.status.tolist() == [Status.FAILED, Status.ABSENT]
    assert columns.to_arrow(rows.columns["title"]).to_pylist() == [None, None]


def test_texts_are_read_as_written_after_the_store_was_restored_from_a_copy(url: str) -> None:
    """As by a Redis that is started again from its last snapshot: later texts are lost, writers remember them."""
    table = open_table(url)
    view = table.catalog.register_view(VIEW)
    ((feature, id_),) = view.dictionary_ids
    key = dictionary_key("shop", "looks", feature, id_)
    write_versions(table, view, ["a"], [0], [0])
    copy = table.store.get(key)
    write_versions(table, view, ["b"], [1], [0])
    assert table.store.compare_and_swap(key, table.store.get(key), copy)
    write_versions(table, view, ["b"], [1], [0])
    other = open_table(url)
    write_versions(other, other.catalog.register_view(VIEW), ["c"], [2], [0])
    rows = read_versions(open_table(url), ["a", "b", "c"])
    assert rows.event_timestamp_us.tolist() == [0, 1, 2]
    assert_consistent(rows)


class SlowStore(LMDBStore):
    """A store that answers the first request for the catalog late."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, create=True)
        self.has_read, self.may_answer = threading.Event(), threading.Event()

    def get(self, key: bytes) -> bytes | None:
        value = super().get(key)
        if key == catalog_key("shop") and not self.has_read.is_set():
            self.has_read.set()
            self.may_answer.wait()
        return value


def test_a_catalog_that_arrives_late_does_not_replace_a_newer_one(tmp_path: Path) -> None:
    slow = SlowStore(tmp_path)
    table = OnlineTable(slow, "shop")
    with ThreadPoolExecutor() as threads:
        first = threads.submit(table.catalog.reload)
        slow.has_read.wait()
        open_table(f"lmdb://{tmp_path}").catalog.register_view(VIEW)
        second = threads.submit(table.catalog.reload)
        wait([second], timeout=0.2)
        slow.may_answer.set()
        assert "looks" not in first.result().views
        assert "looks" in second.result().views
    assert "looks" in table.catalog.load().views


class ViewMachine(RuleBasedStateMachine):
    """Operations on a view, beside a dictionary of the rows that must be read."""

    open_fresh: Callable[[], OnlineTable]
    ids = st.sampled_from(["a", "b", "c", "", "毛绒", "x" * 500])
    times = st.integers(0, 3)

    @initialize()
    def begin(self) -> None:
        self.table = ViewMachine.open_fresh()
        self.table.catalog.drop_project()
        self.other = OnlineTable(self.table.store, "shop")
        self.view = self.table.catalog.register_view(VIEW)
        self.rows: dict[str, tuple[int, int]] = {}

    @rule(rows=st.lists(st.tuples(ids, times, times), max_size=6), elsewhere=st.booleans())
    def write(self, rows: list[tuple[str, int, int]], elsewhere: bool) -> None:
        table = self.other if elsewhere else self.table
        ids = [id_ for id_, _, _ in rows]
        view = table.catalog.register_view(self.view)
        write_versions(table, view, ids, [e for _, e, _ in rows], [c for _, _, c in rows])
        for id_, event, created in rows:
            self.rows[id_] = max(self.rows.get(id_, (-1, -1)), (event, created))

    @rule(id_=ids)
    def delete(self, id_: str) -> None:
        self.table.store.delete(self.table.make_keys(self.view, {"product_id": [id_]}, 1))
        self.rows.pop(id_, None)

    @rule()
    def drop_and_register_again(self) -> None:
        self.table.catalog.drop_view("looks")
        self.view = self.table.catalog.register_view(VIEW)
        self.rows = {}

    @rule(storage=st.sampled_from(["plain", "float16", "int8"]))
    def change_storage(self, storage: str) -> None:
        fields = [field for field in VIEW.layout.fields if field.name != "vector"]
        changed = replace(VIEW, layouts=(Layout.from_fields([*fields, Field("vector", "float_list", storage)]),))
        self.view = self.table.catalog.register_view(changed)

    @invariant()
    def reads_the_rows_of_the_dictionary(self) -> None:
        if not hasattr(self, "rows"):
            return
        ids = ["a", "b", "c", "", "毛绒", "x" * 500, "a"]
        for table in (self.table, self.other):
            rows = read_versions(table, ids)
            assert_consistent(rows)
            stored = {
                id_: int(e) for id_, s, e in zip(ids, rows.status, rows.event_timestamp_us, strict=True) if s == 0
            }
            assert stored == {id_: event for id_, (event, _) in self.rows.items()}


def test_a_store_behaves_as_a_dictionary_of_the_newest_rows(url: str) -> None:
    ViewMachine.open_fresh = staticmethod(lambda: open_table(url))  # type: ignore[assignment]
    limits = settings(
        max_examples=settings.default.max_examples // (10 if "cluster" in url else 4),
        stateful_step_count=12,
        suppress_health_check=[HealthCheck.too_slow],
    )
    run_state_machine_as_test(ViewMachine, settings=limits)


@pytest.fixture
def killable_redis(tmp_path: Path) -> Iterator[RedisServer]:
    with servers.redis_server(tmp_path / "redis") as server:
        yield server


def test_a_redis_killed_under_load_gives_clear_errors_and_a_rerun_repairs_it(killable_redis: RedisServer) -> None:
    table = open_table(f"redis://{killable_redis.address}")
    view = table.catalog.register_view(VIEW)
    ids = [f"p{product}" for product in range(200)]
    stop = threading.Event()
    errors: list[Exception] = []
    acknowledged = [0]

    def write() -> None:
        for version in range(1, 1_000_000):
            if stop.is_set():
                return
            try:
                write_versions(table, view, ids, [version] * len(ids), [0] * len(ids))
                acknowledged[0] = version
            except Exception as error:
                errors.append(error)

    def read() -> None:
        while not stop.is_set():
            try:
                seen = acknowledged[0]
                try:
                    assert_consistent(read_versions(table, ids))
                except AssertionError:
                    # The server lost a dictionary before the rows coded with it arrived: the next write repairs them.
                    while acknowledged[0] < seen + 3 and not stop.is_set():
                        time.sleep(0.001)
                    rows = read_versions(table, ids)
                    if not stop.is_set():
                        assert_consistent(rows)
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=work) for work in (write, read, read)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        time.sleep(0.3)
        before = acknowledged[0]
        killable_redis.kill()
        time.sleep(0.1)
        killable_redis.start()
        deadline = time.monotonic() + 10
        while acknowledged[0] <= before and time.monotonic() < deadline:
            time.sleep(0.02)
        assert acknowledged[0] > before, "writers continue when the server is back"
    stop.set()
    for thread in threads:
        thread.join()
    assert all(isinstance(error, VitrineError) for error in errors), errors
    # Writing the offline rows again restores the online rows.
    view = OnlineTable(table.store, "shop").catalog.register_view(VIEW)
    write_versions(table, table.catalog.register_view(view), ids, [acknowledged[0]] * len(ids), [1] * len(ids))
    rows = read_versions(table, ids)
    assert_consistent(rows)
    assert (rows.event_timestamp_us == acknowledged[0]).all()
