"""An upgrade of a deployment with real encoders and the real commands, in processes that are killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import typer
from safetensors.numpy import load_file, save_file

from consumers.gate.check import check_candidate
from consumers.gate.clicks import ALL_ROWS, measure_clicks
from consumers.gate.options import ClickLogOptions, GateLimits
from feature_repo import definitions, schema
from feature_repo.config import Settings
from feature_repo.offline import delta, production
from feature_repo.offline.production import State
from feature_repo.stores.feature_store import open_feature_store
from producers.cli import app
from tests.deployments import clean_environment, configure, unpack

pytestmark = pytest.mark.slow

STEPS = (
    "tags --labels shop/labels.parquet",
    "codes --max-collisions 1 --min-entropy 0 --max-error 1",
    "interests --impressions shop/impressions.parquet",
    "neighbours --impressions shop/impressions.parquet",
)
NOW = datetime(2026, 11, 30, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The deployment of 150 products that version 0.1.0 wrote, with a second encoder in the folder `next`."""
    return make(tmp_path / "shop", monkeypatch)


def make(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    folder.mkdir()
    unpack(folder)
    settings = configure(folder)
    monkeypatch.chdir(folder)
    shutil.copytree("encoder", "next")
    weights, rng = load_file("next/model.safetensors"), np.random.default_rng(0)
    noisy = {
        name: (values + rng.normal(size=values.shape) * 0.05 * values.std()).astype(values.dtype)
        if values.ndim > 1
        else values
        for name, values in weights.items()
    }
    save_file(noisy, "next/model.safetensors", metadata={"format": "pt"})
    store = open_feature_store(settings)
    store.apply([getattr(definitions, name) for name in definitions.__all__])
    store.materialize_incremental(NOW)
    return settings


def start_arguments() -> list[str]:
    steps = [word for step in STEPS for word in ("--step", step)]
    return ["upgrade", "start", "--encoder", "next", "--former-encoder", "encoder", *steps]


def write_gate(settings: Settings) -> None:
    candidate = production.read_current(settings.offline).candidate_version
    report = check_candidate(
        settings, candidate, GateLimits(min_tag_agreement=0.3), None, seed=0, now=datetime.now(UTC)
    )
    assert not report.failures
    report.write(Path("gate.json"))


def change_shop() -> None:
    """Change titles of ten products, and add a click for each of five users."""
    products = pq.read_table("shop/products.parquet")
    titles, updated = products["title"].to_pylist(), products["updated_at"].to_pylist()
    titles[:10] = [f"{title} neu" for title in titles[:10]]
    updated[:10] = [max(updated) + timedelta(hours=1)] * 10
    for name, values in (("title", titles), ("updated_at", updated)):
        index = products.schema.get_field_index(name)
        products = products.set_column(index, name, pa.array(values, products.schema.field(index).type))
    pq.write_table(products, "shop/products.parquet")
    log = pq.read_table("shop/impressions.parquet").sort_by("event_timestamp")
    last = log.slice(len(log) - 5).to_pylist()
    more = [
        row
        | {"impression_id": f"more{i}", "clicked": 1, "event_timestamp": row["event_timestamp"] + timedelta(hours=2)}
        for i, row in enumerate(last)
    ]
    pq.write_table(pa.concat_tables([log, pa.Table.from_pylist(more, log.schema)]), "shop/impressions.parquet")


def read_rows(settings: Settings, table: str, version: str) -> list[dict]:
    """The row created last of each key of one encoder version, without its created timestamp, ordered by key."""
    rows = delta.read(settings.table(table), where=pc.field("encoder_version") == version)
    entity = "user_id" if table == schema.INTEREST_TABLE else "product_id"
    newest = {}
    for row in rows.sort_by("created_timestamp").to_pylist():
        row.pop("created_timestamp")
        newest[row[entity], row["event_timestamp"]] = row
    return [newest[key] for key in sorted(newest)]


def make_runner(settings: Settings) -> Callable[[Sequence[str]], None]:
    """Return a function that runs a command of `produce` in this process: it starts a second faster than a new one."""
    produce = typer.main.get_command(app)

    def run(arguments: Sequence[str]) -> None:
        assert not produce.main([*arguments, "--store", str(settings.file)], "produce", standalone_mode=False)

    return run


def run_day(run: Callable[[Sequence[str]], None], settings: Settings, encoder: str) -> None:
    """The steps of a day with the encoder in production."""
    for step in (f"embeddings --encoder {encoder}", *STEPS):
        run(step.split())


def test_a_store_that_left_an_encoder_and_came_back_has_the_tables_of_one_that_never_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stays = make(tmp_path / "stays", monkeypatch)
    run = make_runner(stays)
    change_shop()
    run(["catalogue", "--products", "shop/products.parquet"])
    run_day(run, stays, "encoder")

    leaves = make(tmp_path / "leaves", monkeypatch)
    run = make_runner(leaves)
    run(start_arguments())
    run(["upgrade", "advance"])
    write_gate(leaves)
    run(["upgrade", "advance", "--gate", "gate.json"])
    run(["upgrade", "advance"])
    current = production.read_current(leaves.offline)
    assert (current.state, current.production_version[:5]) == (State.CUT_OVER, "next@")
    change_shop()
    run(["catalogue", "--products", "shop/products.parquet"])
    run_day(run, leaves, "next")
    run(["upgrade", "rollback"])
    version = production.read_version(leaves.offline)
    assert version == current.candidate_version
    for table in schema.ENCODER_TABLES:
        expected = read_rows(stays, table, version)
        assert expected
        assert read_rows(leaves, table, version) == expected, table


def test_a_version_differs_by_nothing_from_itself_on_a_log_and_from_noise_in_its_hit_rate(settings: Settings) -> None:
    production.record_first_version(settings.offline, "", NOW)
    version, noise = production.read_version(settings.offline), "noise@1"
    rng = np.random.default_rng(0)
    for table in schema.ENCODER_TABLES:
        rows = delta.read(settings.table(table))
        noisy = [row | {"encoder_version": noise} for row in rows.to_pylist()]
        for row in noisy if table == schema.EMBEDDING_TABLE else ():
            row["fused_vector"] = rng.normal(size=len(row["fused_vector"])).tolist()
        delta.append(settings.table(table), pa.Table.from_pylist(noisy, rows.schema))
    log = ClickLogOptions(Path("shop/impressions.parquet"), seeds=1, replicates=20)
    same = measure_clicks(settings, log, (version, version), now=NOW)
    assert same.hit_rate[0] == same.hit_rate[1]
    assert {difference.value for difference in same.auc.values()} == {0.0}
    assert list(same.auc)[:2] == [ALL_ROWS, "new products"]
    other = measure_clicks(settings, log, (version, noise), now=NOW)
    assert other.hit_rate[0] == same.hit_rate[0] != other.hit_rate[1]


def produce(arguments: Sequence[str], settings: Settings, kill_after: float | None = None) -> int:
    """Run a command in a process of its own, killed after some seconds; return its exit status."""
    command = [sys.executable, "-m", "producers", *arguments, "--store", str(settings.file)]
    process = subprocess.Popen(command, env=clean_environment(), start_new_session=True, stdout=subprocess.DEVNULL)
    if kill_after is None:
        return process.wait()
    try:
        return process.wait(kill_after)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def test_an_upgrade_that_is_killed_at_many_moments_ends_as_an_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = make(tmp_path / "undisturbed", monkeypatch)
    run = make_runner(undisturbed)
    run(start_arguments())
    run(["upgrade", "advance"])
    current = production.read_current(undisturbed.offline)
    expected = {table: read_rows(undisturbed, table, current.candidate_version) for table in schema.ENCODER_TABLES}

    settings = make(tmp_path / "killed", monkeypatch)
    assert produce(start_arguments(), settings) == 0
    began = time.monotonic()
    assert produce(["upgrade", "status"], settings) == 0
    start_seconds = time.monotonic() - began
    kills = 0

    def run_until(state: State, arguments: Sequence[str]) -> None:
        """Run a command until a state is reached; kill each run a little later than the one before."""
        nonlocal kills
        moment = 0.5
        while production.read_current(settings.offline).state is not state:
            assert moment < 50
            kills += produce(arguments, settings, kill_after=start_seconds * moment) == -signal.SIGKILL
            moment *= 1.25

    run_until(State.SHADOW, ["upgrade", "advance"])
    for table in schema.ENCODER_TABLES:
        assert read_rows(settings, table, current.candidate_version) == expected[table], table
        rows = delta.read(settings.table(table))
        counts = {row["values"]: row["counts"] for row in pc.value_counts(rows["encoder_version"]).to_pylist()}
        assert counts[current.production_version] == counts[current.candidate_version], table
    write_gate(settings)
    run_until(State.GATED, ["upgrade", "advance", "--gate", "gate.json"])
    run_until(State.CUT_OVER, ["upgrade", "advance"])
    run_until(State.RETIRED, ["upgrade", "retire", "--grace", "1s"])
    assert kills >= 20
    after = production.read_current(settings.offline)
    assert after.production_version == current.candidate_version
    for table in schema.ENCODER_TABLES:
        assert pc.unique(delta.read(settings.table(table))["encoder_version"]).to_pylist() == [after.production_version]
        assert read_rows(settings, table, after.production_version) == expected[table], table
