"""Materialization on Ray writes the bytes that one machine writes, on each online store."""

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from feast import FeatureStore

from feature_repo.distributed import materialize as on_ray
from feature_repo.errors import VitrineError
from feature_repo.location import BucketPath, Location
from feature_repo.offline import delta
from feature_repo.online import entity_keys
from feature_repo.online.catalog import materialization_log_key
from feature_repo.stores import engine
from tests.feature_repo.online.conftest import LMDB, REDIS, redis_cluster
from tests.feature_repo.online.conftest import redis as redis_server
from tests.feature_repo.stores import world
from tests.servers import RedisServer

__all__ = ["redis_cluster", "redis_server"]

PRODUCTS = ["a", "b", "c", "毛绒", "x" * 500, *(f"p{i}" for i in range(40))]


@pytest.fixture(params=["lmdb", *(pytest.param(name, marks=pytest.mark.slow) for name in ("redis", "cluster"))])
def online_config(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    if request.param == "lmdb":
        return {"type": LMDB, "path": str(tmp_path / "online")}
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        return {"type": REDIS, "connection_string": server.address}
    nodes: list[RedisServer] = request.getfixturevalue("redis_cluster")
    return {"type": REDIS, "redis_type": "redis_cluster", "connection_string": nodes[0].address}


@pytest.fixture
def stores(online_config: dict[str, Any], tmp_path: Path) -> Iterator[tuple[FeatureStore, FeatureStore]]:
    """One project twice: materialized by one machine, and by Ray, with one more line in feature_store.yaml."""
    world.make(tmp_path, online_config)
    one = world.open_store(tmp_path)
    one.apply(world.OBJECTS)
    world.make(tmp_path, online_config, ray="local")
    yield one, world.open_store(tmp_path)
    one.teardown()


def append(folder: Location, chance: random.Random) -> list[world.Look]:
    """Write versions in five files, with nulls, repeats and ties of event and created timestamps."""
    looks = [
        (chance.choice([*PRODUCTS, None]), chance.choice([None, *range(9)]), chance.randrange(9)) for _ in range(400)
    ]
    for start in range(0, len(looks), 80):
        world.append_looks(folder, looks[start : start + 80])
    stamps = {
        name: pa.array([world.at(1), world.at(2)], world.STAMP) for name in ("event_timestamp", "created_timestamp")
    }
    pairs = {"user_id": [1, 2], "product_id": ["a", "b"], "n_clicks": [3, 4]}
    delta.append(folder / "tables" / "affinity", pa.table(pairs | stamps))
    delta.append(folder / "tables" / "season", pa.table({"sale": pa.array([0.25, 0.5], pa.float32())} | stamps))
    return looks


def online_bytes(store: FeatureStore) -> dict[bytes, bytes | None]:
    """Return every packed row of the project."""
    table = store._get_provider().online_store.online_table(store.config)
    found = [
        key
        for view in table.catalog.reload().views
        for key in table.store.list_keys(entity_keys.make_prefix("shop", view), lambda _: True)
    ]
    return dict(zip(found, table.store.read([found])[0], strict=True))


def forget_rows(store: FeatureStore) -> None:
    """Delete the rows but keep the dictionaries, whose codes would depend on which run comes first."""
    table = store._get_provider().online_store.online_table(store.config)
    for view in table.catalog.reload().views:
        table.store.delete_prefix(entity_keys.make_prefix("shop", view))
        table.store.delete([materialization_log_key("shop", view)])


def test_each_store_holds_the_bytes_that_one_machine_writes(
    stores: tuple[FeatureStore, FeatureStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, many = stores
    looks = append(Path(one.config.repo_path), random.Random(0))
    one.materialize(world.START, world.at(6))
    expected = online_bytes(one)
    forget_rows(one)
    monkeypatch.setattr(on_ray, "ROWS_PER_ENTRY", 200)  # several groups
    monkeypatch.setattr(engine, "make_writer", None)  # which one machine uses
    many.materialize(world.START, world.at(6))
    assert online_bytes(many) == expected
    assert world.online_looks(many, PRODUCTS) == world.find_newest(looks, until=6)
    late = [("a", 5, 20), ("new", 0, 20)]
    world.append_looks(Path(one.config.repo_path), late)
    many.materialize_incremental(world.at(9), feature_views=["looks"])
    assert world.online_looks(many, [*PRODUCTS, "new"]) == world.find_newest([*looks, *late], until=9)


def test_tables_in_a_bucket_are_materialized_and_joined_by_the_tasks(
    tmp_path: Path, bucket: BucketPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.make(tmp_path, {"type": LMDB, "path": "online"}, ray="local", bucket=bucket)
    store = world.open_store(tmp_path)
    store.apply(world.OBJECTS)
    looks = append(bucket.parent, random.Random(0))
    monkeypatch.setattr(engine, "make_writer", None)  # which one machine uses
    store.materialize(world.START, world.at(6))
    assert world.online_looks(store, PRODUCTS) == world.find_newest(looks, until=6)
    rows = pd.DataFrame({"product_id": PRODUCTS, "event_timestamp": [world.at(20)] * len(PRODUCTS)})
    joined = store.get_historical_features(rows, ["looks:vector"]).to_arrow()
    hours = [None if vector is None else int(vector[0]) for vector in joined["vector"].to_pylist()]
    newest = world.find_newest(looks)
    assert hours == [newest.get(product, (None, None))[0] for product in PRODUCTS]


def test_an_error_in_a_task_is_one_line_and_a_repeated_run_completes(tmp_path: Path) -> None:
    world.make(tmp_path, {"type": LMDB, "path": "online"}, ray="local")
    store = world.open_store(tmp_path)
    store.apply(world.OBJECTS)
    folder = tmp_path / "tables" / "affinity"

    def clicks(values: list[str]) -> pa.Table:
        stamps = {name: pa.array([world.at(1)], world.STAMP) for name in ("event_timestamp", "created_timestamp")}
        return pa.table({"user_id": [1], "product_id": ["a"], "n_clicks": values} | stamps)

    delta.append(folder, clicks(["many"]))
    with pytest.raises(VitrineError, match="clicks") as refusal:
        store.materialize_incremental(world.at(2), feature_views=["affinity"])
    assert "\n" not in str(refusal.value)
    store.refresh_registry()
    assert store.get_feature_view("affinity").most_recent_end_time is None
    delta.overwrite(folder, clicks(["4"]))
    store.materialize_incremental(world.at(2), feature_views=["affinity"])
    answer = store.get_online_features(["affinity:clicks"], [{"user_id": 1, "product_id": "a"}]).to_dict()
    assert answer["clicks"] == [4]


def test_the_same_setting_runs_training_joins_on_ray(tmp_path: Path) -> None:
    world.make(tmp_path, {"type": LMDB, "path": "online"})
    one = world.open_store(tmp_path)
    one.apply(world.OBJECTS)
    chance = random.Random(1)
    append(tmp_path, chance)
    world.make(tmp_path, {"type": LMDB, "path": "online"}, ray="local")
    many = world.open_store(tmp_path)
    rows = pd.DataFrame(
        {
            "product_id": [chance.choice([*PRODUCTS, None, "stranger"]) for _ in range(100)],
            "user_id": pd.array([chance.choice([1, 2, None]) for _ in range(100)], dtype="Int64"),
            "event_timestamp": pd.to_datetime([world.at(chance.randrange(-1, 10)) for _ in range(100)]),
        }
    )
    wanted = ["looks:vector", "looks:colour", "affinity:clicks", "season:sale"]
    jobs = [store.get_historical_features(rows, wanted) for store in (one, many)]
    assert jobs[1]._request.find is not None
    assert jobs[1].to_arrow() == jobs[0].to_arrow()
    sets = [job.to_folder(tmp_path / name) for job, name in zip(jobs, ("one", "many"), strict=True)]
    assert pa.concat_tables(sets[1].to_batches()) == pa.concat_tables(sets[0].to_batches())


def test_without_ray_the_error_is_one_line_with_the_install_command() -> None:
    code = "from feature_repo.distributed.cluster import connect; connect('local')"
    without = f"import sys; sys.modules['ray'] = None; {code}"
    done = subprocess.run([sys.executable, "-c", without], capture_output=True, text=True, env=world.environment())
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("feature_repo.errors.UnavailableError: Ray is configured but not installed")
    assert last.endswith("pip install 'vitrine[ray]'")
