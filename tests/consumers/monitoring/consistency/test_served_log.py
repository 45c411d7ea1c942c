"""`consume consistency --served-log`: rows as they were served, checked as of that time."""

import json
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from feast import FeatureStore

from consumers.monitoring.consistency import check, row_checks, served_log
from consumers.monitoring.consistency.check import ViewConsistency
from consumers.monitoring.consistency.served_log import ServedLog
from consumers.online import OnlineReader
from consumers.serving.run import open_access_log
from feature_repo import config
from feature_repo.errors import VitrineError
from feature_repo.online.row_format import HEADER_SIZE
from tests.consumers.monitoring.consistency.test_check import (
    FINE,
    LOOKS,
    checked,
    folder,
    materialize,
    on_one_store,
    online,
    replace,
    row,
    shop,
)
from tests.deployments import run_main
from tests.feature_repo.stores import world
from tests.small_disk import no_file_longer_than

__all__ = ["shop"]
PRODUCTS = [product for product, _, _ in LOOKS]


@pytest.fixture(autouse=True)
def one_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_checks, "MAX_CLOCK_SKEW_US", 0)


def later() -> datetime:
    return datetime.now(UTC) + timedelta(minutes=1)


@contextmanager
def serving(store: FeatureStore) -> Iterator[OnlineReader]:
    table = online(store)
    with ServedLog(folder(store) / "served.log", 1) as log, OnlineReader.from_table(table) as reader:
        table.on_read = log
        yield reader


@pytest.mark.parametrize("exists", [False, True])
def test_logs_that_name_ids_are_readable_by_their_owner_only(tmp_path: Path, exists: bool) -> None:
    served, access = tmp_path / "served.log", tmp_path / "access.log"
    for file in (served, access) if exists else ():
        file.touch(mode=0o644)
    with ServedLog(served, 1) as log, open_access_log(str(access)) as stream:
        log("looks", [b"p1"], [None], 0)
        assert stream is not None
        stream.write("line")
    for file in (served, access):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert file.stat().st_size > 0


def judged(store: FeatureStore, sample: int = 100) -> ViewConsistency:
    result = check.check_served(
        config.load(folder(store) / "feature_store.yaml"),
        folder(store) / "served.log",
        sample=sample,
        budget=0.0,
        now=later(),
        grace=timedelta(minutes=2),
    )
    return next(view for view in result.views if view.view == "looks")


@on_one_store
def test_rows_served_before_a_change_are_consistent_as_of_then(shop: FeatureStore) -> None:
    with serving(shop) as reader:
        for product in [*PRODUCTS, "never seen"]:
            reader.fetch("looks", [product])
        world.append_looks(folder(shop), [(product, 30, 31) for product in PRODUCTS])
        reader.fetch("looks", ["p01"])
    materialize(shop, until=60)
    result = judged(shop)
    assert (result.sampled, result.faults) == (42, FINE)


def test_faults_repaired_since_are_still_found_in_the_log(shop: FeatureStore) -> None:
    old, gone, damaged = row(shop, "p05"), row(shop, "p06"), row(shop, "p07")
    world.append_looks(folder(shop), [("p05", 30, 31)])
    materialize(shop, until=60)
    new = row(shop, "p05")
    flipped = bytearray(damaged)
    flipped[HEADER_SIZE + 6] ^= 4
    wrong = {"p05": old, "p06": None, "p07": bytes(flipped)}
    right = {"p05": new, "p06": gone, "p07": damaged}
    with serving(shop) as reader:
        for product, bad in wrong.items():
            replace(shop, product, bad)
            reader.fetch("looks", [product])
            replace(shop, product, right[product])
            reader.fetch("looks", [product])
    assert checked(shop).faults == FINE, "of what is online by now"
    result = judged(shop)
    assert (result.sampled, result.faults) == (6, FINE | {"stale": 1, "missing": 1, "different": 1})
    assert {(one.fault, one.key) for one in result.examples} == {
        ("stale", "p05"),
        ("missing", "p06"),
        ("different", "p07"),
    }


@on_one_store
def test_a_row_that_came_online_after_the_request_was_not_missing(store: FeatureStore) -> None:
    world.append_looks(folder(store), LOOKS)
    before = datetime.now(UTC)
    with serving(store) as reader:
        reader.fetch("looks", ["p01"], now=before)
    materialize(store)
    assert (judged(store).sampled, judged(store).faults) == (1, FINE)


@on_one_store
def test_the_last_rows_are_checked_and_views_not_in_the_log_are_not(shop: FeatureStore) -> None:
    with serving(shop) as reader:
        for product in PRODUCTS:
            reader.fetch("looks", [product])
    assert judged(shop, sample=7).sampled == 7
    result = check.check_served(
        config.load(folder(shop) / "feature_store.yaml"),
        folder(shop) / "served.log",
        sample=7,
        budget=0.0,
        now=later(),
        grace=timedelta(0),
    )
    assert {view.not_judged for view in result.views if view.view != "looks"} == {"the log has no rows of it"}


def test_one_key_of_every_n_reads_is_logged_and_every_key_can_be(tmp_path: Path) -> None:
    keys = [b"%d" % number for number in range(50)]
    with ServedLog(tmp_path / "log", 10) as log:
        for _ in range(20_000):
            log("looks", keys, [key * 2 for key in keys], 7)
    served = served_log.read(tmp_path / "log", 10_000)["looks"]
    assert 1_800 < len(served.keys) < 2_200
    assert set(served.keys) == set(keys)
    assert served.rows == [key * 2 for key in served.keys]
    assert set(served.timestamps_us) == {7}


def test_an_invalid_line_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "log").write_text('{"at": 1, "view": "looks", "key": "YQ==", "row": null}\n{"time": "now"}\n')
    with pytest.raises(VitrineError, match="log, line 2: not a line that"):
        served_log.read(tmp_path / "log", 5)
    with pytest.raises(VitrineError, match="cannot read the log of served rows"):
        served_log.read(tmp_path / "none", 5)


@pytest.mark.slow
@on_one_store
def test_the_command_checks_a_log(shop: FeatureStore) -> None:
    whole = row(shop, "p06")
    with serving(shop) as reader:
        replace(shop, "p06", None)
        reader.fetch("looks", ["p06"], now=later())
        replace(shop, "p06", whole)
    place = ["--store", str(folder(shop) / "feature_store.yaml"), "--served-log", str(folder(shop) / "served.log")]
    file = folder(shop) / "found.json"
    command = ["consume", "consistency", *place, "--json", str(file)]
    done = run_main(*command)
    assert done.returncode == 1
    assert "looks: 1 of 1 sampled keys differ from the offline store (1 missing)" in done.stderr
    looks = next(view for view in json.loads(file.read_text())["views"] if view["view"] == "looks")
    assert looks["faults"] == FINE | {"missing": 1}
    both = run_main(*command, "--served", "any.parquet")
    assert (both.returncode, "exclude each other" in both.stderr) == (2, True)


def test_a_full_disk_stops_the_log_and_no_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "served.log"
    with ServedLog(file, 1) as log, no_file_longer_than(250):
        for at in range(20):
            log("looks", [b"key"], [b"row"], at)
    assert [record.message for record in caplog.records] == [f"{file}: cannot write; served rows are no longer logged"]
    kept = served_log.read(file, 100)["looks"].timestamps_us
    assert kept == list(range(len(kept)))
    assert 0 < len(kept) < 20
