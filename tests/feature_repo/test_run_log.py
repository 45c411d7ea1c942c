"""The run log of runs that end, fail, are killed or conflict with another run."""

import socket
import sqlite3
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from feature_repo import config, run_log
from feature_repo.config import Settings
from feature_repo.errors import VitrineError
from feature_repo.location import BucketPath
from producers.cli import app

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SQL = "project: test\noffline_store:\n  path: offline\nregistry:\n  registry_type: sql\n  path: {}\n"
SLEEPER = """
import sys, time
from datetime import UTC, datetime
from pathlib import Path
from feature_repo import config, run_log
with run_log.record_run(config.load(Path(sys.argv[1])), "embeddings", now=datetime(2026, 6, 1, tzinfo=UTC)) as run:
    run.add_counts(encoded=3)
    print("at work", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def store(tmp_path: Path) -> Settings:
    return opened(tmp_path, SQL.format("sqlite:///data/registry.db"))


def opened(folder: Path, content: str) -> Settings:
    (folder / "feature_store.yaml").write_text(content)
    return config.load(folder / "feature_store.yaml")


def test_a_run_records_its_inputs_model_counts_and_end(store: Settings) -> None:
    with run_log.record_run(store, "codes", now=NOW, reads=["product_embedding"]) as run:
        run.add_input("product_catalogue", 7)
        run.set_model("codebook-1")
        for _ in range(2):
            run.add_counts(encoded=2, reused=1)
            run.add_quarantined({"image is empty": 1})
        assert [each.ending for each in run_log.read_runs(store)] == [run_log.RUNNING]
    (found,) = run_log.read_runs(store)
    assert (found.step, found.model, found.ending, found.started) == ("codes", "codebook-1", run_log.DONE, NOW)
    assert found.inputs == {"product_embedding": None, "product_catalogue": 7}
    assert (found.counts, found.quarantined) == ({"encoded": 4, "reused": 2}, {"image is empty": 2})
    assert found.ended is not None
    assert 0 <= (found.ended - NOW).total_seconds() < 60
    assert "4 encoded, 2 reused" in run_log.format_run(found)


def test_the_table_is_in_the_registrys_database_relative_to_the_configuration(store: Settings, tmp_path: Path) -> None:
    with run_log.record_run(store, "codes", now=NOW):
        pass
    with sqlite3.connect(tmp_path / "data" / "registry.db") as database:
        assert database.execute("SELECT project, step, ending FROM vitrine_runs").fetchall() == [
            ("test", "codes", "done")
        ]


def test_without_an_sql_registry_the_table_is_beside_the_delta_tables(tmp_path: Path) -> None:
    store = opened(tmp_path, "project: test\noffline_store:\n  path: offline\nregistry: registry.pb\n")
    with run_log.record_run(store, "codes", now=NOW):
        pass
    assert (store.offline / "ledger.db").is_file()


def test_a_failed_run_records_its_error_and_raises_it(store: Settings) -> None:
    with pytest.raises(VitrineError, match="no table"), run_log.record_run(store, "codes", now=NOW):
        raise VitrineError("no table `x`;\nrun y")
    with pytest.raises(KeyboardInterrupt), run_log.record_run(store, "codes", now=NOW):
        raise KeyboardInterrupt
    failed, stopped = run_log.read_runs(store)
    assert (failed.ending, failed.error) == (run_log.FAILED, "no table `x`; run y")
    assert stopped.ending == run_log.STOPPED


def test_a_killed_run_is_marked_as_killed_with_its_counts(store: Settings) -> None:
    process = started(store)
    assert [each.ending for each in run_log.read_runs(store)] == [run_log.RUNNING]
    process.kill()
    process.wait()
    (found,) = run_log.read_runs(store)
    assert (found.ending, found.ended, found.counts) == (run_log.KILLED, None, {"encoded": 3})
    with run_log.record_run(store, "embeddings", now=NOW):
        pass
    assert [each.ending for each in run_log.read_runs(store)] == [run_log.KILLED, run_log.DONE]


def test_a_second_run_of_a_step_raises_an_error_and_other_steps_run(store: Settings) -> None:
    process = started(store)
    try:
        with run_log.record_run(store, "tags", now=NOW):
            pass
        with (
            pytest.raises(VitrineError, match=r"another `produce embeddings` is running on .*`produce runs`"),
            run_log.record_run(store, "embeddings", now=NOW),
        ):
            pytest.fail("it ran")
        assert [each.step for each in run_log.read_runs(store)] == ["embeddings", "tags"]
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("${NOBODY_SET_THIS}", "environment variables are all set"),
        ("not an address", "not a database address"),
        ("sqlite:///.", r"the run log in sqlite:///.* does not answer: unable to open"),
        ("nosuchdatabase://here", "no driver for registry.path"),
    ],
)
def test_a_database_that_cannot_be_opened_raises_one_line(path: str, said: str, tmp_path: Path) -> None:
    store = opened(tmp_path, SQL.format(path))
    with pytest.raises(VitrineError, match=said), run_log.record_run(store, "codes", now=NOW):
        pytest.fail("it ran")


def started(store: Settings) -> subprocess.Popen:
    """Start a process that holds a run of `produce embeddings`."""
    process = subprocess.Popen([sys.executable, "-c", SLEEPER, str(store.file)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    return process


def test_runs_distinguishes_an_unknown_step_from_an_empty_run_log(store: Settings) -> None:
    line = ["runs", "--store", str(store.file), "--step", "embedings"]
    assert CliRunner().invoke(app, line).output == "no run yet\n"
    with run_log.record_run(store, "embeddings", now=NOW):
        pass
    assert CliRunner().invoke(app, line).output == "no run of embedings yet; there are runs of embeddings\n"
    assert CliRunner().invoke(app, [*line[:-1], "embeddings"]).output.startswith("1 embeddings, ")


def test_a_run_of_another_machine_whose_tables_are_in_a_bucket_is_not_taken_for_killed(
    store: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = replace(store, offline=BucketPath("s3://shop"))
    elsewhere = replace(here, local=tmp_path / "another disk")  # without the lock of the run
    with run_log.record_run(here, "tags", now=NOW):
        this_machine = socket.gethostname()
        monkeypatch.setattr(socket, "gethostname", lambda: f"not {this_machine}")
        assert [run.ending for run in run_log.read_runs(elsewhere)] == [run_log.RUNNING]
        monkeypatch.undo()
        assert [run.ending for run in run_log.read_runs(elsewhere)] == [run_log.KILLED]
