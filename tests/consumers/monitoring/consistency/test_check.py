"""`consume consistency` on real stores whose rows are damaged on purpose."""

import json
import os
import subprocess
import sys
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
from tests.feature_repo.stores import world
from tests.feature_repo.stores.world import Look, at

on_one_store = pytest.mark.parametrize("online_config", ["lmdb"], indirect=True)
"""For what does not depend on the store: a project on each takes two seconds."""
NOW = at(100)
LOOKS: list[Look] = [(f"p{i:02}", 1 + i % 7, 8) for i in range(40)]
FINE = {"missing": 0, "extra": 0, "stale": 0, "different": 0}


def folder(store: FeatureStore) -> Path:
    return Path(store.config.repo_path)


def materialize(store: FeatureStore, *, until: float = 50) -> None:
    store.materialize_incremental(at(until), feature_views=["looks"])


@pytest.fixture
def shop(store: FeatureStore) -> FeatureStore:
    """40 products, one version each, online."""
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
    found = online(store).store.get(key(store, product))
    assert found is not None
    return found


def replace(store: FeatureStore, product: str, new: bytes | None) -> None:
    """Put bytes in a row's place as nobody ought to."""
    assert online(store).store.compare_and_swap(key(store, product), online(store).store.get(key(store, product)), new)


def checked(store: FeatureStore, *, now: datetime = NOW, sample: int = 100, **options: object) -> ViewConsistency:
    found = check.check(
        config.load(folder(store) / "feature_store.yaml"),
        sample=sample,
        seed=0,
        budget=0.0,
        now=now,
        **options,  # type: ignore[arg-type]
    )
    return next(view for view in found.views if view.view == "looks")


def test_what_was_materialized_is_what_is_offline(shop: FeatureStore) -> None:
    found = checked(shop)
    assert found.not_judged is None
    assert (found.sampled, found.faults, found.pending, found.young) == (40, FINE, 0, 0)
    assert found.as_of == at(50)


def test_a_row_that_vanished_is_missing(shop: FeatureStore) -> None:
    replace(shop, "p07", None)
    found = checked(shop)
    assert found.faults == FINE | {"missing": 1}
    assert [(one.fault, one.key) for one in found.examples] == [("missing", "p07")]


@on_one_store
def test_a_row_that_vanished_is_missing_though_a_copy_gave_the_offline_files_other_times(shop: FeatureStore) -> None:
    for file in (folder(shop) / "tables" / "looks").glob("*.parquet"):
        os.utime(file, (0, 0))
    replace(shop, "p07", None)
    assert checked(shop).faults == FINE | {"missing": 1}


@on_one_store
def test_a_row_of_a_product_that_the_offline_store_lost_is_extra(shop: FeatureStore) -> None:
    retention.forget(folder(shop) / "tables" / "looks", "product_id", ["p03", "p04"])
    retention.compact(folder(shop) / "tables" / "looks")
    materialize(shop, until=51)
    found = checked(shop)
    assert found.faults == FINE | {"extra": 2}
    assert {one.key for one in found.examples} == {"p03", "p04"}


def test_an_older_row_in_a_newer_ones_place_is_stale(shop: FeatureStore) -> None:
    old = row(shop, "p05")
    world.append_looks(folder(shop), [("p05", 30, 31)])
    materialize(shop, until=60)
    replace(shop, "p05", old)
    found = checked(shop)
    assert found.faults == FINE | {"stale": 1}
    assert "2026-01-01 06:00:00 is online, 2026-01-02 06:00:00 was written" in found.examples[0].detail


@on_one_store
def test_a_row_that_no_run_has_taken_yet_is_late_and_not_inconsistent(shop: FeatureStore) -> None:
    world.append_looks(folder(shop), [("p05", 30, 31), ("new", 30, 31)])
    found = checked(shop)
    assert (found.faults, found.pending, found.sampled) == (FINE, 2, 41)


def test_a_flipped_bit_is_damage(shop: FeatureStore) -> None:
    damaged = bytearray(row(shop, "p11"))
    damaged[HEADER_SIZE + 6] ^= 4
    replace(shop, "p11", bytes(damaged))
    found = checked(shop)
    assert found.faults == FINE | {"different": 1}
    assert found.examples[0].detail == "the row is damaged"


