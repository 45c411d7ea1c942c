"""A run of `produce neighbours` continues the one before it, and writes what a run from nothing would write."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from feature_repo.config import Settings
from feature_repo.errors import CorruptDataError
from feature_repo.features.neighbours import NAMES
from feature_repo.offline import delta
from producers import maintenance
from producers.behaviour import neighbours
from producers.behaviour.nearest import NearestProducts
from producers.behaviour.neighbour_checkpoint import FOLDER, find_checkpoint, write_checkpoint
from tests.feature_repo.features import world
from tests.producers.behaviour.test_nearest import make_days
from tests.producers.behaviour.test_neighbours import DAY, DAYS, LONG_AGO, NOW, START, TIMESTAMP, fill, make_log, run


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the updates of lists, each with its number of products."""
    counted: list[int] = []
    update = NearestProducts.update

    def count(self: NearestProducts, vectors: np.ndarray, *more: np.ndarray) -> None:
        counted.append(len(vectors))
        update(self, vectors, *more)

    monkeypatch.setattr(NearestProducts, "update", count)
    return counted


def read_newest(settings: Settings) -> dict[tuple[str, datetime], list[float]]:
    """The features of the row created last of each version."""
    rows = delta.read(settings.table("product_neighbours")).sort_by("created_timestamp").to_pylist()
    return {
        (row["product_id"], row["event_timestamp"]): [
            np.nan if row[name] is None else row[name] for name in (*NAMES, "input_digest")
        ]
        for row in rows
    }


def require_equal(settings: Settings, alone: Settings) -> None:
    ours, theirs = read_newest(settings), read_newest(alone)
    assert ours.keys() == theirs.keys()
    for key, values in ours.items():
        np.testing.assert_allclose(values, theirs[key], rtol=1e-5, atol=1e-6, err_msg=str(key))


def add_table_version(settings: Settings) -> None:
    """Commit to the table of vectors without another row."""
    path = settings.table("product_embedding")
    delta.append(path, delta.open_dataset(path).head(0))


def end_at(log: pa.Table, end: datetime) -> pa.Table:
    return log.filter(pc.less(log["event_timestamp"], pa.scalar(end, TIMESTAMP)))


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))])
def test_days_that_continue_each_other_write_what_one_run_writes(seed: int, tmp_path: Path) -> None:
    """The days end at random times; on some, an earlier impression is corrected, or nothing has changed."""
    rng = np.random.default_rng(seed)
    settings, log = world.deployment(tmp_path / "days"), make_log(seed)
    ends = np.sort(rng.uniform(1, DAYS + 1, 7)).tolist()
    clicked, since = log["clicked"].to_numpy().copy(), LONG_AGO
    for number, days in enumerate(ends):
        end = START + days * DAY
        fill(settings, end, since)
        if number in (3, 5):
            row = int(rng.integers(0, len(end_at(log, since))))
            clicked[row] = 1 - clicked[row]
            log = log.set_column(log.column_names.index("clicked"), "clicked", pa.array(clicked))
        for repeated in range(2 if number % 2 else 1):
            summary = run(settings, end_at(log, end), now=NOW + timedelta(hours=10 * number + repeated))
            assert not repeated or summary.added == 0
        assert summary.added + summary.already_stored == len(read_newest(settings))
        since = end
    alone = world.deployment(tmp_path / "alone")
    fill(alone, since)
    run(alone, end_at(log, since))
    require_equal(settings, alone)


def test_an_unchanged_day_reads_the_log_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, log = world.deployment(tmp_path), make_log()
    fill(settings, START + 6 * DAY)
    first = run(settings, log)
    with monkeypatch.context() as patched:
        patched.setattr(neighbours, "read_changes", lambda *_: pytest.fail("reads the products"))
        again = run(settings, log)
    assert (again.added, again.already_stored, again.intervals) == (0, first.added, first.intervals)
    world.write_rows(settings, "product_catalogue", [START + 5 * DAY], product_id=["p1"], price=[1000.0])
    assert run(settings, log, now=NOW + timedelta(hours=1)).added > 0
    table = settings.table("product_neighbours")
    delta.overwrite(table, delta.read(table).slice(7))
    assert run(settings, log, now=NOW + timedelta(hours=2)).added > 0


def test_an_unchanged_day_updates_no_list_and_another_day_one_for_each_interval(
    tmp_path: Path, updates: list[int]
) -> None:
    settings, log = world.deployment(tmp_path), make_log()
    fill(settings, datetime.max.replace(tzinfo=UTC))
    first, second = end_at(log, START + 6 * DAY), end_at(log, START + 8 * DAY)
    run(settings, first)
    assert len(updates) == 6
    version = delta.latest_version(settings.table("product_neighbours"))
    assert run(settings, first).added == 0
    assert len(updates) == 6
    assert delta.latest_version(settings.table("product_neighbours")) == version
    add_table_version(settings)
    again = run(settings, first)
    assert (again.added, again.already_stored, again.intervals) == (0, len(read_newest(settings)), 6)
    assert len(updates) == 6
    run(settings, second)
    assert len(updates) == 8
    run(settings, second.slice(1))  # an impression is gone: from the beginning
    assert len(updates) == 16


