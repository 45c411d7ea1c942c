"""Encoding on a machine without the store: export, encode, commit, and nothing is added twice."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from feature_repo.config import Settings
from feature_repo.content_hash import content_hash
from feature_repo.errors import VitrineError
from feature_repo.images.decoding import MISSING
from feature_repo.offline import delta, quarantine
from producers.cli import app
from producers.embeddings import remote_jobs
from producers.encoders import load, run, shards
from tests.producers.catalogue.shop import NOW as CATALOGUED
from tests.producers.catalogue.shop import ingest, open_deployment
from tests.producers.embeddings.test_reuse import embed
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


def test_rows_encoded_without_feast_redis_and_deltalake_are_added_once(
    store: Settings, encoder: Path, tmp_path: Path
) -> None:
    runner, at = CliRunner(), ["--store", str(store.file)]
    todo, out = tmp_path / "todo.parquet", tmp_path / "parts"
    export = ["hand-out", "--output", str(todo), "--encoder", str(encoder), *at]
    assert "3 products to encode, 1 images could not be read" in runner.invoke(app, export).output

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

    output = runner.invoke(app, ["commit", "--parts", str(out), *at]).output
    assert "3 rows added, 0 existed already, 2 of 2 parts were complete" in output
    assert "0 rows added, 3 existed already" in runner.invoke(app, ["commit", "--parts", str(out), *at]).output
    rows = {row["product_id"]: row for row in delta.read(store.table("product_embedding")).to_pylist()}
    assert set(rows) == {"a", "b", "c"}
    expected = load(str(encoder)).encode_images([Image.new("RGB", (40, 48), "red")])[0]
    np.testing.assert_allclose(rows["a"]["image_vector"], expected, atol=1e-4)
    refused = quarantine.read(store).to_pylist()
    assert [(r["row_id"], r["reason"]) for r in refused if r["step"] == "embeddings"] == [("b", MISSING)]
    assert "0 products to encode" in runner.invoke(app, export).output


def test_a_run_continues_after_its_complete_parts_and_only_those_are_committed(
    store: Settings, encoder: Path, tmp_path: Path
) -> None:
    todo, out = tmp_path / "todo.parquet", tmp_path / "parts"
    remote_jobs.export_todo(store, todo, encoder_version=None)
    run.encode(str(encoder), todo, out, now=NOW, rows_per_part=1, workers=1)
    (out / "part-00001_done").unlink()  # as if killed between the part and its marker
    (out / "part-00001.parquet").write_bytes(b"half")
    assert remote_jobs.commit_parts(store, out, NOW).added == 2
    first = (out / "part-00000.parquet").stat().st_mtime_ns
    assert "1 products encoded" in run.encode(str(encoder), todo, out, now=NOW, rows_per_part=1, workers=1)
    assert (out / "part-00000.parquet").stat().st_mtime_ns == first
    done = remote_jobs.commit_parts(store, out, NOW)
    assert (done.added, done.existing) == (1, 2)


@pytest.mark.parametrize("rows_per_part", [1, 2, 3, 5, 7])
def test_parts_are_cut_by_rows_however_arrow_cuts_the_file(tmp_path: Path, rows_per_part: int) -> None:
    file = tmp_path / "todo.parquet"
    columns = [*run.COLUMNS, *run.HASH_COLUMNS]
    with pq.ParquetWriter(file, pa.schema([(name, pa.string()) for name in columns])) as writer:
        for rows in (5, 1, 3, 2):  # a dictionary column, as other tools write, ends a batch with each row group
            writer.write_table(pa.table({name: [f"{name}{row}" for row in range(rows)] for name in columns}))
    parquet = pq.ParquetFile(file, read_dictionary=["title"])
    description = shards.RunDescription("encoder@1", "digest", 11, rows_per_part)
    wanted = list(range(1, description.parts))  # the first part is complete already
    chunks = pa.concat_tables(run._read_parts(parquet, [], description, wanted))
    assert chunks["title"].cast(pa.string()).to_pylist() == parquet.read()["title"].to_pylist()[rows_per_part:]
    sizes = [len(chunk) for chunk in run._read_parts(parquet, [], description, wanted)]
    ends = set(np.cumsum(sizes).tolist())
    assert ends >= {min(part * rows_per_part, 11) - rows_per_part for part in range(2, description.parts + 1)}


def test_a_commit_names_products_that_no_complete_part_has(store: Settings, encoder: Path, tmp_path: Path) -> None:
    todo, out = tmp_path / "todo.parquet", tmp_path / "parts"
    remote_jobs.export_todo(store, todo, encoder_version=None)
    run.encode(str(encoder), todo, out, now=NOW, rows_per_part=2, workers=1)
    marker = out / "part-00000_done"
    marker.unlink()
    done = remote_jobs.commit_parts(store, out, NOW)
    assert (done.added, done.missing) == (1, 2)
    assert "2 of 3 products are missing" in str(done)
    marker.touch()
    part = out / "part-00000.parquet"
    rows = pq.read_table(part)
    pq.write_table(rows.slice(0, 1), part)
    with pytest.raises(VitrineError, match="holds 1 of the 2 products of its part, so 1 are missing"):
        remote_jobs.commit_parts(store, out, NOW)
    pq.write_table(rows, part)
    done = remote_jobs.commit_parts(store, out, NOW)
    assert (done.added, done.missing) == (2, 0)
    assert "products are missing" not in str(done)


def test_two_commits_at_once_add_each_row_once(store: Settings, encoder: Path, tmp_path: Path) -> None:
    todo, out = tmp_path / "todo.parquet", tmp_path / "parts"
    remote_jobs.export_todo(store, todo, encoder_version=None)
    run.encode(str(encoder), todo, out, now=NOW, rows_per_part=1, workers=1)
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: remote_jobs.commit_parts(store, out, NOW), range(2)))
    assert sum(each.added for each in done) == sum(each.existing for each in done) == 3
    assert sorted(delta.read(store.table("product_embedding"))["product_id"].to_pylist()) == ["a", "b", "c"]


def test_rows_carry_content_hashes_so_that_only_corrections_are_encoded_again(
    store: Settings, encoder: Path, tmp_path: Path
) -> None:
    added = _encode_remotely(store, encoder, tmp_path / "first")
    embedded = {row["product_id"]: row for row in delta.read(store.table("product_embedding")).to_pylist()}
    catalogue = {row["product_id"]: row for row in delta.read(store.table("product_catalogue")).to_pylist()}
    assert {product: row["image_hash"] for product, row in embedded.items()} == {
        product: row["image_hash"] for product, row in catalogue.items()
    }
    assert embedded["c"]["title_hash"] == content_hash("蓝".encode())
    assert embed(store, encoder).encoded == 0

    ingest(store, {"product_id": "c", "title": "绿", "image": None}, now=CATALOGUED + timedelta(days=1))
    assert (added, _encode_remotely(store, encoder, tmp_path / "second", day=1)) == (3, 1)
    newest = delta.read(store.table("product_embedding")).sort_by("created_timestamp").to_pylist()[-1]
    assert (newest["product_id"], newest["title_hash"]) == ("c", content_hash("绿".encode()))
    assert embed(store, encoder, 1).encoded == 0

    ingest(store, {"product_id": "c", "title": "紫", "image": None}, now=CATALOGUED + timedelta(days=2))
    assert embed(store, encoder, 2).encoded == 1


def test_rows_of_contents_corrected_since_the_export_are_left_out(
    store: Settings, encoder: Path, tmp_path: Path
) -> None:
    todo, out = tmp_path / "todo.parquet", tmp_path / "parts"
    remote_jobs.export_todo(store, todo, encoder_version=None)
    run.encode(str(encoder), todo, out, now=NOW + timedelta(days=1), workers=1)
    ingest(store, {"product_id": "c", "title": "绿", "image": None}, now=CATALOGUED + timedelta(days=1))
    done = remote_jobs.commit_parts(store, out, NOW)
    assert (done.added, done.existing, done.outdated) == (2, 0, 1)
    assert "1 rows left out: corrected in the catalogue since" in str(done)
    assert embed(store, encoder, 2).encoded == 1


def test_a_day_with_nothing_to_encode_commits_no_rows_without_an_error(
    store: Settings, encoder: Path, tmp_path: Path
) -> None:
    _encode_remotely(store, encoder, tmp_path / "first")
    assert _encode_remotely(store, encoder, tmp_path / "second", day=1) == 0
    with pytest.raises(VitrineError, match="not a folder of parts"):
        remote_jobs.commit_parts(store, tmp_path, NOW)


def test_parts_committed_after_another_encoders_rows_become_the_latest_once(
    store: Settings, encoder: Path, tmp_path: Path
) -> None:
    todo, out = tmp_path / "todo.parquet", tmp_path / "parts"
    remote_jobs.export_todo(store, todo, encoder_version=None)
    run.encode(str(encoder), todo, out, now=NOW, workers=1)
    checkpoints.chinese_clip(tmp_path / "other")
    embed(store, tmp_path / "other", 1)
    done = [remote_jobs.commit_parts(store, out, NOW + timedelta(days=day)) for day in (2, 3)]
    assert [(each.added, each.existing) for each in done] == [(3, 0), (0, 3)]
    rows = delta.read(store.table("product_embedding")).sort_by("created_timestamp").to_pylist()
    assert {each["encoder_version"] for each in rows[-3:]} == {load(str(encoder)).version}


def _encode_remotely(store: Settings, encoder: Path, folder: Path, day: int = 0) -> int:
    """Export, encode and commit; return the number of rows added."""
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


def test_a_catalogue_that_is_not_parquet_is_refused_in_one_line(encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "c.parquet").write_bytes(b"no table")
    with pytest.raises(VitrineError, match="not a readable Parquet file"):
        run.encode(str(encoder), tmp_path / "c.parquet", tmp_path / "out", now=NOW)
