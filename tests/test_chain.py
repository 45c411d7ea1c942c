"""The commands of `make demo` on a small shop, as processes: from images to the lift report."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from consumers.online import OnlineReader, Status
from feature_repo import config
from feature_repo.config import Settings
from feature_repo.offline import delta

ROOT = Path(__file__).parent.parent
ENDS = "2026-01-21T00:00:00"
TABLES = (
    "product_catalogue",
    "product_embedding",
    "product_tags",
    "tag_predictions",
    "product_codes",
    "user_interest",
    "product_neighbours",
    "quarantine",
)
OF_PRODUCTS = ("product_catalogue", "product_embedding", "product_tags", "product_codes", "product_neighbours")
VECTORS = ("image_vector", "text_vector", "fused_vector", "similar_vector")

CHAIN = [
    "produce shop --output shop --products 150 --users 100 --days 20 --impressions-per-user 100 --seed 0",
    "produce catalogue --products shop/products.parquet",
    "produce encoder --data shop --output encoder --pairs 128 --align shop/impressions.parquet --test-days 10",
    "produce embeddings --encoder encoder",
    "produce tags --labels shop/labels.parquet",
    # So short a training leaves vectors that a codebook rightly refuses to code.
    "produce codes --max-collisions 1 --min-entropy 0 --max-error 1",
    "produce interests --impressions shop/impressions.parquet",
    "produce neighbours --impressions shop/impressions.parquet",
    "feast apply",
    f"feast materialize-incremental {ENDS}",
    "consume tags-report --replicates 20 --json tags.json",
    "consume lift --impressions shop/impressions.parquet --truth shop/truth --test-days 5 --seeds 1 --permutations 1"
    " --replicates 20 --json lift.json --report report.html",
    f"consume freshness --now {ENDS}+00:00 --max-age 2d --json freshness.json",
]
AGAIN = [CHAIN[1], *CHAIN[3:8]]


def test_the_commands_of_the_demo_run_on_a_small_shop_from_images_to_the_lift_report(tmp_path: Path) -> None:
    assert [command_of(line) for line in CHAIN] == commands_of_the_demo()
    store = deployment(tmp_path)
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
    }
    check_online(store, tmp_path / "online")

    before = {table: rows_of(store, table) for table in TABLES}
    assert all(before[table] > 0 for table in TABLES[:7])
    for line in AGAIN:
        run(line, tmp_path, store)
    assert {table: rows_of(store, table) for table in TABLES} == before


def command_of(line: str) -> str:
    return " ".join(line.split()[:2])


def commands_of_the_demo() -> list[str]:
    steps = re.findall(r"\(call step,(?:cd feature_repo && )?(.*)", (ROOT / "Makefile").read_text())
    return [command_of(step.rstrip(")\\")) for step in steps]


def deployment(folder: Path) -> Settings:
    """Write the laptop's feature_store.yaml, with the tables in a folder of the test."""
    content = (ROOT / "feature_repo" / "feature_store.yaml").read_text()
    file = folder / "feature_store.yaml"
    file.write_text(content.replace("../demo", str(folder)))
    return config.load(file)


def run(line: str, folder: Path, store: Settings) -> None:
    """Run a command as a user would, and hold it to exit code 0."""
    program, *arguments = line.split()
    environment = {name: value for name, value in os.environ.items() if name != config.ENVIRONMENT_VARIABLE}
    environment["PYTHONPATH"] = str(ROOT)
    place = folder
    if program == "feast":
        environment[config.ENVIRONMENT_VARIABLE] = str(store.file)
        place = ROOT / "feature_repo"
    elif arguments[0] not in ("shop", "encoder"):
        arguments += ["--store", str(store.file)]
    command = [str(Path(sys.executable).parent / program), *arguments]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


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
