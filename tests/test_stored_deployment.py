"""A deployment that version 0.1.0 wrote still opens: tables, online store, registry, encoder and reports.

tests/golden/deployment-0.1.0.tar.xz was written by version 0.1.0 on a generated shop of 150 products. Beside
the stores it holds what that version read from them: `online_values.json` and `training_join.parquet`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from consumers.online import OnlineReader
from feature_repo import config
from feature_repo.config import Settings
from feature_repo.stores.feature_store import open_feature_store
from tests.deployments import STEPS, TABLES, configure, run_command, run_in_process, unpack


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the unpacked deployment, with its feature_store.yaml."""
    folder = tmp_path_factory.mktemp("deployment")
    unpack(folder)
    configure(folder)
    return folder


def settings_of(deployment: Path) -> Settings:
    return config.load(deployment / "feature_store.yaml")


def key_tree(value: Any) -> Any:
    """The keys of a JSON document, without its values; a list is represented by its first element."""
    if isinstance(value, dict):
        return {key: key_tree(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [key_tree(value[0])] if value else []
    return None


def missing_keys(before: Any, after: Any, path: str = "") -> list[str]:
    """The paths of keys that one tree of keys has and another lacks. Keys may have been added."""
    if isinstance(before, dict):
        inner = [missing_keys(before[key], after[key], f"{path}/{key}") for key in before if key in (after or {})]
        return [f"{path}/{key}" for key in before if key not in (after or {})] + [key for keys in inner for key in keys]
    if isinstance(before, list) and before:
        return missing_keys(before[0], after[0], f"{path}[]") if after else [f"{path}[]"]
    return []


def test_a_missing_key_of_a_report_is_found() -> None:
    before = {"rows": {"test": None}, "steps": [{"auc": None}], "gone": None}
    assert missing_keys(before, before | {"new": None}) == []
    assert missing_keys(before, {"rows": {}, "steps": [{"gauc": None}]}) == ["/gone", "/rows/test", "/steps[]/auc"]


def test_the_online_store_gives_the_values_that_it_gave_before(deployment: Path) -> None:
    expected = json.loads((deployment / "online_values.json").read_text())
    with OnlineReader(f"lmdb://{deployment}/online", project="vitrine") as reader:
        for view, features in expected["views"].items():
            ids = expected["users"] if view == "user_interest" else expected["products"]
            batch = reader.fetch(view, ids)
            assert batch.status.tolist() == features.pop("status")
            assert set(batch.values) == set(features)
            for name, values in features.items():
                served = batch.values[name]
                if served.dtype.kind == "f":
                    np.testing.assert_array_equal(served, np.array(values, served.dtype), err_msg=f"{view}.{name}")
                else:
                    assert [plain(value) for value in served.tolist()] == values, f"{view}.{name}"


def plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def test_a_training_join_gives_the_rows_that_it_gave_before(deployment: Path) -> None:
    expected = pq.read_table(deployment / "training_join.parquet")
    keys = ["impression_id", "user_id", "product_id", "event_timestamp"]
    store = open_feature_store(settings_of(deployment))
    job = store.get_historical_features(
        entity_df=expected.select(keys).to_pandas(),
        features=store.get_feature_service("ranking"),
        full_feature_names=True,
    )
    joined = job.to_arrow()
    assert set(joined.column_names) == set(expected.column_names)
    for name in expected.column_names:
        assert (
            joined[name].cast(expected[name].type).to_pylist() == pytest.approx(expected[name].to_pylist(), nan_ok=True)
            if pa.types.is_floating(expected[name].type)
            else joined[name].to_pylist() == expected[name].to_pylist()
        ), name


def test_the_tables_are_open_to_other_readers_of_delta(deployment: Path) -> None:
    for table in TABLES:
        assert DeltaTable(str(deployment / "offline" / table)).to_pyarrow_table().num_rows > 0


def test_the_same_steps_on_the_same_input_tag_once_more_and_then_add_no_rows(deployment: Path) -> None:
    def count_rows() -> dict[str, int]:
        return {name: len(DeltaTable(str(deployment / "offline" / name)).to_pyarrow_table()) for name in TABLES}

    def run_steps() -> dict[str, int]:
        for line in STEPS:
            run_in_process(line, deployment, settings_of(deployment))
        return count_rows()

    before = count_rows()
    after = run_steps()
    # The taggers of this version predict otherwise than those of 0.1.0.
    assert {name for name in TABLES if after[name] != before[name]} == {"product_tags", "tag_predictions"}
    assert after["product_tags"] == 2 * before["product_tags"]
    assert run_steps() == after


def test_the_run_log_still_lists_the_earlier_runs(deployment: Path) -> None:
    listing = run_in_process("produce runs --last 100", deployment, settings_of(deployment))
    for step in ("catalogue", "embeddings", "tags", "codes", "interests", "neighbours"):
        assert step in listing


@pytest.mark.slow
@pytest.mark.parametrize(
    ("report", "line"),
    [
        ("tags.json", "consume tags-report --replicates 20"),
        (
            "lift.json",
            "consume lift --impressions shop/impressions.parquet --truth shop/truth --test-days 5 --seeds 1 "
            "--permutations 1 --replicates 20",
        ),
        ("freshness.json", "consume freshness --now 2026-01-21T00:00:00+00:00 --max-age 2d"),
    ],
)
def test_a_report_has_the_keys_that_it_had_before(deployment: Path, report: str, line: str) -> None:
    run_command(f"{line} --json new-{report}", deployment, settings_of(deployment))
    before = json.loads((deployment / report).read_text())
    after = json.loads((deployment / f"new-{report}").read_text())
    lost = missing_keys(key_tree(before), key_tree(after))
    # The keys of `importance` are the columns of the ranker; since 0.2 the screening leaves groups out.
    assert [key for key in lost if not key.startswith("/importance/")] == []


@pytest.mark.slow
def test_the_definitions_of_this_version_are_applied_and_materialized_without_a_new_run_of_the_producers(
    tmp_path: Path,
) -> None:
    unpack(tmp_path)
    store = configure(tmp_path)
    run_command("feast apply", tmp_path, store)
    run_command("feast materialize-incremental 2026-06-01T00:00:00", tmp_path, store)
    run_command("consume consistency", tmp_path, store)
    with OnlineReader(f"lmdb://{tmp_path}/online", project="vitrine") as reader:
        assert "further_tags" in reader.fetch("product_tags", ["p00001"]).values
