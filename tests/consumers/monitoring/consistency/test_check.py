"""`consume consistency` on real stores whose rows are damaged on purpose."""

import json
import os
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore

from consumers.monitoring.consistency import check
from consumers.monitoring.consistency.check import Consistency, ViewConsistency
from feature_repo import config
from feature_repo.offline import delta, retention
from feature_repo.online.catalog import materialization_log_key
from feature_repo.online.open_store import open_configured_table
from feature_repo.online.row_format import HEADER_SIZE
from feature_repo.online.table import OnlineTable
from tests.arrow_rows import write_arrow
from tests.deployments import run_main
from tests.feature_repo.stores import world
from tests.feature_repo.stores.world import Look, at

on_one_store = pytest.mark.parametrize("online_config", ["lmdb"], indirect=True)
"""For tests that do not depend on the store, because a project takes two seconds."""
NOW = at(100)
LOOKS: list[Look] = [(f"p{i:02}", 1 + i % 7, 8) for i in range(40)]
FINE = {"missing": 0, "extra": 0, "stale": 0, "different": 0}


def folder(store: FeatureStore) -> Path:
    return Path(store.config.repo_path)


def materialize(store: FeatureStore, *, until: float = 50) -> None:
    store.materialize_incremental(at(until), feature_views=["looks"])


@pytest.fixture
def shop(store: FeatureStore) -> FeatureStore:
    """A project with 40 products online, with one version each."""
    world.append_looks(folder(store), LOOKS)
    materialize(store)
    return store


def online(store: FeatureStore) -> OnlineTable:
    opened = open_configured_table(config.load(folder(store) / "feature_store.yaml"))
    assert opened is not None
    return opened


def key(store: FeatureStore, product: str) -> bytes:
    table = online(store)
    return table.make_keys(table.catalog.get_view("looks"), {"product_id": [product]}, 1)[0]


def row(store: FeatureStore, product: str) -> bytes:
    result = online(store).store.get(key(store, product))
    assert result is not None
    return result


def replace(store: FeatureStore, product: str, new: bytes | None) -> None:
    """Overwrite the bytes of an online row."""
    assert online(store).store.compare_and_swap(key(store, product), online(store).store.get(key(store, product)), new)


def checked(store: FeatureStore, *, now: datetime = NOW, sample: int = 100, **options: object) -> ViewConsistency:
    result = check.check(
        config.load(folder(store) / "feature_store.yaml"),
        sample=sample,
        seed=0,
        budget=0.0,
        now=now,
        **options,  # type: ignore[arg-type]
    )
    return next(view for view in result.views if view.view == "looks")


def test_materialized_rows_are_consistent(shop: FeatureStore) -> None:
    result = checked(shop)
    assert result.not_judged is None
    assert (result.sampled, result.faults, result.pending, result.young) == (40, FINE, 0, 0)
    assert result.as_of == at(50)


def test_a_deleted_online_row_is_missing(shop: FeatureStore) -> None:
    replace(shop, "p07", None)
    result = checked(shop)
    assert result.faults == FINE | {"missing": 1}
    assert [(one.fault, one.key) for one in result.examples] == [("missing", "p07")]


@on_one_store
def test_a_deleted_row_is_missing_after_a_copy_changed_the_files_times(shop: FeatureStore) -> None:
    for file in (folder(shop) / "tables" / "looks").glob("*.parquet"):
        os.utime(file, (0, 0))
    replace(shop, "p07", None)
    assert checked(shop).faults == FINE | {"missing": 1}


@on_one_store
def test_a_row_without_an_offline_version_is_extra(shop: FeatureStore) -> None:
    retention.forget(folder(shop) / "tables" / "looks", "product_id", ["p03", "p04"])
    retention.compact(folder(shop) / "tables" / "looks")
    materialize(shop, until=51)
    result = checked(shop)
    assert result.faults == FINE | {"extra": 2}
    assert {one.key for one in result.examples} == {"p03", "p04"}