@on_one_store
def test_another_products_features_in_a_sound_row_are_named_with_their_cosine(shop: FeatureStore) -> None:
    replace(shop, "p00", row(shop, "p07"))  # the same hour, and so the same features: nothing to see
    assert checked(shop).faults == FINE
    table = online(shop)
    view = table.catalog.get_view("looks")
    rows = pa.table({"vector": pa.array([[3.0, -1.0]], world.vectors), "colour": ["colour 4"]})
    from feature_repo.arrow import columns, timestamps

    found = {field.name: columns.from_arrow(field, rows[field.name]) for field in view.layout.fields}
    event, created = (pa.chunked_array([pa.array([at(hours)], world.STAMP)]) for hours in (1, 8))
    _, packed = table.pack(view, [b"any"], found, timestamps.to_ticks(event, "us"), timestamps.to_ticks(created, "us"))
    replace(shop, "p00", packed[0])
    judged = checked(shop)
    assert judged.faults == FINE | {"different": 1}
    assert judged.features == {"vector": 1, "colour": 1}
    assert judged.lowest_cosine == pytest.approx((3 * 1 - 8) / (10**0.5 * 65**0.5), abs=1e-6)


def test_a_streamed_row_is_held_against_its_own_version_once_that_had_time_to_arrive(shop: FeatureStore) -> None:
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
def test_without_a_ledger_every_row_up_to_now_is_to_be_online(shop: FeatureStore) -> None:
    online(shop).store.delete([materialization_log_key("shop", "looks")])
    world.append_looks(folder(shop), [("p05", 30, 31), ("p06", 101, 102)])
    found = checked(shop)
    assert found.as_of is None
    assert found.faults == FINE | {"stale": 1}


@on_one_store
def test_the_sample_is_by_hash_from_both_sides(shop: FeatureStore) -> None:
    found = checked(shop, sample=10)
    assert found.sampled == 10
    for product in (f"p{i:02}" for i in range(40)):
        replace(shop, product, None)
    assert checked(shop, sample=10).faults == FINE | {"missing": 10}


def test_a_scan_that_is_cut_short_says_so_and_still_finds_what_is_missing(
    shop: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feature_repo.online.lmdb_store.KEYS_PER_STEP", 7)
    monkeypatch.setattr("feature_repo.online.redis_store.KEYS_PER_STEP", 7)
    replace(shop, "p39", None)
    found = checked(shop, max_keys_scanned=5)
    assert not found.scan_complete
    assert found.keys_scanned < 20
    assert found.faults == FINE | {"missing": 1}


@on_one_store
def test_served_keys_alone_are_looked_at_if_a_log_names_them(shop: FeatureStore, tmp_path: Path) -> None:
    log = tmp_path / "served.parquet"
    pq.write_table(pa.table({"product_id": ["p01", "p02", "p02", None, "never seen"]}), log)
    replace(shop, "p02", None)
    replace(shop, "p03", None)
    found = checked(shop, served=log)
    assert (found.sampled, found.faults) == (3, FINE | {"missing": 1})


@on_one_store
def test_a_view_that_cannot_be_judged_says_why(shop: FeatureStore) -> None:
    delta.append(folder(shop) / "tables" / "affinity", pa.table({"user_id": [1], "product_id": ["p01"]}))
    found = check.check(config.load(folder(shop) / "feature_store.yaml"), sample=10, seed=0, budget=0.0, now=NOW)
    reasons = {view.view: view.not_judged for view in found.views}
    assert reasons["season"] == "there is no table `season` yet"
    assert "no column clicks" in (reasons["affinity"] or "")
    assert found.breaches == []
    nothing = Consistency(NOW, 0.0, [view for view in found.views if view.not_judged])
    assert (found.no_data, nothing.no_data) == (None, "; ".join(view.not_judged or "" for view in nothing.views))
    assert Consistency(NOW, 0.0, []).no_data == "there is no view online"


@on_one_store
def test_a_view_whose_table_is_gone_is_a_breach_and_not_calm(shop: FeatureStore) -> None:
    (folder(shop) / "tables" / "looks").rename(folder(shop) / "elsewhere")
    found = check.check(config.load(folder(shop) / "feature_store.yaml"), sample=10, seed=0, budget=1.0, now=NOW)
    assert [line.split(";")[0] for line in found.breaches] == [
        "looks: its rows are online, but its offline table is gone"
    ]


@on_one_store
def test_the_command_ends_with_1_over_the_budget_and_says_what_to_do_first(shop: FeatureStore, tmp_path: Path) -> None:
    replace(shop, "p07", None)
    file = tmp_path / "check.json"
    command = [
        sys.executable,
        "-m",
        "consumers.cli",
        "consistency",
        "--store",
        str(folder(shop) / "feature_store.yaml"),
    ]
    done = subprocess.run([*command, "--json", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "looks: 1 of 40 sampled keys differ from the offline store (1 missing), at most 0.00% allowed; "
        "materialize looks again over its whole time range: "
        "`cd feature_repo && feast materialize START END --views looks`"
    )
    assert "missing p07" in done.stdout
    looks = next(view for view in json.loads(file.read_text())["views"] if view["view"] == "looks")
    assert looks["faults"] == FINE | {"missing": 1}
    done = subprocess.run([*command, "--budget", "0.03"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
