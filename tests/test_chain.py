"""The commands of `make demo` on a small shop: from images to the lift report."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from consumers.online import OnlineReader, Status
from feature_repo.config import Settings
from feature_repo.offline import delta
from tests.deployments import ROOT, STEPS, TABLES, configure, run_command, run_in_process

ENDS = "2026-01-21T00:00:00"
ALL_TABLES = (*TABLES, "quarantine")
OF_PRODUCTS = ("product_catalogue", "product_embedding", "product_tags", "product_codes", "product_neighbours")
VECTORS = ("image_vector", "text_vector", "fused_vector", "similar_vector")

CHAIN = [
    "produce shop --output shop --products 150 --users 100 --days 20 --impressions-per-user 100 --seed 0",
    STEPS[0],
    "produce encoder --data shop --output encoder --pairs 128 --align shop/impressions.parquet --test-days 10",
    *STEPS[1:],
    "feast apply",
    f"feast materialize-incremental {ENDS}",
    "consume tags-report --replicates 20 --json tags.json",
    "consume lift --impressions shop/impressions.parquet --truth shop/truth --test-days 5 --seeds 1 --permutations 1"
    " --replicates 20 --json lift.json --report report.html",
    f"consume freshness --now {ENDS}+00:00 --max-age 2d --json freshness.json",
]


@pytest.mark.parametrize("run", [run_in_process, pytest.param(run_command, marks=pytest.mark.slow)])
def test_the_commands_of_the_demo_run_on_a_small_shop_from_images_to_the_lift_report(
    run: Callable[[str, Path, Settings], str], tmp_path: Path
) -> None:
    assert [command_of(line) for line in CHAIN] == commands_of_the_demo()
    store = configure(tmp_path)
    for line in CHAIN:
        run(line, tmp_path, store)

    impressions = pq.read_metadata(tmp_path / "shop" / "impressions.parquet").num_rows
    check_lift(json.loads((tmp_path / "lift.json").read_text(), parse_constant=pytest.fail), impressions)
    check_report((tmp_path / "report.html").read_text())
    views = json.loads((tmp_path / "freshness.json").read_text())["views"]
    assert {view["view"]: view["covered"] for view in views} == {
        **dict.fromkeys(OF_PRODUCTS, 150),
        "user_interest": None,
    }
    assert {tag["tag"] for tag in json.loads((tmp_path / "tags.json").read_text())["tags"]} == {
        "child_age",
        "child_gender",
        "category",
        "colour",
        "pattern",
    }
    check_online(store, tmp_path / "online")

    before = {table: rows_of(store, table) for table in ALL_TABLES}
    assert all(before[table] > 0 for table in TABLES)
    for line in STEPS:
        run(line, tmp_path, store)
    assert {table: rows_of(store, table) for table in ALL_TABLES} == before


def command_of(line: str) -> str:
    return " ".join(line.split()[:2])


def commands_of_the_demo() -> list[str]:
    steps = re.findall(r"\(call step,(?:cd feature_repo && )?(.*)", (ROOT / "Makefile").read_text())
    return [command_of(step.rstrip(")\\")) for step in steps]


def check_lift(figures: dict, impressions: int) -> None:
    """The documented shape, every control there, and no impression lost."""
    assert {"rows", "comparisons", "validation", "verdicts", "headroom", "learning_curve"} <= figures.keys()
    rows = figures["rows"]
    assert rows["unmatched"] == rows["refused"] == 0
    assert rows["train"] + rows["test"] == impressions
    for each in figures["comparisons"]:
        assert list(each)[:9] == ["name", "model", "slice", "metric", "base", "with", "lift", "ci95", "rows"]
        assert len(each["ci95"]) == 2
    auc = {
        each["name"]: each
        for each in figures["comparisons"]
        if (each["slice"], each["metric"]) == ("all", "auc") and each["model"] != "din"
    }
    assert {"all features", "tags", "affinity", "vectors", "placebo", "attainable", "oracle"} <= auc.keys()
    for each in auc.values():
        assert each["rows"] == rows["test"]
        assert each["ci95"][0] <= each["ci95"][1]
    # So small a shop proves no lift, but the truth must show in it: its clicks were drawn from it.
    assert auc["oracle"]["lift"] > auc["attainable"]["lift"] > auc["placebo"]["lift"]
    assert auc["oracle"]["ci95"][0] > 0
    assert {each["metric"] for each in figures["comparisons"]} == {"auc", "gauc", "log_loss", "calibration"}
    assert "new products" in {each["slice"] for each in figures["comparisons"]}


def check_report(page: str) -> None:
    """One file that loads nothing: no address but those of a plot's own parts, and the names of XML's vocabularies."""
    assert "<svg" in page
    assert not re.search(r"<(script|link|iframe|img|object|embed)\b|@import|url\((?!#)", page, re.IGNORECASE)
    assert all(address.startswith("#") for address in re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]+)""", page))


def check_online(store: Settings, folder: Path) -> None:
    """What is served is what was computed, bit for bit, or rounded to the float16 in which it is kept."""
    offline = delta.read(store.table("product_embedding")).sort_by("product_id")
    products = offline["product_id"].to_pylist()
    with OnlineReader(f"lmdb://{folder}", project=store.project) as reader:
        block = reader.fetch("product_embedding", ["nothing", *products])
        served = {name: block.values[name][1:] for name in VECTORS}
        assert block.status.tolist() == [Status.ABSENT] + [Status.PRESENT] * len(products)
    for name in VECTORS:
        computed = matrix(offline[name], served[name].shape[1])
        kept = computed if name == "fused_vector" else computed.astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(served[name], kept)


def matrix(lists: pa.ChunkedArray, width: int) -> np.ndarray:
    """float32 [n, width], NaN where there is none."""
    return np.array([[np.nan] * width if row is None else row for row in lists.to_pylist()], np.float32)


def rows_of(store: Settings, table: str) -> int:
    path = store.table(table)
    return len(delta.read(path)) if delta.exists(path) else 0
