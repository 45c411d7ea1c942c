"""Encoding on a machine without the store: what goes out, what comes back, and that nothing is added twice."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from feature_repo.config import Settings
from feature_repo.content_hash import content_hash
from feature_repo.errors import VitrineError
from feature_repo.images import MISSING
from feature_repo.offline import delta, quarantine
from producers.cli import app
from producers.embeddings import remote_jobs
from producers.encoders import load, run, shards
from tests.producers.catalogue.shop import NOW as CATALOGUED
from tests.producers.catalogue.shop import ingest, open_deployment
from tests.producers.embeddings.test_reuse import embedded
from tests.producers.encoders import checkpoints

NOW = datetime(2026, 6, 1, tzinfo=UTC)
WITHOUT_THE_STORE = """
import runpy, sys
for name in ("feast", "redis", "deltalake", "sqlalchemy", "typer", "lmdb"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def store(tmp_path: Path) -> Settings:
    (tmp_path / "shop").mkdir()
    store = open_deployment(tmp_path / "shop")
    file = tmp_path / "a.png"
    Image.new("RGB", (40, 48), "red").save(file)
    ingest(
        store,
        {"product_id": "a", "title": "红色连衣裙", "image": str(file)},
        {"product_id": "b", "title": "男童鞋", "image": str(tmp_path / "gone.png")},
        {"product_id": "c", "title": "蓝", "image": None},
    )
    return store


def test_rows_made_without_feast_redis_or_deltalake_come_into_the_table_once(
    store: Settings, encoder: Path, tmp_path: Path
) -> None:
    runner, at = CliRunner(), ["--store", str(store.file)]
    todo, out = tmp_path / "todo.parquet", tmp_path / "parts"
    asked = ["hand-out", "--output", str(todo), "--encoder", str(encoder), *at]
    assert "3 products to encode, 1 pictures could not be read" in runner.invoke(app, asked).output

    command = [
        sys.executable,
        "-c",
        WITHOUT_THE_STORE,
        "producers.encoders.run",
        "--workers",
        "1",
        "--rows-per-part",
        "2",
    ]
    command += ["--encoder", str(encoder), "--catalogue", str(todo), "--output", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "3 products encoded" in done.stdout
    assert sorted(f.name for f in out.iterdir() if f.name.endswith("_done")) == ["part-00000_done", "part-00001_done"]

    said = runner.invoke(app, ["commit", "--parts", str(out), *at]).output
    assert "3 rows added, 0 existed already, 2 of 2 parts were complete" in said
    assert "0 rows added, 3 existed already" in runner.invoke(app, ["commit", "--parts", str(out), *at]).output
    rows = {row["product_id"]: row for row in delta.read(store.table("product_embedding")).to_pylist()}
    assert set(rows) == {"a", "b", "c"}
    wanted = load(str(encoder)).encode_images([Image.new("RGB", (40, 48), "red")])[0]
    np.testing.assert_allclose(rows["a"]["image_vector"], wanted, atol=1e-4)
    refused = quarantine.read(store).to_pylist()
    assert [(r["row_id"], r["reason"]) for r in refused if r["step"] == "embeddings"] == [("b", MISSING)]
    assert "0 products to encode" in runner.invoke(app, asked).output


def test_a_run_goes_on_after_its_whole_parts_and_only_those_are_committed(
    store: Settings, encoder: Path, tmp_path: Path
) -> None:
    todo, out = tmp_path / "todo.parquet", tmp_path / "parts"
    remote_jobs.export_todo(store, todo, encoder_version=None)
    run.encode(str(encoder), todo, out, now=NOW, rows_per_part=1, workers=1)
    (out / "part-00001_done").unlink()  # as a kill between part and marker leaves it
    (out / "part-00001.parquet").write_bytes(b"half")
    assert remote_jobs.commit_parts(store, out, NOW).added == 2
    first = (out / "part-00000.parquet").stat().st_mtime_ns
    assert "1 products encoded" in run.encode(str(encoder), todo, out, now=NOW, rows_per_part=1, workers=1)
    assert (out / "part-00000.parquet").stat().st_mtime_ns == first
    done = remote_jobs.commit_parts(store, out, NOW)
    assert (done.added, done.existing) == (1, 2)


def test_two_commits_at_once_add_each_row_once(store: Settings, encoder: Path, tmp_path: Path) -> None:
    todo, out = tmp_path / "todo.parquet", tmp_path / "parts"
    remote_jobs.export_todo(store, todo, encoder_version=None)
    run.encode(str(encoder), todo, out, now=NOW, rows_per_part=1, workers=1)
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: remote_jobs.commit_parts(store, out, NOW), range(2)))
    assert sum(each.added for each in done) == sum(each.existing for each in done) == 3
    assert sorted(delta.read(store.table("product_embedding"))["product_id"].to_pylist()) == ["a", "b", "c"]


