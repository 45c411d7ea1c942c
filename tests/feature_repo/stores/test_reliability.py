"""Killed and failed materializations: online rows are never wrong, and the next run makes them complete."""

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from feast import FeatureStore

from consumers.online import OnlineReader, Status
from feature_repo.errors import VitrineError
from feature_repo.offline import delta
from feature_repo.online import entity_keys
from tests import servers
from tests.feature_repo.stores import runs, world
from tests.feature_repo.stores.world import Look
from tests.servers import RedisServer


def folder_of(store: FeatureStore) -> Path:
    return Path(store.config.repo_path)


def read_watermark(store: FeatureStore, view: str = "looks") -> Any:
    """Return the end of the last run that Feast recorded."""
    store.refresh_registry()
    return store.get_feature_view(view).most_recent_end_time


@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_a_rerun_after_random_kills_leaves_what_one_run_leaves(store: FeatureStore, kills: int) -> None:
    generator = random.Random(kills)
    products = [f"p{i}" for i in range(300)]
    looks: list[Look] = []
    hour, killed, takes = 0, 0, 0.5
    while killed < kills:
        hour += 10
        for _ in range(8):  # some rows of each commit are late: older than the end of the last run
            commit = [(generator.choice(products), generator.randrange(hour), hour) for _ in range(150)]
            world.append_looks(folder_of(store), commit)
            looks += commit
        appended = set(looks)
        finished = False
        while not finished:
            before = read_watermark(store)
            with runs.start_run(folder_of(store), world.at(hour), rows_per_entry=100) as (_, pipe):
                began = time.monotonic()
                finished = pipe.poll(generator.uniform(0, takes)) if killed < kills else bool(pipe.recv() + 1)
                takes = max(takes, time.monotonic() - began) if finished else takes * 1.05
            if not finished:
                killed += 1
                online = world.online_looks(store, products)
                assert {(product, *one) for product, one in online.items()} <= appended, "no row mixes two versions"
                assert read_watermark(store) in (before, world.at(hour))
        assert world.online_looks(store, products) == world.find_newest(looks)
        assert read_watermark(store) == world.at(hour)


