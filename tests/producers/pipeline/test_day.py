"""`produce day`: real commands in processes of their own, resumed after a failure and after a kill."""

import json
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from feature_repo import run_log, schema
from feature_repo.config import Settings
from feature_repo.errors import VitrineError
from feature_repo.offline import delta
from producers import cli
from producers.pipeline.plan import load_pipeline
from producers.pipeline.run import find_finished
from tests.deployments import ROOT, clean_environment, configure, run_main
from tests.producers.catalogue.shop import GOOD, write_products

NOW = datetime(2026, 1, 10, tzinfo=UTC)
FEAST = str(Path(sys.executable).parent / "feast")


def write_pipeline(folder: Path, *steps: str, checks: tuple[str, ...] = ()) -> None:
    (folder / "vitrine.toml").write_text(f"[pipeline]\nsteps = {json.dumps(steps)}\nchecks = {json.dumps(checks)}\n")


def start_day(store: Settings, *arguments: str) -> subprocess.Popen[str]:
    command = [str(Path(sys.executable).parent / "produce"), "day", *arguments, "--store", str(store.file)]
    return subprocess.Popen(
        command,
        cwd=store.file.parent,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_day(store: Settings, *arguments: str) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error."""
    process = start_day(store, *arguments)
    output, error = process.communicate(timeout=300)
    return process.returncode, output, error


def kill_at(step: str, store: Settings, *arguments: str) -> None:
    """Start the day, and kill it with SIGKILL as soon as a step begins."""
    process = start_day(store, *arguments)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(f"{step}: "):
            break
    own = (f"day/{step}", process.pid)
    while own not in [(run.step, run.process) for run in run_log.read_last_runs(store, 10)]:
        time.sleep(0.02)
    time.sleep(0.2)  # the step's own process has started
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL


def record_day(store: Settings, inputs: dict[str, int], *endings: tuple[str, str], ending: str) -> None:
    """Write the run of a day and of its steps to the run log."""
    with_errors = {run_log.FAILED: RuntimeError, run_log.STOPPED: KeyboardInterrupt}

    def record(step: str, how: str, inner: tuple[tuple[str, str], ...] = ()) -> None:
        try:
            with run_log.record_run(store, step, now=NOW) as run:
                for name, version in inputs.items() if step == "day" else ():
                    run.add_input(name, version)
                for name, of_step in inner:
                    record(f"day/{name}", of_step)
                if how in with_errors:
                    raise with_errors[how]
        except (RuntimeError, KeyboardInterrupt):
            pass

    record("day", ending, endings)


def test_a_day_goes_on_from_the_last_run_of_each_step_with_the_same_inputs(tmp_path: Path) -> None:
    store, done, failed = configure(tmp_path), run_log.DONE, run_log.FAILED
    today = {"products": 2}
    assert find_finished(store, today) == set()
    record_day(store, {"products": 1}, ("catalogue", done), ending=failed)
    assert find_finished(store, today) == set()
    record_day(store, today, ("catalogue", done), ("embeddings", failed), ending=failed)
    assert find_finished(store, today) == {"catalogue"}
    record_day(store, today, ("embeddings", done), ("tags", run_log.STOPPED), ending=run_log.STOPPED)
    assert find_finished(store, today) == {"catalogue", "embeddings"}
    record_day(store, today, ("catalogue", failed), ending=failed)  # with --restart
    assert find_finished(store, today) == {"embeddings"}
    record_day(store, today, ("tags", done), ending=done)
    assert find_finished(store, today) == set()


def test_a_failed_step_ends_the_day_and_the_same_command_goes_on_from_there(tmp_path: Path) -> None:
    store = configure(tmp_path)
    products = str(write_products(store, {}, {"product_id": "p2"}, {"product_id": None}))
    arguments = ["day", "--products", products, "--store", str(store.file)]
    first = "produce catalogue --products {products} --max-lost-share 1"
    write_pipeline(tmp_path, first, "produce codes", "produce runs", checks=("produce runs",))
    result = CliRunner().invoke(cli.app, [*arguments, "--json", str(tmp_path / "figures" / "day.json")])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"catalogue: produce catalogue --products {products} --max-lost-share 1\n")
    assert result.stdout.startswith("catalogue: done after ")
    assert "2 new, 0 changed, 0 unchanged, 0 gone\n  quarantined 1: product id is null or blank\n" in result.stdout
    assert "exit code 1: no table `product_embedding`" in result.stdout
    assert "not run: runs; the same command goes on from here" in result.stdout
    figures = json.loads((tmp_path / "figures" / "day.json").read_text())
    assert [step["ending"] for step in figures["steps"]] == ["done", "failed"]

    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 1
    assert result.stdout.startswith("catalogue: done before\ncodes: failed after ")

    write_pipeline(tmp_path, first, checks=("produce commit --parts nowhere",))  # another pipeline is another day
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 3
    assert "0 new, 0 changed, 2 unchanged, 0 gone" in result.stdout
    assert "all steps ended well, " in result.stdout
    assert "commit: failed" in result.stdout
    assert [run.ending for run in run_log.read_runs(store, step="day")] == ["failed", "failed", "done"]


def test_a_killed_day_takes_its_step_with_it_and_is_run_again(tmp_path: Path) -> None:
    store = configure(tmp_path)
    products = str(write_products(store, {}))
    write_pipeline(tmp_path, "produce runs", "produce catalogue --products {products}")
    kill_at("catalogue", store, "--products", products)
    code, output, _ = run_day(store, "--products", products)
    assert code == 0
    assert output.startswith("runs: done before\ncatalogue: done after ")
    assert delta.open_dataset(store.table(schema.CATALOGUE_TABLE)).count_rows() == 1
    endings = [(run.step, run.ending) for run in run_log.read_runs(store) if run.step.startswith("day")]
    assert endings == [
        ("day", "killed"),
        ("day/runs", "done"),
        ("day/catalogue", "killed"),
        ("day", "done"),
        ("day/catalogue", "done"),
    ]


def test_options_that_do_not_fit_are_refused_before_anything_runs(tmp_path: Path) -> None:
    store = configure(tmp_path)
    write_pipeline(tmp_path, "produce interests --impressions {impressions}")
    for arguments, reason in (
        (["--products", "nowhere.parquet"], "nowhere.parquet: no such file"),
        ([], "give --impressions, or remove the step"),
        (["--encoder", "e"], "--encoder and --labels need --init"),
        (["--init"], "--init needs --encoder"),
        (["--init", "--encoder", "e"], "exists already"),
    ):
        result = CliRunner().invoke(cli.app, ["day", *arguments, "--store", str(store.file)])
        assert isinstance(result.exception, VitrineError)
        assert reason in str(result.exception)
    json_in_a_file = str(tmp_path / "vitrine.toml" / "day.json")
    arguments = ["day", "--impressions", str(tmp_path), "--json", json_in_a_file, "--store", str(store.file)]
    assert isinstance(CliRunner().invoke(cli.app, arguments).exception, OSError)
    assert run_log.read_runs(store) == []


def test_init_writes_a_pipeline_and_runs_nothing(tmp_path: Path) -> None:
    store = configure(tmp_path)
    done = run_main("produce", "day", "--init", "--encoder", "my encoder", "--store", str(store.file))
    assert (done.returncode, done.stdout.split(": ")[0]) == (0, str(tmp_path / "vitrine.toml"))
    steps = load_pipeline(tmp_path / "vitrine.toml", {"products": "p", "impressions": None, "now": "n"}).steps
    assert steps[1].command == ("produce", "embeddings", "--encoder", str(Path("my encoder").resolve()))
    assert run_log.read_runs(store) == []


STEPS = (
    "produce catalogue --products {products}",
    "produce embeddings --encoder {encoder}",
    "produce codes --max-collisions 1 --min-entropy 0 --max-error 1",
    "produce interests --impressions {impressions}",
    "produce neighbours --impressions {impressions}",
    "feast materialize-incremental {now}",
)
TABLES = ("product_catalogue", "product_embedding", "product_codes", "user_interest", "product_neighbours")


def make_shop(folder: Path, encoder: Path) -> tuple[Settings, list[str]]:
    """Write a deployment, a day's tables and the pipeline; return the options of `produce day`."""
    folder.mkdir()
    store = configure(folder)
    rows = ({"product_id": f"p{row}", "title": f"{GOOD['title']} {row}", "image": None} for row in range(40))
    products = write_products(store, *rows)
    chance = np.random.default_rng(0)
    log = {
        "impression_id": [f"i{row}" for row in range(400)],
        "user_id": [f"u{user}" for user in chance.integers(0, 20, 400)],
        "product_id": [f"p{row}" for row in chance.integers(0, 40, 400)],
        "event_timestamp": pa.array(
            [datetime(2026, 1, 3 + row // 100, row % 24, tzinfo=UTC) for row in range(400)], pa.timestamp("us", "UTC")
        ),
        "clicked": chance.integers(0, 2, 400),
    }
    pq.write_table(pa.table(log), folder / "impressions.parquet")
    (folder / "vitrine.toml").write_text(
        f"[pipeline]\nencoder = {json.dumps(str(encoder))}\nsteps = {json.dumps(STEPS)}\n"
        f"checks = {json.dumps(['consume consistency'])}\n"
    )
    environment = clean_environment() | {"FEAST_FS_YAML_FILE_PATH": str(store.file)}
    subprocess.run([FEAST, "apply"], cwd=ROOT / "feature_repo", env=environment, check=True, capture_output=True)
    return store, ["--products", str(products), "--impressions", str(folder / "impressions.parquet")]


def read_state(store: Settings) -> dict[str, list[str]]:
    """Return the rows of all tables without the time of their creation, and those that are online."""
    state = {}
    for table in TABLES:
        rows = delta.read(store.table(table)).drop_columns("created_timestamp")
        rows = rows.drop_columns([name for name in ("codebook_version",) if name in rows.column_names])
        state[table] = sorted(map(repr, rows.to_pylist()))
    done = subprocess.run(
        [str(Path(sys.executable).parent / "consume"), "consistency", "--json", "consistency.json"],
        cwd=store.file.parent,
        env=clean_environment() | {"FEAST_FS_YAML_FILE_PATH": str(store.file)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return state


@pytest.mark.slow
def test_a_day_that_is_killed_at_any_step_ends_as_an_undisturbed_one(tmp_path: Path, encoder: Path) -> None:
    store, options = make_shop(tmp_path / "undisturbed", encoder)
    code, output, error = run_day(store, *options)
    assert code == 0, output + error
    expected = read_state(store)
    store, options = make_shop(tmp_path / "killed", encoder)
    for step in (
        "catalogue",
        "embeddings",
        "codes",
        "interests",
        "neighbours",
        "materialize-incremental",
        "consistency",
    ):
        kill_at(step, store, *options)
    code, output, error = run_day(store, *options)
    assert code == 0, output + error
    assert output.count("done before") == len(STEPS)
    assert read_state(store) == expected
    code, output, _ = run_day(store, *options)  # the same tables again: nothing is written
    assert code == 0
    assert "0 new, 0 changed, 40 unchanged" in output
    assert read_state(store) == expected