def test_rows_say_of_which_contents_they_came_so_that_a_correction_is_encoded_here_or_there(
    store: Settings, encoder: Path, tmp_path: Path
) -> None:
    handed = _handed(store, encoder, tmp_path / "first")
    made = {row["product_id"]: row for row in delta.read(store.table("product_embedding")).to_pylist()}
    known = {row["product_id"]: row for row in delta.read(store.table("product_catalogue")).to_pylist()}
    assert {product: row["image_hash"] for product, row in made.items()} == {
        product: row["image_hash"] for product, row in known.items()
    }
    assert made["c"]["title_hash"] == content_hash("蓝".encode())
    assert embedded(store, encoder).encoded == 0

    ingest(store, {"product_id": "c", "title": "绿", "image": None}, now=CATALOGUED + timedelta(days=1))
    assert (handed, _handed(store, encoder, tmp_path / "second", day=1)) == (3, 1)
    newest = delta.read(store.table("product_embedding")).sort_by("created_timestamp").to_pylist()[-1]
    assert (newest["product_id"], newest["title_hash"]) == ("c", content_hash("绿".encode()))
    assert embedded(store, encoder, 1).encoded == 0

    ingest(store, {"product_id": "c", "title": "紫", "image": None}, now=CATALOGUED + timedelta(days=2))
    assert embedded(store, encoder, 2).encoded == 1


def test_parts_of_contents_that_were_corrected_meanwhile_are_left_out(
    store: Settings, encoder: Path, tmp_path: Path
) -> None:
    todo, out = tmp_path / "todo.parquet", tmp_path / "parts"
    remote_jobs.export_todo(store, todo, encoder_version=None)
    run.encode(str(encoder), todo, out, now=NOW + timedelta(days=1), workers=1)
    ingest(store, {"product_id": "c", "title": "绿", "image": None}, now=CATALOGUED + timedelta(days=1))
    done = remote_jobs.commit_parts(store, out, NOW)
    assert (done.added, done.existing, done.outdated) == (2, 0, 1)
    assert "1 rows left out: corrected in the catalogue since" in str(done)
    assert embedded(store, encoder, 2).encoded == 1


def test_a_day_with_nothing_to_encode_commits_no_rows_and_is_no_error(
    store: Settings, encoder: Path, tmp_path: Path
) -> None:
    _handed(store, encoder, tmp_path / "first")
    assert _handed(store, encoder, tmp_path / "second", day=1) == 0
    with pytest.raises(VitrineError, match="not a folder of parts"):
        remote_jobs.commit_parts(store, tmp_path, NOW)


def test_parts_committed_after_another_encoder_are_the_last_created_once(
    store: Settings, encoder: Path, tmp_path: Path
) -> None:
    todo, out = tmp_path / "todo.parquet", tmp_path / "parts"
    remote_jobs.export_todo(store, todo, encoder_version=None)
    run.encode(str(encoder), todo, out, now=NOW, workers=1)
    checkpoints.chinese_clip(tmp_path / "other")
    embedded(store, tmp_path / "other", 1)
    done = [remote_jobs.commit_parts(store, out, NOW + timedelta(days=day)) for day in (2, 3)]
    assert [(each.added, each.existing) for each in done] == [(3, 0), (0, 3)]
    rows = delta.read(store.table("product_embedding")).sort_by("created_timestamp").to_pylist()
    assert {each["encoder_version"] for each in rows[-3:]} == {load(str(encoder)).version}


def _handed(store: Settings, encoder: Path, folder: Path, day: int = 0) -> int:
    """Hand out, encode and commit; how many rows were added."""
    folder.mkdir()
    remote_jobs.export_todo(store, folder / "todo.parquet", encoder_version=load(str(encoder)).version)
    now = NOW + timedelta(days=day)
    run.encode(str(encoder), folder / "todo.parquet", folder / "parts", now=now, workers=1)
    return remote_jobs.commit_parts(store, folder / "parts", now).added


def test_a_folder_of_another_run_and_a_damaged_part_are_refused(store: Settings, encoder: Path, tmp_path: Path) -> None:
    todo, out = tmp_path / "todo.parquet", tmp_path / "parts"
    remote_jobs.export_todo(store, todo, encoder_version=None)
    run.encode(str(encoder), todo, out, now=NOW, workers=1)
    with pytest.raises(VitrineError, match="parts of another run"):
        run.encode(str(encoder), todo, out, now=NOW, rows_per_part=1, workers=1)
    (out / "part-00000.parquet").write_bytes(b"half")
    with pytest.raises(VitrineError, match="marked as done and cannot be read"):
        list(shards.read_shards(out))
    with pytest.raises(VitrineError, match=r"run\.json cannot be read"):
        remote_jobs.commit_parts(store, tmp_path, NOW)


def test_a_catalogue_that_is_none_is_one_line(encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "c.parquet").write_bytes(b"no table")
    with pytest.raises(VitrineError, match="not a readable Parquet file"):
        run.encode(str(encoder), tmp_path / "c.parquet", tmp_path / "out", now=NOW)