def test_rows_are_read_during_a_run_and_never_get_older(store: FeatureStore, online_config: dict[str, Any]) -> None:
    products = [f"p{i}" for i in range(2000)]
    for hour in range(20):
        looks = [(product, hour, hour) for product in products[100 * hour :]]
        world.append_looks(folder_of(store), looks)
    url = (
        f"lmdb://{online_config['path']}"
        if "path" in online_config
        else f"redis://{online_config['connection_string']}"
    )
    newest = np.full(len(products), -1)
    stages: set[int] = set()
    with OnlineReader(url, "shop") as reader, runs.start_run(folder_of(store), world.at(50), 100) as (_, pipe):
        while not pipe.poll(0):
            block = reader.fetch("looks", products)
            assert not (block.status == Status.FAILED).any()
            there = block.status == Status.PRESENT
            hours = np.full(len(products), -1)
            if there.any():
                vectors = block.values["vector"]
                assert (vectors[there, 0] == vectors[there, 1]).all()
                hours[there] = vectors[there, 0]
            assert (hours >= newest).all(), "no row gets older"
            newest = hours
            stages.add(int(hours.sum()))
            world.online_looks(store, products[:5])
    assert len(stages) > 2, "rows were read during the run"
    assert world.online_looks(store, products) == {f"p{i}": (i // 100, i // 100) for i in range(2000)}


def test_late_rows_are_written(store: FeatureStore) -> None:
    world.append_looks(folder_of(store), [("a", 10, 10), ("b", 10, 10)])
    store.materialize(world.START, world.at(20), feature_views=["looks"])
    world.append_looks(folder_of(store), [("a", 5, 21), ("b", 15, 21), ("c", 1, 21), ("d", 20, 21), ("e", 40, 21)])
    store.materialize_incremental(world.at(30), feature_views=["looks"])
    assert world.online_looks(store, list("abcde")) == {"a": (10, 10), "b": (15, 21), "c": (1, 21), "d": (20, 21)}
    store.materialize_incremental(world.at(40), feature_views=["looks"])
    assert world.online_looks(store, ["e"]) == {"e": (40, 21)}


def test_a_given_window_is_rewritten_and_an_emptied_store_is_filled(store: FeatureStore) -> None:
    world.append_looks(folder_of(store), [("a", 1, 1), ("b", 10, 10)])
    store.materialize(world.START, world.at(20), feature_views=["looks"])
    online = store._get_provider().online_store.online_table(store.config)
    online.store.delete_prefix(entity_keys.make_prefix("shop", "looks"))
    store.materialize_incremental(world.at(21), feature_views=["looks"])
    assert world.online_looks(store, ["a", "b"]) == {}
    store.materialize(world.at(5), world.at(21), feature_views=["looks"])
    assert world.online_looks(store, ["a", "b"]) == {"b": (10, 10)}
    online.catalog.drop_project()
    store.materialize_incremental(world.at(22), feature_views=["looks"])
    assert world.online_looks(store, ["a", "b"]) == {"a": (1, 1), "b": (10, 10)}


def test_the_watermark_stays_when_a_run_fails_and_moves_after_the_repair(store: FeatureStore) -> None:
    tables = folder_of(store) / "tables"

    def clicks(values: list[str], hour: float = 1) -> pa.Table:
        stamps = {name: pa.array([world.at(hour)], world.STAMP) for name in ("event_timestamp", "created_timestamp")}
        return pa.table({"user_id": [1], "product_id": ["a"], "n_clicks": values} | stamps)

    delta.append(tables / "affinity", clicks(["3"]))
    delta.append(tables / "affinity", clicks(["many"], 1.5))
    with pytest.raises(VitrineError, match="clicks"):
        store.materialize_incremental(world.at(2), feature_views=["affinity"])
    assert read_watermark(store, "affinity") is None
    assert store.get_feature_view("affinity").state.name != "MATERIALIZING"
    delta.overwrite(tables / "affinity", clicks(["4"]))
    store.materialize_incremental(world.at(2), feature_views=["affinity"])
    assert read_watermark(store, "affinity") == world.at(2)
    answer = store.get_online_features(["affinity:clicks"], [{"user_id": 1, "product_id": "a"}]).to_dict()
    assert answer["clicks"] == [4]


@pytest.fixture
def killable_redis(tmp_path: Path) -> Iterator[RedisServer]:
    with servers.redis_server(tmp_path / "redis") as server:
        yield server


def test_an_emptied_redis_is_filled_by_the_next_run(killable_redis: RedisServer, tmp_path: Path) -> None:
    world.make(
        tmp_path, {"type": "feature_repo.stores.online.RedisOnlineStore", "connection_string": killable_redis.address}
    )
    store = world.open_store(tmp_path)
    store.apply([world.product, world.looks])
    world.append_looks(tmp_path, [("a", 1, 1), ("b", 2, 2)])
    store.materialize_incremental(world.at(5))
    killable_redis.kill()
    with pytest.raises(VitrineError, match="does not answer"):
        store.materialize_incremental(world.at(6))
    assert read_watermark(store) == world.at(5)
    killable_redis.start()
    store.materialize_incremental(world.at(6))
    assert world.online_looks(store, ["a", "b"]) == {"a": (1, 1), "b": (2, 2)}


@pytest.mark.slow
def test_memory_does_not_grow_with_the_table(store: FeatureStore) -> None:
    megabytes = []
    first = 0
    few, many = 8, 32
    for files in (few, many):
        for _ in range(files):
            append_wide(folder_of(store), first, first + 30_000)
            first += 30_000
        with runs.start_run(folder_of(store), world.at(50), rows_per_entry=30_000) as (_, pipe):
            megabytes.append(pipe.recv())
    more = (many - few) * 30_000 * 128 * 4 / 1e6
    assert megabytes[1] < megabytes[0] + 0.2 * more, f"{megabytes} MB; the last run had {more:.0f} MB more to write"


def append_wide(folder: Path, start: int, end: int) -> None:
    """Append one version of each product from `start` to `end`, with vectors of 128 numbers."""
    count = end - start
    numbers = pa.array(np.random.default_rng(start).random(count * 128, dtype=np.float32))
    offsets = pa.array(np.arange(count + 1, dtype=np.int32) * 128)
    stamps = pa.array([world.at(1)] * count, world.STAMP)
    rows = {
        "product_id": [f"p{i}" for i in range(start, end)],
        "vector": pa.ListArray.from_arrays(offsets, numbers),
        "colour": ["colour 0"] * count,
        "event_timestamp": stamps,
        "created_timestamp": stamps,
    }
    delta.append(folder / "tables" / "looks", pa.table(rows))