def test_an_older_row_in_place_of_a_newer_one_is_stale(shop: FeatureStore) -> None:
    old = row(shop, "p05")
    world.append_looks(folder(shop), [("p05", 30, 31)])
    materialize(shop, until=60)
    replace(shop, "p05", old)
    result = checked(shop)
    assert result.faults == FINE | {"stale": 1}
    assert "2026-01-01 06:00:00 is online, 2026-01-02 06:00:00 was written" in result.examples[0].detail


@on_one_store
def test_a_row_not_materialized_yet_is_pending_and_not_a_fault(shop: FeatureStore) -> None:
    world.append_looks(folder(shop), [("p05", 30, 31), ("new", 30, 31)])
    result = checked(shop)
    assert (result.faults, result.pending, result.sampled) == (FINE, 2, 41)


@on_one_store
def test_rows_that_a_compaction_moved_are_not_pending_and_are_still_judged(shop: FeatureStore) -> None:
    path = folder(shop) / "tables" / "looks"
    world.append_looks(folder(shop), [("p05", 30, 31)])
    materialize(shop)
    retention.forget(path, "product_id", ["p09"])
    replace(shop, "p09", None)
    retention.compact(path)
    replace(shop, "p07", None)
    result = checked(shop)
    assert (result.pending, result.faults) == (0, FINE | {"missing": 1})


@on_one_store
def test_a_new_row_that_a_compaction_moved_is_pending(shop: FeatureStore) -> None:
    world.append_looks(folder(shop), [("p05", 30, 31)])
    retention.compact(folder(shop) / "tables" / "looks")
    result = checked(shop)
    assert (result.pending, result.faults) == (1, FINE)
    materialize(shop, until=51)
    assert checked(shop).pending == 0


def test_a_flipped_bit_is_a_damaged_row(shop: FeatureStore) -> None:
    damaged = bytearray(row(shop, "p11"))
    damaged[HEADER_SIZE + 6] ^= 4
    replace(shop, "p11", bytes(damaged))
    result = checked(shop)
    assert result.faults == FINE | {"different": 1}
    assert result.examples[0].detail == "the row is damaged"


@on_one_store
def test_features_of_another_product_are_named_with_their_cosine(shop: FeatureStore) -> None:
    replace(shop, "p00", row(shop, "p07"))  # the same hour, and so the same features: nothing to see
    assert checked(shop).faults == FINE
    table = online(shop)
    view = table.catalog.get_view("looks")
    rows = pa.table({"vector": pa.array([[3.0, -1.0]], world.vectors), "colour": ["colour 4"]})
    from feature_repo.arrow import columns, timestamps

    result = {field.name: columns.from_arrow(field, rows[field.name]) for field in view.layout.fields}
    event, created = (pa.chunked_array([pa.array([at(hours)], world.STAMP)]) for hours in (1, 8))
    _, packed = table.pack(view, [b"any"], result, timestamps.to_ticks(event, "us"), timestamps.to_ticks(created, "us"))
    replace(shop, "p00", packed[0])
    judged = checked(shop)
    assert judged.faults == FINE | {"different": 1}
    assert judged.features == {"vector": 1, "colour": 1}
    assert judged.lowest_cosine == pytest.approx((3 * 1 - 8) / (10**0.5 * 65**0.5), abs=1e-6)


def test_a_streamed_row_is_compared_with_its_own_version_after_the_grace_time(shop: FeatureStore) -> None:
    table = online(shop)
    world.append_looks(folder(shop), [("p02", 40, 41)])
    rows = pa.table(
        {
            "product_id": ["p02", "p03"],
            "vector": pa.array([[40.0, 41.0], [40.0, 41.0]], world.vectors),
            "colour": ["colour 1", "colour 1"],
            "event_timestamp": pa.array([at(40)] * 2, world.STAMP),
            "created_timestamp": pa.array([at(41)] * 2, world.STAMP),
        }
    )
    write_arrow(shop, "looks", rows)
    table.catalog.reload()
    soon = checked(shop, now=at(41) + timedelta(seconds=30))
    assert soon.faults == FINE | {"different": 0}
    assert soon.young == 1, "p03 has no version offline yet; p02 has, and is as it should be"
    assert checked(shop).faults == FINE | {"extra": 1}