def test_rows_that_other_options_replaced_are_written_again(tmp_path: Path) -> None:
    settings, log = world.deployment(tmp_path), make_log()
    fill(settings, datetime.max.replace(tzinfo=UTC))
    rows = run(settings, log).added
    assert run(settings, log, top_k=3, now=NOW + timedelta(hours=1)).added > 0
    again = run(settings, log, now=NOW + timedelta(hours=2))
    assert again.added > 0
    assert run(settings, log, recompute=True, now=NOW + timedelta(hours=3)).added == rows


def vacuum(settings: Settings) -> int:
    """Clean all tables as `produce vacuum` does, without keeping replaced rows; return how many were dropped."""
    settings.raw["offline_store"]["retention_days"] = 0
    summaries = list(maintenance.vacuum(settings, now=NOW + timedelta(days=30), grace=timedelta(hours=1)))
    return sum(summary.rows_dropped for summary in summaries)


def test_a_vacuum_that_drops_replaced_rows_leaves_an_unchanged_day_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, updates: list[int]
) -> None:
    settings, log = world.deployment(tmp_path), make_log()
    fill(settings, datetime.max.replace(tzinfo=UTC))
    run(settings, end_at(log, START + 4 * DAY), top_k=2)
    second = run(settings, log, now=NOW + timedelta(hours=1))
    assert vacuum(settings) > 0
    with monkeypatch.context() as patched:
        patched.setattr(neighbours, "read_changes", lambda *_: pytest.fail("reads the products"))
        assert run(settings, log).added == 0
    updates.clear()
    add_table_version(settings)
    again = run(settings, log, now=NOW + timedelta(hours=2))
    assert (again.added, again.already_stored) == (0, second.added + second.already_stored)
    assert updates == [], "continues at the last interval"
    table = settings.table("product_neighbours")
    delta.overwrite(table, delta.read(table).slice(1))
    assert run(settings, log, now=NOW + timedelta(hours=3)).added == 1


def test_without_its_table_or_its_file_a_run_begins_at_the_first_impression(tmp_path: Path, updates: list[int]) -> None:
    settings, log = world.deployment(tmp_path), make_log()
    fill(settings, datetime.max.replace(tzinfo=UTC))
    rows = run(settings, log).added
    before = read_newest(settings)
    (file,) = (settings.local / FOLDER).rglob("*.npz")
    file.write_bytes(file.read_bytes()[:100])
    add_table_version(settings)
    assert run(settings, log).added == 0
    assert len(updates) == 2 * DAYS
    shutil.rmtree(settings.table("product_neighbours"))
    assert run(settings, log).added == rows
    assert read_newest(settings) == before
    (settings.local / FOLDER).rename(tmp_path / "elsewhere")
    add_table_version(settings)
    assert run(settings, log).added == 0
    assert len(updates) == 4 * DAYS


@pytest.mark.parametrize("exact_members", [50, 10_000])
def test_lists_are_restored_with_their_cells(exact_members: int, tmp_path: Path) -> None:
    """Lists that are kept between any two updates go on as if they had been in memory."""
    settings = world.deployment(tmp_path)
    kept, whole = (NearestProducts.create_empty(5, exact_members) for _ in range(2))
    for day, (vectors, is_changed, has_history) in enumerate(make_days(0, 600)):
        kept.update(vectors, is_changed, has_history)
        whole.update(vectors, is_changed, has_history)
        write_checkpoint(settings, "v@1", kept, digest=day, start_us=day, versions=0)
        checkpoint = find_checkpoint(settings, "v@1", lambda start_us: start_us)
        assert checkpoint is not None
        assert (checkpoint.start_us, checkpoint.versions) == (day, 0)
        kept = NearestProducts.create_empty(5, exact_members)
        checkpoint.restore(kept)
        np.testing.assert_array_equal(kept.neighbours, whole.neighbours)
        np.testing.assert_array_equal(kept.similarity, whole.similarity)
    assert (kept.cells is None) == (exact_members == 10_000)
    assert find_checkpoint(settings, "v@1", lambda start_us: start_us + 1) is None
    assert find_checkpoint(settings, "other@1", lambda start_us: start_us) is None
    checkpoint.file.write_bytes(b"no archive")
    with pytest.raises(CorruptDataError, match="remove the file"):
        checkpoint.restore(kept)
