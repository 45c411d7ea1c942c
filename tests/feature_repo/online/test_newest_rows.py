"""Of each entity only the newest version is written, also if its versions are in several groups of files."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.offline import delta
from feature_repo.online import lmdb_store, materialize, newest_rows
from feature_repo.online.catalog import View
from feature_repo.online.materialization_log import MaterializationLog, TimeWindow
from feature_repo.online.materialize import OfflineSource, make_writer
from feature_repo.online.newest_rows import NewestRows
from feature_repo.online.row_format import Layout
from feature_repo.online.table import OnlineTable

STAMP = pa.timestamp("us", tz="UTC")
START = datetime(2026, 1, 1, tzinfo=UTC)
Version = tuple[str | None, int | None, int]
versions = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", None]), st.one_of(st.none(), st.integers(0, 5)), st.integers(0, 3)),
    max_size=12,
)


def make_rows(group: list[Version]) -> pa.Table:
    keys, events, created = ([row[i] for row in group] for i in range(3))
    return pa.table(
        {"key": pa.array(keys, pa.string()), "event": pa.array(events, STAMP), "created": pa.array(created, STAMP)}
    )


@given(st.lists(versions, max_size=4))
def test_a_row_is_selected_if_it_is_newer_than_all_of_its_entity_so_far(groups: list[list[Version]]) -> None:
    newest = NewestRows(["key"], "event", "created")
    best: dict[str, tuple[int, int]] = {}
    for group in groups:
        selected = newest.select(make_rows(group)).tolist()
        expected = {}
        for position, (key, event, created) in enumerate(group):
            if key is not None and event is not None and (event, created) >= best.get(key, (-1, -1)):
                is_new = key in expected or (event, created) > best.get(key, (-1, -1))
                best[key] = (event, created)
                if is_new:
                    expected[key] = position
        assert selected == sorted(expected.values())


def test_more_entities_than_can_be_remembered_are_all_selected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newest_rows, "MAX_ENTITIES", 2)
    newest = NewestRows(["key"], "event", "created")
    assert newest.select(make_rows([("a", 5, 0), ("b", 5, 0), ("c", 5, 0)])).tolist() == [0, 1, 2]
    assert newest.select(make_rows([("a", 1, 0), ("a", 2, 0)])).tolist() == [1]  # the store keeps the newer


def test_a_log_of_daily_versions_is_materialized_with_one_row_for_each_product(tmp_path: Path) -> None:
    products, days = [f"p{number}" for number in range(20)], 30
    for day in range(days):
        stamps = pa.array([START + timedelta(days=day)] * len(products), STAMP)
        delta.append(
            tmp_path / "table",
            pa.table({"product_id": products, "event_timestamp": stamps, "created_timestamp": stamps}),
        )
    sent: list[bytes] = []
    table = delta.open_dataset(tmp_path / "table")
    source = OfflineSource(
        table, {name: name for name in table.schema.names}, ["product_id"], "event_timestamp", "created_timestamp"
    )

    def pack(rows: pa.Table) -> tuple[list[bytes], list[bytes]]:
        keys = [product.encode() for product in rows["product_id"].to_pylist()]
        return keys, [str(time).encode() for time in rows["event_timestamp"].to_pylist()]

    online = OnlineTable(lmdb_store.LMDBStore(tmp_path / "online", create=True), "shop")
    view = online.catalog.register_view(View("daily", (("product_id", "string"),), 0, (Layout(()),)))
    materialize.materialize(
        source,
        MaterializationLog(online, view, None, clock=lambda: START),
        TimeWindow(START, START + timedelta(days=days)),
        write=make_writer(pack, lambda keys, rows: sent.extend(keys)),
        start_progress=lambda rows: lambda done: None,
        rows_per_entry=100,
    )
    assert sorted(sent) == sorted(product.encode() for product in products)
