"""`feast materialize` with our engine puts the newest version of each entity online."""

import copy
import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from feast import FeatureService, FeatureStore

from consumers.online import IncompleteStoreError, OnlineReader, Status
from feature_repo.offline import delta
from feature_repo.online.table import OnlineTable
from tests.arrow_rows import write_arrow
from tests.feature_repo.online.conftest import REDIS
from tests.feature_repo.stores import world
from tests.servers import RedisServer

PRODUCTS = ["a", "b", "c", "毛绒", "x" * 500]


def test_the_newest_version_of_each_entity_is_online(store: FeatureStore) -> None:
    generator = random.Random(0)
    looks = [
        (generator.choice([*PRODUCTS, None]), generator.choice([None, *range(20)]), generator.randrange(20))
        for _ in range(200)
    ]
    for start in range(0, len(looks), 50):
        world.append_looks(Path(store.config.repo_path), looks[start : start + 50])
    for until in (0, 7, 20):
        store.materialize(world.START, world.at(until), feature_views=["looks"])
        assert world.online_looks(store, [*PRODUCTS, "unknown"]) == world.find_newest(looks, until=until)


def test_views_of_several_entities_and_of_none_are_materialized(store: FeatureStore) -> None:
    tables = Path(store.config.repo_path) / "tables"
    stamps = {name: pa.array([world.at(1)] * 2, world.STAMP) for name in ("event_timestamp", "created_timestamp")}
    delta.append(
        tables / "affinity", pa.table({"user_id": [1, 2], "product_id": ["a", "b"], "n_clicks": [3, 4]} | stamps)
    )
    sales = pa.array([0.25, 0.5], pa.float32())
    delta.append(tables / "season", pa.table({"sale": sales} | stamps))
    store.materialize(world.START, world.at(2), feature_views=["affinity", "season"])
    entity_rows = [
        {"user_id": 1, "product_id": "a"},
        {"user_id": 2, "product_id": "b"},
        {"user_id": 1, "product_id": "b"},
    ]
    features = store.get_online_features(["affinity:clicks", "season:sale"], entity_rows).to_dict()
    assert features["clicks"] == [3, 4, None]
    assert features["sale"] == [0.5] * 3


def test_a_view_without_a_table_is_logged_and_the_others_are_written(
    store: FeatureStore, caplog: pytest.LogCaptureFixture
) -> None:
    world.append_looks(Path(store.config.repo_path), [("a", 1, 1)])
    store.materialize_incremental(world.at(2))
    assert world.online_looks(store, ["a"]) == {"a": (1, 1)}
    assert {record.getMessage().split(":")[0] for record in caplog.records} >= {"affinity", "season"}


def test_after_the_online_store_lost_its_data_a_run_brings_rows_views_and_services_back(store: FeatureStore) -> None:
    store.apply([FeatureService(name="ranking", features=[world.looks, world.season])])
    world.append_looks(Path(store.config.repo_path), [("a", 1, 1), ("b", 2, 2)])
    store.materialize_incremental(world.at(3), feature_views=["looks"])
    table = store._get_provider().online_store.online_table(store.config)
    reader = OnlineReader.from_table(OnlineTable(table.store, table.project), refresh=0.0)
    for write in (
        lambda: store.materialize_incremental(world.at(4), feature_views=["looks"]),
        lambda: write_arrow(store, "looks", delta.read(Path(store.config.repo_path) / "tables" / "looks")),
    ):
        table.store.delete_prefix(b"")
        with pytest.raises(IncompleteStoreError, match=r"`shop`: the online store has no views: .* lost its data"):
            reader.ping()
        write()
        reader.ping()
        assert world.online_looks(store, ["a", "b"]) == {"a": (1, 1), "b": (2, 2)}
        batch = reader.fetch("ranking", {"product_id": ["a", "c"]})
        assert batch.views["looks"].status().tolist() == [Status.PRESENT, Status.ABSENT]
        assert set(table.catalog.reload().views) == {"looks", "affinity", "season"}
    table.catalog.drop_view("season")
    with pytest.raises(IncompleteStoreError, match="no view `season`, which service `ranking` names"):
        reader.ping()


def feast(folder: Path, *arguments: str) -> str:
    """Run the `feast` command line in a folder and return its output."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / "feast"), *arguments],
        cwd=folder,
        env=world.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_rows_are_written_again_after_their_view_got_a_longer_ttl(redis: RedisServer, tmp_path: Path) -> None:
    """Redis would drop them a day after the end of the former TTL."""
    world.make(tmp_path, {"type": REDIS, "connection_string": redis.address})
    store, looks, server = world.open_store(tmp_path), copy.copy(world.looks), redis.client()
    server.flushall()
    hour = (datetime.now(UTC) - world.START) // world.HOUR
    world.append_looks(tmp_path, [("a", hour, hour)])
    days_left = []
    for run, days in enumerate([1, 30, 30, 7, 0]):
        looks.ttl = timedelta(days=days)
        store.apply([world.product, looks])
        store.materialize_incremental(world.at(hour + 1 + run))
        table = store._get_provider().online_store.online_table(store.config)
        (key,) = table.make_keys(table.catalog.get_view("looks"), {"product_id": ["a"]}, 1)
        days_left.append(round(server.pttl(key) / 86_400_000))
    assert days_left == [2, 31, 31, 31, 0]


@pytest.mark.slow
def test_feast_apply_and_materialize_work_from_the_command_line(tmp_path: Path) -> None:
    world.make(tmp_path, {"type": "feature_repo.stores.online.LMDBOnlineStore", "path": "online"})
    (tmp_path / "definitions.py").write_text("from tests.feature_repo.stores.world import looks, product")
    world.append_looks(tmp_path, [("a", 1, 1), ("b", 2, 2)])
    feast(tmp_path, "apply")
    assert "100%" in feast(tmp_path, "materialize-incremental", world.at(1).isoformat())
    assert world.online_looks(world.open_store(tmp_path), ["a", "b"]) == {"a": (1, 1)}
    world.append_looks(tmp_path, [("a", 3, 3)])
    feast(tmp_path, "materialize", world.at(2).isoformat(), world.at(3).isoformat())
    assert world.online_looks(world.open_store(tmp_path), ["a", "b"]) == {"a": (3, 3), "b": (2, 2)}
