"""The options that precede every command: --version, -v, -q and --log-format."""

import errno
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import typer
from rich.table import Table
from typer.testing import CliRunner

import consumers.cli
import producers.cli
from feature_repo import console
from feature_repo.errors import InvalidInputError, UsageError
from tests.deployments import run_main

NAMES_THAT_LOOK_LIKE_MARKUP = ("[/]", "[red]dress[/red]", ":smile:", "[link=https://example.com]")
_log = logging.getLogger("producers.anything")


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for package in ("feature_repo", "producers", "consumers"):
        logging.getLogger(package).setLevel(logging.NOTSET)
    console._handler.log_format = console.LogFormat.TEXT
    console.console.quiet = False


def make_app() -> typer.Typer:
    app = typer.Typer()
    app.callback()(console.configure)

    @app.command()
    def work() -> None:
        typer.echo("result")
        _log.info("detail")
        _log.warning("caution")

    @app.command()
    def fail() -> None:
        raise InvalidInputError("first line\nsecond line")

    return app


@pytest.mark.parametrize("app", [producers.cli.app, consumers.cli.app], ids=["produce", "consume"])
def test_version_prints_the_version_of_the_installed_distribution(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"{version('vitrine')}\n")


@pytest.mark.parametrize(
    ("options", "logged"),
    [([], ["caution"]), (["-v"], ["detail", "caution"]), (["-q"], [])],
    ids=["neither", "verbose", "quiet"],
)
def test_verbose_and_quiet_choose_the_records_and_never_the_result(options: list[str], logged: list[str]) -> None:
    result = CliRunner().invoke(make_app(), [*options, "work"])
    assert (result.stdout, result.stderr.splitlines()) == ("result\n", logged)
    assert console.console.quiet == (options == ["-q"])


def test_verbose_and_quiet_together_are_a_usage_error() -> None:
    result = CliRunner().invoke(make_app(), ["-v", "-q", "work"])
    assert isinstance(result.exception, UsageError)


def test_json_writes_one_object_for_each_record() -> None:
    result = CliRunner().invoke(make_app(), ["--log-format", "json", "-v", "work"])
    records = [json.loads(line) for line in result.stderr.splitlines()]
    assert [(record["level"], record["message"]) for record in records] == [("info", "detail"), ("warning", "caution")]
    assert {record["logger"] for record in records} == {"producers.anything"}
    assert all(record["time"].endswith("+00:00") for record in records)
    assert console.console.quiet


def test_json_writes_an_error_as_one_object(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["work", "--log-format", "json", "fail"])
    with pytest.raises(SystemExit) as exit_:
        console.run_command_line(make_app())
    assert exit_.value.code == 1
    record = json.loads(capsys.readouterr().err)
    assert (record["level"], record["message"]) == ("error", "first line second line")


def test_progress_that_is_redirected_is_printed_as_plain_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "PLAIN_INTERVAL_SECONDS", 0.01)
    lines = ""
    with console.make_progress_bar() as bar:
        task = bar.add_task("encode [red]", total=None)
        bar.update(task, total=8_000, completed=1_200)
        deadline = time.monotonic() + 10
        while lines.count("\n") < 2 and time.monotonic() < deadline:
            time.sleep(0.005)
            lines += capsys.readouterr().err
        bar.start()  # again
    assert all(line.startswith("encode [red]: 1,200 of 8,000 after ") for line in lines.splitlines())
    assert list(console.track_progress(range(3), "count")) == [0, 1, 2]


def test_a_second_stage_with_the_total_of_the_first_is_printed_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "PLAIN_INTERVAL_SECONDS", 0.01)
    lines = ""
    with console.make_progress_bar() as bar:
        task = bar.add_task("encode images", total=None)
        bar.update(task, completed=500, total=500)
        bar.update(task, description="encode titles", completed=100, total=500)
        deadline = time.monotonic() + 10
        while "\n" not in lines and time.monotonic() < deadline:
            time.sleep(0.005)
            lines += capsys.readouterr().err
    assert "encode titles: 100 of 500 after " in lines


def test_a_fast_command_prints_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(console.track_progress(range(3), "count")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_no_progress_is_printed_after_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "PLAIN_INTERVAL_SECONDS", 0.005)
    console.console.quiet = True
    with console.make_progress_bar() as bar:
        bar.add_task("encode", total=None)
        time.sleep(0.03)
    assert capsys.readouterr().err == ""


def test_names_in_tables_are_text_and_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("name")
    for name in NAMES_THAT_LOOK_LIKE_MARKUP:
        table.add_row(name)
    console.print_tables(table)
    printed = capsys.readouterr().out
    assert all(name in printed for name in NAMES_THAT_LOOK_LIKE_MARKUP)


def test_every_command_prints_its_tables_without_markup() -> None:
    commands = (Path(__file__).parents[2] / "consumers" / "commands").glob("*.py")
    assert not [file.name for file in commands if "Console(" in file.read_text()]


@pytest.mark.parametrize(
    "command", ["drift", "freshness", "consistency", "tags-report", "captions-report", "labels score"]
)
def test_a_file_of_figures_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path, command: str) -> None:
    (tmp_path / "file").touch()
    output = tmp_path / "file" / "figures.json"
    done = run_main("consume", *command.split(), "--store", str(tmp_path / "none.yaml"), "--json", str(output))
    assert done.returncode == 1
    assert "file" in done.stderr
    assert "none.yaml" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("number", "repair"),
    [
        (errno.ENOSPC, "; free disk space, or raise the limit, and run this again"),
        (errno.EACCES, "; change its permissions, or name another path"),
        (errno.EEXIST, "; name another path, or remove what is there"),
        (errno.ENOTDIR, "; correct the path"),
        (errno.EIO, ""),
    ],
)
def test_an_error_of_the_system_is_one_line_with_the_file_and_the_repair(
    number: int, repair: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = typer.Typer()

    @app.command()
    def work() -> None:
        raise OSError(number, os.strerror(number), "table.csv")

    monkeypatch.setattr(sys, "argv", ["produce"])
    with pytest.raises(SystemExit) as ended:
        console.run_command_line(app)
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"error: table.csv: {os.strerror(number)}{repair}\n"
