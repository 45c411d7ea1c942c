"""After a killed process, a repeated run gives the result of an undisturbed run."""

import random
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import ray

from feature_repo.config import Settings
from feature_repo.offline import delta, quarantine
from tests.feature_repo.distributed import drivers
from tests.feature_repo.distributed.test_embeddings import products, write_images
from tests.feature_repo.online.conftest import LMDB, REDIS
from tests.feature_repo.online.conftest import redis as redis_server
from tests.feature_repo.stores import world
from tests.producers.catalogue.shop import ingest, open_deployment
from tests.producers.encoders import checkpoints
from tests.servers import RedisServer

__all__ = ["redis_server"]
pytestmark = pytest.mark.slow

NOW = datetime(2026, 6, 1, tzinfo=UTC)
KILLS = 4


def until_done(chance: random.Random, work: Callable[..., None], *arguments: Any, check: Callable[[], None]) -> None:
    """Start the work repeatedly, kill it KILLS times at random times, and check the result after each kill."""
    address = ray.get_runtime_context().gcs_address
    killed, takes = 0, 2.0
    while True:
        with drivers.running(address, work, *arguments) as (_, pipe):
            began = time.monotonic()
            if killed == KILLS:
                assert pipe.recv() == "done"
                break
            if pipe.poll(chance.uniform(0, takes)):
                assert pipe.recv() == "done"
                takes = time.monotonic() - began
            else:
                takes *= 1.2
        killed += 1
        check()


@pytest.fixture(params=["lmdb", "redis"])
def online_config(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "lmdb":
        return {"type": LMDB, "path": "online"}
    server: RedisServer = request.getfixturevalue("redis_server")
    return {"type": REDIS, "connection_string": server.address}


def test_the_next_run_completes_a_killed_materialization(online_config: dict[str, Any], tmp_path: Path) -> None:
    world.make(tmp_path, online_config, ray=ray.get_runtime_context().gcs_address)
    store = world.open_store(tmp_path)
    store.apply(world.OBJECTS)
    chance = random.Random(0)
    names = [f"p{i}" for i in range(300)]
    looks = [(chance.choice(names), chance.randrange(9), chance.randrange(9)) for _ in range(1_600)]
    for start in range(0, len(looks), 200):
        world.append_looks(tmp_path, looks[start : start + 200])
    appended = set(looks)

    def check() -> None:
        found = world.online_looks(store, names)
        assert {(product, *one) for product, one in found.items()} <= appended, "no row is a mixture"
        store.refresh_registry()
        assert store.get_feature_view("looks").most_recent_end_time in (None, world.at(9))

    until_done(chance, drivers.materialize, tmp_path, world.at(9), check=check)
    assert world.online_looks(store, names) == world.find_newest(looks)
    store.refresh_registry()
    assert store.get_feature_view("looks").most_recent_end_time == world.at(9)


def stored(store: Settings) -> tuple[Counter[tuple[Any, ...]], Counter[tuple[Any, ...]]]:
    """Return rows and rejected rows with their multiplicity; vectors are rounded to four digits."""
    rows = (
        delta.read(store.table("product_embedding")).to_pylist()
        if delta.exists(store.table("product_embedding"))
        else []
    )
    kept = Counter(
        (row["product_id"], row["event_timestamp"], tuple(round(value, 4) for value in row["fused_vector"]))
        for row in rows
    )
    return kept, Counter((row["step"], row["row_id"], row["reason"]) for row in quarantine.read(store).to_pylist())


def test_killed_and_repeated_encoding_gives_the_tables_of_an_undisturbed_run(tmp_path: Path) -> None:
    encoder = tmp_path / "encoder"
    checkpoints.clip(encoder)
    images = write_images(tmp_path / "pictures")
    address = ray.get_runtime_context().gcs_address
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        ingest(open_deployment(folder), *products(images, 120))
    with drivers.running(address, drivers.embed, open_deployment(whole).file, encoder, NOW, address) as (_, pipe):
        assert pipe.recv() == "done"
    wanted, refused = stored(open_deployment(whole))

    def check() -> None:
        found, _ = stored(open_deployment(killed))
        assert found <= wanted, "a row is not as it should be, or is there twice"

    until_done(random.Random(1), drivers.embed, open_deployment(killed).file, encoder, NOW, address, check=check)
    assert stored(open_deployment(killed)) == (wanted, refused)
    assert len(wanted) > 100
