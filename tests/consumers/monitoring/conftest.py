"""A shop with one fault of each kind, on which the real checks are run once."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml

from consumers.monitoring.watcher import WatchedCheck, Watcher, default_checks
from feature_repo import config, run_log
from feature_repo.config import Settings
from feature_repo.offline import delta, quarantine
from feature_repo.online.lmdb_store import LMDBStore
from feature_repo.online.open_store import LMDB
from feature_repo.schema import PRODUCT_FIRST_FEATURE
from tests.consumers.monitoring.drift import test_check as drifting
from tests.consumers.monitoring.freshness import tables

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Vectors drift, a tag row is missing online, a run failed, a quarantine reason contains HTML."""
    rows, last_week = drifting.tables(0)
    for i in np.flatnonzero(last_week):
        rows["product_embedding"]["image_vector"][i] = None
    folder = tmp_path_factory.mktemp("shop")
    store = drifting.written(folder, rows)
    raw = yaml.safe_load(store.file.read_text()) | {"online_store": {"type": LMDB, "path": "online"}}
    store.file.write_text(yaml.safe_dump(raw))
    LMDBStore(folder / "online", create=True)
    store = config.load(store.file)
    tables.put_online(store, "product_tags", hours=20)
    reason = "no <script>alert(1)</script> picture"
    quarantine.add(store, "embeddings", [quarantine.RejectedRow("p1", "image", reason, None)], NOW - timedelta(days=1))
    waited = [0.2, 0.5, 0.6, 3.0, 3.1, 3.2, 400.0, 7.0]
    arrived = [NOW - timedelta(hours=1)] * 7 + [NOW + timedelta(hours=1)]
    delta.append(
        store.table("product_first_feature"),
        pa.table(
            {
                "product_id": list("abcdefgh"),
                "seconds": waited,
                "event_timestamp": arrived,
                "created_timestamp": arrived,
            },
            schema=PRODUCT_FIRST_FEATURE,
        ),
    )
    with run_log.record_run(store, "embeddings", now=NOW - timedelta(hours=30)):
        pass
    with pytest.raises(ZeroDivisionError), run_log.record_run(store, "tags", now=NOW - timedelta(hours=3)):
        raise ZeroDivisionError("out of labels")
    return store


def as_of_now(check: WatchedCheck) -> WatchedCheck:
    """Return the check as of the shop's time, and drift with few permutations."""
    quick = ("--once-in", "20") if check.name == "drift" else ()
    return replace(check, command=(*check.command, "--now", NOW.isoformat(), *quick))


@pytest.fixture(scope="session")
def watcher(shop: Settings) -> Watcher:
    """A watcher whose checks have been run once and are not run again."""
    watching = Watcher([as_of_now(check) for check in default_checks(shop.file, timedelta(minutes=5))], clock)
    for state in watching.states():
        assert watching.run_check(state.check.name).failure is None
    return watching


def clock() -> datetime:
    return NOW


def failing(name: str) -> WatchedCheck:
    """Return a check that fails with a message."""
    return WatchedCheck(
        name, ("python3", "-c", "import sys; sys.exit('the store does not answer')"), timedelta(minutes=5)
    )


@pytest.fixture
def report(tmp_path: Path) -> Path:
    file = tmp_path / "report.html"
    file.write_text("<h1>lift</h1>")
    return file
