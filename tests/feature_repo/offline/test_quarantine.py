"""The quarantine of refused rows and repaired values."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.csv
import pytest
from typer.testing import CliRunner

from feature_repo import config, schema
from feature_repo.config import Settings
from feature_repo.offline import quarantine
from feature_repo.offline.quarantine import RejectedRow
from producers import cli

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Settings:
    """A deployment without tables."""
    (tmp_path / "feature_store.yaml").write_text("project: test\noffline_store:\n  path: offline\n")
    return config.load(tmp_path / "feature_store.yaml")


def test_is_empty_before_anything_was_refused(store: Settings) -> None:
    assert quarantine.read(store).num_rows == 0
    assert quarantine.add(store, "catalogue", [], NOW) == 0
    assert quarantine.read(store).schema == schema.QUARANTINE


def test_keeps_every_refused_row_with_its_reason_and_its_step(store: Settings) -> None:
    assert quarantine.add(store, "catalogue", [RejectedRow("p1", "price", "price is negative", "-3")], NOW) == 1
    assert quarantine.read(store).to_pylist() == [
        {
            "step": "catalogue",
            "row_id": "p1",
            "column": "price",
            "reason": "price is negative",
            "value": "-3",
            "created_timestamp": NOW,
        }
    ]


def test_a_second_run_adds_no_row_again(store: Settings) -> None:
    rows = [RejectedRow("p1", "price", "negative", "-3"), RejectedRow("row 2", "product_id", "null", None)]
    assert quarantine.add(store, "catalogue", rows, NOW) == 2
    assert quarantine.add(store, "catalogue", [*rows, RejectedRow("p3", "price", "negative", "-3")], NOW) == 1
    assert quarantine.add(store, "embeddings", rows, NOW) == 2
    assert quarantine.read(store).num_rows == 5


def test_keeps_two_hundred_characters_of_a_long_value(store: Settings) -> None:
    quarantine.add(store, "catalogue", [RejectedRow("p1", "title", "too long", "梦" * 1000)], NOW)
    assert quarantine.read(store)["value"].to_pylist() == ["梦" * 200]
    assert quarantine.add(store, "catalogue", [RejectedRow("p1", "title", "too long", "梦" * 1000)], NOW) == 0


def test_counts_by_reason_the_most_frequent_first() -> None:
    rows = [RejectedRow(str(row), "price", reason, None) for row, reason in enumerate(["a", "b", "b"])]
    assert list(quarantine.count_by_reason(rows).items()) == [("b", 2), ("a", 1)]


def test_of_concurrent_writers_of_one_row_only_one_adds_it(store: Settings) -> None:
    gate = threading.Barrier(4, timeout=20)

    def writer(number: int) -> int:
        gate.wait()
        rows = [RejectedRow("p1", "price", "negative", "-3"), RejectedRow(f"own {number}", "price", "negative", "-3")]
        return quarantine.add(store, "catalogue", rows, NOW)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(writer, range(4))) == 5
    assert sorted(quarantine.read(store)["row_id"].to_pylist()) == ["own 0", "own 1", "own 2", "own 3", "p1"]


def _list(store: Settings, *options: str) -> list[str]:
    result = CliRunner().invoke(cli.app, ["quarantine", "--store", str(store.file), *options])
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def test_the_command_counts_causes_lists_the_latest_rows_and_writes_no_formula(store: Settings) -> None:
    assert _list(store) == ["nothing is in quarantine"]
    assert _list(store, "--step", "tags") == ["nothing of step tags is in quarantine"]
    evil = '=HYPERLINK("http://x.example","y")'
    refused = [RejectedRow(f"p{row}", "price", "no price", value) for row, value in enumerate([evil, "-3", "a\u200b"])]
    quarantine.add(store, "catalogue", refused, NOW)
    quarantine.add(store, "tags", [RejectedRow("\t@p9", "tag", "no tag", None)], NOW.replace(day=3))
    file = store.file.parent / "out" / "quarantine.csv"
    assert _list(store, "--last", "2", "--output", str(file)) == [
        "3  catalogue, price: no price",
        "1  tags, tag: no tag",
        r"2026-01-03T00:00:00+00:00  tags  \t@p9  tag: no tag",
        f"2026-01-02T00:00:00+00:00  catalogue  p0  price '{evil}': no price",
        "... and 2 earlier rows; --last N lists more, --output FILE.csv writes all",
        f"wrote 4 rows to {file}",
    ]
    written = pyarrow.csv.read_csv(file)
    assert written["row_id"].to_pylist() == ["'\t@p9", "p0", "p1", "p2"]
    assert written["value"].to_pylist() == ["", "'" + evil, "-3", "a\u200b"]
    assert _list(store, "--step", "catalogue", "--last", "0")[0] == "3  catalogue, price: no price"
