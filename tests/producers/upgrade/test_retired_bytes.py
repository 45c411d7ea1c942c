"""After a retirement the online store has as many keys and bytes as before the upgrade, and no row of the version."""

import shutil
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import lmdb
import pytest
import redis

from feature_repo import config
from feature_repo.config import Settings
from feature_repo.offline.production import State
from producers.upgrade import machine, versions
from tests import servers
from tests.feature_repo.features.world import RANKED
from tests.producers.upgrade import shop
from tests.producers.upgrade.shop import NEW, OLD, TABLES, Steps


@pytest.fixture(params=["lmdb", pytest.param("redis", marks=pytest.mark.slow)])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    if request.param == "lmdb":
        yield shop.make(tmp_path / "shop")
        return
    with servers.redis_server(tmp_path / "redis") as server:
        yield shop.make(tmp_path / "shop", server.address)


def measure_rows(settings: Settings) -> dict[bytes, int]:
    """The bytes of each key with its value, in the online store; those of the catalog and of logs left out."""
    online = config.load(settings.file).raw["online_store"]
    if "connection_string" in online:
        host, port = online["connection_string"].split(",")[0].split(":")
        with redis.Redis(host, int(port)) as client:
            sizes = {key: client.memory_usage(key, samples=0) for key in client.scan_iter(count=1000)}
    else:
        with tempfile.TemporaryDirectory() as folder:  # a process opens an environment once
            shutil.copy(Path(online["path"]) / "data.mdb", folder)
            with lmdb.open(folder, readonly=True, lock=False) as environment, environment.begin() as transaction:
                sizes = {bytes(key): len(key) + len(value) for key, value in transaction.cursor()}
    return {key: size for key, size in sizes.items() if b"vitrine:" not in key}


def test_a_retired_candidate_leaves_the_keys_and_bytes_of_before(settings: Settings) -> None:
    before, counts = measure_rows(settings), shop.count_rows(settings)
    assert len(before) > 40
    steps = Steps(settings)
    shop.start(settings)
    shop.advance(settings, steps)
    assert sum(measure_rows(settings).values()) > 1.5 * sum(before.values())
    shop.rollback(settings, steps)
    machine.retire(settings, clock=lambda: RANKED + timedelta(hours=1))
    assert measure_rows(settings) == before
    assert shop.count_rows(settings) == counts
    assert {versions.count_rows(settings, table, NEW) for table in TABLES} == {0}


def test_a_retired_former_version_leaves_as_many_keys_and_bytes(settings: Settings, tmp_path: Path) -> None:
    before, counts = measure_rows(settings), shop.count_rows(settings)
    steps = Steps(settings)
    shop.start(settings)
    shop.advance(settings, steps)
    shop.advance(settings, steps, shop.write_gate(tmp_path / "gate.json"))
    assert shop.advance(settings, steps).state is State.CUT_OVER
    machine.retire(settings, clock=lambda: RANKED + timedelta(hours=1))
    after = measure_rows(settings)
    assert len(after) == len(before)
    assert sum(after.values()) == pytest.approx(sum(before.values()), rel=0.02)  # the versions' names differ in length
    assert shop.count_rows(settings) == counts
    assert {versions.count_rows(settings, table, OLD) for table in TABLES} == {0}
