"""Retention: which rows leave a table, which stay, and which training sets can be reproduced."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from feature_repo import config, schema
from feature_repo.errors import VitrineError
from feature_repo.offline import delta, retention, training_set
from producers import maintenance

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
STAMP = pa.timestamp("us", tz="UTC")
NAMES = {"keys": ["product_id"], "event": "event_timestamp", "created": "created_timestamp"}


def rows(*versions: tuple[str, int, int | None, str]) -> pa.Table:
    """Rows of (product, event day, created day, colour)."""
    return pa.table(
        {
            "product_id": pa.array([version[0] for version in versions], pa.string()),
            "event_timestamp": pa.array([START + version[1] * DAY for version in versions], STAMP),
            "created_timestamp": pa.array(
                [None if version[2] is None else START + version[2] * DAY for version in versions], STAMP
            ),
            "colour": pa.array([version[3] for version in versions], pa.string()),
        }
    )


def view(path: Path) -> training_set.ViewTable:
    return training_set.ViewTable(
        "looks",
        delta.open_dataset(path),
        {"product_id": "product_id"},
        {"colour": "colour"},
        "event_timestamp",
        "created_timestamp",
        kept_since=retention.read_kept_since(path),
    )


def colours(path: Path, day: int, *, created_before: datetime | None = None, created_by_then: bool = False) -> list:
    asked = pa.table({"product_id": ["a", "b"], "event_timestamp": pa.array([START + day * DAY] * 2, STAMP)})
    joined = training_set.join(
        asked, "event_timestamp", [view(path)], created_before=created_before, created_by_then=created_by_then
    )
    return joined.to_table()["colour"].to_pylist()


def test_a_training_set_is_reproduced_after_later_corrections(tmp_path: Path) -> None:
    path = tmp_path / "looks"
    delta.append(path, rows(("a", 0, 0, "red"), ("b", 0, 0, "blue")))
    made = colours(path, 5)
    delta.append(path, rows(("a", 0, 6, "crimson"), ("b", 3, 7, "navy")))
    assert colours(path, 5) == ["crimson", "navy"]
    assert colours(path, 5, created_before=START + 6 * DAY) == made == ["red", "blue"]
    assert colours(path, 5, created_before=START + 6 * DAY + timedelta(microseconds=1)) == ["crimson", "blue"]


def test_vacuum_keeps_the_retained_versions_and_a_join_that_needs_dropped_ones_raises_an_error(tmp_path: Path) -> None:
    path = tmp_path / "looks"
    delta.append(path, rows(("a", 0, 0, "red"), ("b", 0, 0, "blue")))
    delta.append(path, rows(("a", 0, 6, "crimson"), ("b", 0, 9, "navy")))
    assert retention.drop_corrected(path, before=START + 8 * DAY, **NAMES) == 1  # red; blue was corrected on day 9
    retention.compact(path)
    retention.vacuum(path, grace=timedelta(0))
    assert colours(path, 5) == ["crimson", "navy"]
    assert colours(path, 5, created_before=START + 8 * DAY) == ["crimson", "blue"]
    assert colours(path, 8, created_by_then=True) == ["crimson", "blue"]
    with pytest.raises(VitrineError, match=r"the state at 2026-01-06.* is no longer available"):
        colours(path, 9, created_before=START + 5 * DAY)
    with pytest.raises(VitrineError, match="is no longer available"):
        colours(path, 5, created_by_then=True)


def test_kept_since_never_moves_back(tmp_path: Path) -> None:
    path = tmp_path / "looks"
    delta.append(path, rows(("a", 0, 0, "red")))
    assert retention.read_kept_since(path) is None
    for day in (8, 5):
        retention.drop_corrected(path, before=START + day * DAY, **NAMES)
        assert retention.read_kept_since(path) == START + 8 * DAY


days = st.integers(0, 4)
versions_of_two = st.lists(st.tuples(st.sampled_from("ab"), days, st.one_of(st.none(), days)), max_size=12)


@hypothesis_settings(max_examples=hypothesis_settings.default.max_examples // 4)
@given(versions_of_two, days)
def test_dropping_corrected_rows_changes_no_join_that_is_still_allowed(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[str, int, int | None]], before: int
) -> None:
    path = tmp_path_factory.mktemp("tables") / "looks"
    # The colour follows from the three, so that ties of all three are no matter of chance.
    delta.append(path, rows(*((key, event, created, f"{key}{event}{created}") for key, event, created in drawn)))
    asked = pa.table(
        {
            "product_id": list("ab") * 6,
            "event_timestamp": pa.array([START + day * DAY for day in range(6) for _ in "ab"], STAMP),
        }
    )

    def answers() -> list[list[str | None]]:
        looks = view(path)
        joined = [
            training_set.join(asked, "event_timestamp", [looks], created_before=known and START + known * DAY)
            for known in (None, *range(max(before, 1), 6))
        ]
        return [each.to_table()["colour"].to_pylist() for each in joined]

    expected = answers()
    retention.drop_corrected(path, before=START + before * DAY, **NAMES)
    assert answers() == expected
    left = delta.read(path)
    again = [(key, event) for key, event, created in drawn if created is not None and created < before]
    for key, event in again:  # nothing that could go is left
        created = [
            row["created_timestamp"]
            for row in left.to_pylist()
            if (row["product_id"], row["event_timestamp"]) == (key, START + event * DAY)
        ]
        assert len({moment for moment in created if moment is not None and moment < START + before * DAY}) == 1


def test_rows_appended_while_corrected_ones_are_dropped_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "looks"
    delta.append(path, rows(*((f"p{number}", 0, created, "x") for number in range(200) for created in (0, 1))))
    errors: list[Exception] = []

    def write() -> None:
        try:
            for number in range(5):
                delta.append(path, rows((f"new{number}", 0, 0, "y")))
        except Exception as error:
            errors.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    dropped = retention.drop_corrected(path, before=START + 2 * DAY, **NAMES)
    writer.join()
    assert not errors
    assert dropped == 200
    assert len(delta.read(path)) == 205


@pytest.fixture
def shop(tmp_path: Path) -> config.Settings:
    file = tmp_path / "feature_store.yaml"
    file.write_text("project: shop\noffline_store:\n  path: tables\n  retention_days: 30\n")
    return config.load(file)


def bytes_on_disk(folder: Path, needle: bytes) -> list[str]:
    return [file.name for file in folder.rglob("*") if file.is_file() and needle in file.read_bytes()]


def test_a_forgotten_product_is_gone_from_every_table_and_after_a_vacuum_from_the_disk(shop: config.Settings) -> None:
    names = ["secret-7'x", "other"]
    for _ in range(12):  # past a checkpoint of the log
        delta.append(shop.table("looks"), rows(*((name, 0, 0, "red") for name in names)))
    delta.append(shop.table("quarantine"), pa.table({"row_id": names, "reason": ["why"] * 2}))
    assert maintenance.forget(shop, products=["secret-7'x", "unknown"], users=[]).offline == {
        "looks": 12,
        "quarantine": 1,
    }
    assert set(delta.read(shop.table("looks"))["product_id"].to_pylist()) == {"other"}
    assert bytes_on_disk(shop.offline, b"secret-7")
    list(maintenance.vacuum(shop, now=START, grace=timedelta(0)))
    assert bytes_on_disk(shop.offline, b"secret-7") == []


def test_a_vacuum_removes_forgotten_ids_from_the_log_once_the_grace_has_passed(shop: config.Settings) -> None:
    path = shop.table("looks")
    delta.append_if_version(path, rows(("secret-7'x", 0, 0, "red"), ("other", 0, 0, "red")), "series", 0, {"mark": 4})
    maintenance.forget(shop, products=["secret-7'x"], users=[])
    list(maintenance.vacuum(shop, now=START, grace=timedelta(hours=1)))
    assert bytes_on_disk(path, b"secret-7")
    list(maintenance.vacuum(shop, now=START + DAY, grace=timedelta(0)))
    assert bytes_on_disk(path, b"secret-7") == []
    assert delta.read(path)["product_id"].to_pylist() == ["other"]
    assert (delta.txn_version(path, "series"), delta.txn_marker(path, "mark")) == (1, 4)
    assert delta.open_added_rows(path, delta.open_table(path), 1).count_rows() == 1
    delta.append(path, rows(("new", 0, 0, "red")))
    assert delta.last_append_time(path) is not None
    assert retention.read_kept_since(path) == START + DAY - timedelta(days=30)


def test_vacuum_drops_corrections_but_no_rows_of_logs(shop: config.Settings) -> None:
    versions = rows(("a", 0, 0, "red"), ("a", 0, 1, "rose"))
    delta.append(shop.table("looks"), versions)
    delta.append(shop.table("log"), versions.drop_columns(["event_timestamp"]))
    done = {each.table: each for each in maintenance.vacuum(shop, now=START + 40 * DAY, grace=timedelta(hours=1))}
    assert (done["looks"].rows_dropped, done["log"].rows_dropped) == (1, 0)
    assert len(delta.read(shop.table("log"))) == 2


def test_vacuum_drops_pairs_and_judgements_that_were_replaced(shop: config.Settings) -> None:
    pairs = [("a", "b", "v1", 0), ("a", "b", "v1", 1), ("a", "b", "v1", 2), ("a", "b", "v2", 1), ("a", "c", "v1", 0)]
    names = ("product_id_l", "product_id_r", "verifier_version", "created_timestamp")
    labels = [("1", "same", 0), ("1", "different", 1), ("2", "same", 0), ("1", "unsure", 35)]
    for table, columns, versions in (
        (schema.PRODUCT_PAIR, names, pairs),
        (schema.PAIR_LABEL, ("pair_id", "label", "created_timestamp"), labels),
    ):
        listed = [dict(zip(columns, [*row[:-1], START + row[-1] * DAY], strict=True)) for row in versions]
        name = schema.PAIR_TABLE if table is schema.PRODUCT_PAIR else schema.PAIR_LABEL_TABLE
        delta.append(shop.table(name), pa.Table.from_pylist(listed, schema=table))
    arguments = {"now": START + 40 * DAY, "grace": timedelta(hours=1)}  # corrections of the last 30 days are kept
    for dry_run in (True, False):
        done = {each.table: each for each in maintenance.vacuum(shop, dry_run=dry_run, **arguments)}
        assert (done["product_pair"].rows_dropped, done["pair_label"].rows_dropped) == (2, 1)
    kept = delta.read(shop.table(schema.PAIR_TABLE)).to_pylist()
    assert sorted((row["product_id_r"], row["verifier_version"]) for row in kept) == [
        ("b", "v1"),
        ("b", "v2"),
        ("c", "v1"),
    ]
    kept = delta.read(shop.table(schema.PAIR_LABEL_TABLE)).to_pylist()
    assert sorted((row["pair_id"], row["label"]) for row in kept) == [
        ("1", "different"),
        ("1", "unsure"),
        ("2", "same"),
    ]


def test_a_reader_that_opened_the_table_before_a_vacuum_can_read_within_the_grace(tmp_path: Path) -> None:
    path = tmp_path / "looks"
    delta.append(path, rows(("a", 0, 0, "red")))
    delta.append(path, rows(("a", 0, 1, "rose")))
    opened = delta.open_dataset(path)
    retention.drop_corrected(path, before=START + 5 * DAY, **NAMES)
    retention.vacuum(path, grace=timedelta(hours=1))
    assert len(opened.to_table()) == 2
    assert len(DeltaTable(str(path)).to_pyarrow_dataset().to_table()) == 1


def test_vectors_survive_compaction_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "vectors"
    vectors = np.random.default_rng(0).standard_normal((100, 8), dtype=np.float32)
    for part in np.array_split(vectors, 10):
        delta.append(path, pa.table({"vector": pa.array(list(part), pa.list_(pa.float32()))}))
    retention.compact(path)
    kept = np.stack(delta.read(path)["vector"].to_numpy())
    assert {row.tobytes() for row in kept} == {row.tobytes() for row in vectors}


@pytest.mark.parametrize("days", ["a month", -1, ".nan", ".inf", "true", 1e12])
def test_a_retention_that_is_not_a_number_of_days_raises_an_error(tmp_path: Path, days: object) -> None:
    file = tmp_path / "feature_store.yaml"
    file.write_text(f"project: shop\noffline_store:\n  path: tables\n  retention_days: {days}\n")
    with pytest.raises(VitrineError, match="retention_days"):
        maintenance.read_retention(config.load(file))


def test_the_commands_forget_and_vacuum(shop: config.Settings) -> None:
    from typer.testing import CliRunner

    from producers.cli import app

    delta.append(shop.table("looks"), rows(("a", 0, 0, "red"), ("a", 0, 1, "rose"), ("b", 0, 0, "blue")))
    run = CliRunner().invoke
    forgotten = run(app, ["forget", "--product", "b", "--store", str(shop.file)])
    assert (forgotten.exit_code, forgotten.stdout) == (0, "looks: 1 rows deleted\n")
    vacuumed = run(app, ["vacuum", "--grace-hours", "0", "--store", str(shop.file)])
    assert vacuumed.stdout == "looks: 1 corrected rows dropped, 2 files removed\n"
    assert run(app, ["forget", "--store", str(shop.file)]).exit_code == 2


def test_a_dry_run_of_forget_and_vacuum_removes_nothing_and_reports_what_the_run_then_does(
    shop: config.Settings,
) -> None:
    looks, log = shop.table("looks"), shop.table("quarantine")
    delta.append(looks, rows(("a", 0, 0, "red"), ("a", 0, 1, "rose"), ("b", 0, 0, "blue"), ("b", 1, 1, "blue")))
    delta.append(log, pa.table({"row_id": ["a", "b", "u"], "product_id": ["b", "b", "c"]}))
    delta.append(log, pa.table({"row_id": ["c"], "product_id": ["c"]}))
    ids = {"products": ["b", "no such"], "users": ["u"]}
    before = {path.name: delta.latest_version(path) for path in (looks, log)}
    expected = maintenance.forget(shop, dry_run=True, **ids)
    assert expected.offline == {"looks": 2, "quarantine": 3}
    arguments = {"now": START + 40 * DAY, "grace": timedelta(hours=1)}
    vacuumed = list(maintenance.vacuum(shop, dry_run=True, **arguments))
    assert [(each.table, each.rows_dropped) for each in vacuumed] == [("looks", 1), ("quarantine", 0)]
    assert {path.name: delta.latest_version(path) for path in (looks, log)} == before
    assert list(maintenance.vacuum(shop, **arguments)) == vacuumed
    assert maintenance.forget(shop, **ids) == expected
    assert maintenance.forget(shop, dry_run=True, **ids).offline == {}


def test_a_dry_run_of_vacuum_counts_the_files_that_the_run_then_removes(shop: config.Settings) -> None:
    path = shop.table("looks")
    delta.append(path, rows(("a", 0, 0, "red")))
    delta.append(path, rows(("b", 0, 0, "red")))
    retention.forget(path, "product_id", ["b"])
    files = sorted(path.rglob("*.parquet"))
    arguments = {"now": START, "grace": timedelta(0)}
    expected = list(maintenance.vacuum(shop, dry_run=True, **arguments))
    assert sorted(path.rglob("*.parquet")) == files
    assert list(maintenance.vacuum(shop, **arguments)) == expected
    assert expected[0].files_removed == 1