@on_one_store
def test_without_a_materialization_log_every_row_up_to_now_is_expected_online(shop: FeatureStore) -> None:
    online(shop).store.delete([materialization_log_key("shop", "looks")])
    world.append_looks(folder(shop), [("p05", 30, 31), ("p06", 101, 102)])
    result = checked(shop)
    assert result.as_of is None
    assert result.faults == FINE | {"stale": 1}


@on_one_store
def test_the_sample_is_by_hash_from_both_sides(shop: FeatureStore) -> None:
    result = checked(shop, sample=10)
    assert result.sampled == 10
    for product in (f"p{i:02}" for i in range(40)):
        replace(shop, product, None)
    assert checked(shop, sample=10).faults == FINE | {"missing": 10}


def test_a_limited_scan_is_reported_and_still_finds_missing_rows(
    shop: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feature_repo.online.lmdb_store.KEYS_PER_STEP", 7)
    monkeypatch.setattr("feature_repo.online.redis_store.KEYS_PER_STEP", 7)
    replace(shop, "p39", None)
    result = checked(shop, max_keys_scanned=5)
    assert not result.scan_complete
    assert result.keys_scanned < 20
    assert result.faults == FINE | {"missing": 1}


@on_one_store
def test_only_the_keys_of_an_impressions_log_are_sampled(shop: FeatureStore, tmp_path: Path) -> None:
    log = tmp_path / "served.parquet"
    pq.write_table(pa.table({"product_id": ["p01", "p02", "p02", None, "never seen"]}), log)
    replace(shop, "p02", None)
    replace(shop, "p03", None)
    result = checked(shop, served=log)
    assert (result.sampled, result.faults) == (3, FINE | {"missing": 1})


@on_one_store
def test_a_view_that_cannot_be_checked_has_a_reason(shop: FeatureStore) -> None:
    delta.append(folder(shop) / "tables" / "affinity", pa.table({"user_id": [1], "product_id": ["p01"]}))
    result = check.check(config.load(folder(shop) / "feature_store.yaml"), sample=10, seed=0, budget=0.0, now=NOW)
    reasons = {view.view: view.not_judged for view in result.views}
    assert reasons["season"] == "there is no table `season` yet"
    assert "no column clicks" in (reasons["affinity"] or "")
    assert result.breaches == []
    noise = Consistency(NOW, 0.0, [view for view in result.views if view.not_judged])
    assert (result.no_data, noise.no_data) == (None, "; ".join(view.not_judged or "" for view in noise.views))
    assert Consistency(NOW, 0.0, []).no_data == "there is no view online"
    assert Consistency(NOW, 0.0, [], ["it has no views"]).no_data == "it has no views"
    assert Consistency(NOW, 0.0, [], ["it has no views"]).breaches == []
    assert Consistency(NOW, 0.0, [ViewConsistency("looks")], ["no view `tags`"]).breaches == ["no view `tags`"]


@on_one_store
def test_a_view_whose_table_is_gone_is_a_breach(shop: FeatureStore) -> None:
    (folder(shop) / "tables" / "looks").rename(folder(shop) / "elsewhere")
    result = check.check(config.load(folder(shop) / "feature_store.yaml"), sample=10, seed=0, budget=1.0, now=NOW)
    assert [line.split(";")[0] for line in result.breaches] == [
        "looks: its rows are online, but its offline table is gone"
    ]


@on_one_store
def test_the_command_exits_with_1_over_the_budget_and_says_what_to_do_first(shop: FeatureStore, tmp_path: Path) -> None:
    replace(shop, "p07", None)
    file = tmp_path / "check.json"
    command = [
        "consume",
        "consistency",
        "--store",
        str(folder(shop) / "feature_store.yaml"),
    ]
    done = run_main(*command, "--json", str(file))
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "looks: 1 of 40 sampled keys differ from the offline store (1 missing), at most 0.00% allowed; "
        "materialize looks again over its whole time range: "
        "`cd feature_repo && feast materialize START END --views looks`"
    )
    assert "missing p07" in done.stdout
    looks = next(view for view in json.loads(file.read_text())["views"] if view["view"] == "looks")
    assert looks["faults"] == FINE | {"missing": 1}
    done = run_main(*command, "--budget", "0.03")
    assert (done.returncode, done.stderr) == (0, "")
